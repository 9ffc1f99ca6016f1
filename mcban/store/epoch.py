"""A UTC datetime column as seconds since the epoch, worked out by the database: the driver would make a `datetime` of
each row first, which for a hundred thousand of them takes longer than all the rest."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class epoch(FunctionElement[int]):  # noqa: N801  # it reads as the SQL function that it stands for
    """Seconds since the epoch of a column that holds UTC; NULL where there is no time in it."""

    type = BigInteger()
    name = "epoch"
    inherit_cache = True


@compiles(epoch, "sqlite")
def _sqlite(element: Any, compiler: Any, **how: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **how)}) AS INTEGER)"


@compiles(epoch, "mysql")
@compiles(epoch, "mariadb")
def _mysql(element: Any, compiler: Any, **how: Any) -> str:
    return f"TIMESTAMPDIFF(SECOND, '1970-01-01', {compiler.process(element.clauses, **how)})"
