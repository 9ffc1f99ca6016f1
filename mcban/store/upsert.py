"""Many rows at a time: slices for IN lists, and insert-or-update by unique key on each database's own terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

T = TypeVar("T")

SLICE = 500
"""Values in one IN list: far below what any database takes."""


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in pieces short enough for an IN list."""
    for start in range(0, len(values), SLICE):
        yield values[start : start + SLICE]


def upsert(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    added: Sequence[str] = (),
) -> None:
    """Insert `rows`, all with the same columns; where `key` exists, set the other columns, or, for those in `added`,
    add to what is there."""
    if not rows:
        return
    columns = [name for name in rows[0] if name not in key]
    if connection.dialect.name == "sqlite":
        lite = sqlite_insert(table)
        changed = _values(table, lite.excluded, columns, added)
        connection.execute(lite.on_conflict_do_update(index_elements=key, set_=changed), rows)
    else:
        mysql = mysql_insert(table)
        connection.execute(mysql.on_duplicate_key_update(_values(table, mysql.inserted, columns, added)), rows)


def _values(table: Table, new: Any, columns: Sequence[str], added: Sequence[str]) -> dict[str, ColumnElement[Any]]:
    return {name: table.c[name] + new[name] if name in added else new[name] for name in columns}
