"""Many rows at a time: slices for IN lists, and insert-or-update by unique key on each database's own terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Boolean, ColumnElement, Connection, Dialect, Insert, Table, insert

from mcban.store.tables import IPS, UtcDateTime

T = TypeVar("T")

SLICE = 500
"""Values in one IN list: far below what any database takes."""


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in pieces short enough for an IN list. The last of its values fills a piece up to a power of two: of
    each length of a list the driver keeps a statement that was made ready, and one of five hundred takes 70 kB."""
    for start in range(0, len(values), SLICE):
        piece = values[start : start + SLICE]
        length = min(1 << (len(piece) - 1).bit_length(), SLICE)
        yield [*piece, *[piece[-1]] * (length - len(piece))]


def upsert(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    added: Sequence[str] = (),
) -> None:
    """Insert `rows`, all with the same columns; where `key` exists, set the other columns, or, for those in `added`,
    add to what is there."""
    if rows:
        columns = tuple(rows[0])
        upsert_rows(connection, table, tuple(key), columns, [tuple(row.values()) for row in rows], tuple(added))


def upsert_rows(
    connection: Connection,
    table: Table,
    key: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Sequence[Sequence[Any]],
    added: tuple[str, ...] = (),
) -> None:
    """The same for rows of values in the order of `columns`."""
    _execute(connection, _statement(connection.dialect, table, columns, key, added), rows)


def insert_rows(connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows of values in the order of `columns`."""
    _execute(connection, _statement(connection.dialect, table, columns), rows)


MOST_VALUES = 990
"""Values in one statement: older releases of SQLite take 999."""

_ROW = re.compile(r"(?<= VALUES )\([?, ]+\)")


class _Several(NamedTuple):
    """An insert of several rows at once."""

    rows: int
    text: str


def _several(text: str, columns: int) -> _Several | None:
    """The same insert for as many rows as one statement takes."""
    found = _ROW.search(text)
    rows = MOST_VALUES // columns
    if found is None:
        return None
    return _Several(rows, f"{text[: found.start()]}{', '.join([found[0]] * rows)}{text[found.end() :]}")


class _Statement:
    """An insert as the driver takes it: its text, and how a row of ours becomes a row of its.

    SQLAlchemy would work out the parameters of each row anew, which takes longer than the database does.
    """

    def __init__(self, dialect: Dialect, statement: Insert, columns: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        self.text = str(compiled)
        self._columns = columns
        # Where the driver wants values by position: which column stands at which.
        self._order = [columns.index(name) for name in compiled.positiontup] if compiled.positiontup else None
        noted = dialect.name == "sqlite" and statement.table is IPS
        self.several = _several(self.text, len(columns)) if noted else None
        table: Any = statement.table
        self._processors: list[tuple[int, Callable[[Any], Any], bool]] = []
        for place, kind in enumerate(table.c[name].type for name in columns):
            process = kind.dialect_impl(dialect).bind_processor(dialect)
            plain = dialect.name == "sqlite" and isinstance(kind, Boolean)  # its driver takes True for 1
            if process is not None and not plain:
                self._processors.append((place, process, isinstance(kind, UtcDateTime)))

    def rows(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """`rows` as the driver takes them."""
        if self._processors:
            rows = self._processed(rows)
        if self._order is None:
            return [dict(zip(self._columns, row, strict=True)) for row in rows]
        if self._order == list(range(len(self._columns))):
            return list(map(tuple, rows))
        return list(map(itemgetter(*self._order), rows))

    def _processed(self, rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        # The few seconds of a batch come again and again.
        columns: list[tuple[int, Callable[[Any], Any], dict[Any, Any] | None]] = [
            (place, process, {} if is_time else None) for place, process, is_time in self._processors
        ]
        for row in rows:
            values = list(row)
            for place, process, known in columns:
                value = values[place]
                if known is None:
                    values[place] = process(value)
                elif value in known:
                    values[place] = known[value]
                else:
                    values[place] = known[value] = process(value)
            yield values


@lru_cache(maxsize=64)
def _statement(
    dialect: Dialect, table: Table, columns: tuple[str, ...], key: tuple[str, ...] = (), added: tuple[str, ...] = ()
) -> _Statement:
    if not key:
        return _Statement(dialect, insert(table), columns)
    changed = [name for name in columns if name not in key]
    if dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415  # only the one that is used

        lite = sqlite_insert(table)
        values = _values(table, lite.excluded, changed, added)
        return _Statement(dialect, lite.on_conflict_do_update(index_elements=key, set_=values), columns)
    if dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415  # the same

        post = postgresql_insert(table)
        values = _values(table, post.excluded, changed, added)
        return _Statement(dialect, post.on_conflict_do_update(index_elements=key, set_=values), columns)
    from sqlalchemy.dialects.mysql import insert as mysql_insert  # noqa: PLC0415  # the same

    mysql = mysql_insert(table)
    return _Statement(dialect, mysql.on_duplicate_key_update(_values(table, mysql.inserted, changed, added)), columns)


def _values(table: Table, new: Any, columns: Sequence[str], added: Sequence[str]) -> dict[str, ColumnElement[Any]]:
    return {name: table.c[name] + new[name] if name in added else new[name] for name in columns}


def _execute(connection: Connection, statement: _Statement, rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    done = statement.rows(rows)
    several = statement.several
    if several is None:
        connection.exec_driver_sql(statement.text, done)
        return
    # On a table with triggers SQLite notes, for each statement, what it would take to undo it: for each row of a long
    # `executemany` that costs three times the row itself.
    whole = len(done) // several.rows * several.rows
    for start in range(0, whole, several.rows):
        values = tuple(value for row in done[start : start + several.rows] for value in row)
        connection.exec_driver_sql(several.text, values)
    if done[whole:]:
        connection.exec_driver_sql(statement.text, done[whole:])
