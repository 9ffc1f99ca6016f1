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


@compiles(epoch, "postgresql")
def _postgresql(element: Any, compiler: Any, **how: Any) -> str:
    at = compiler.process(element.clauses, **how)
    # An end that is `infinity`, by somebody's plain SQL, is for ever; what lies before 1970 is the same to us.
    within = f"GREATEST(LEAST({at}, TIMESTAMPTZ '9999-12-31 23:59:59+00'), TIMESTAMPTZ '1970-01-01 00:00:00+00')"
    return f"CASE WHEN {at} IS NOT NULL THEN CAST(FLOOR(EXTRACT(EPOCH FROM {within})) AS BIGINT) END"
