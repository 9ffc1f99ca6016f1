"""The database of the original: its three tables as they were found, and the way from them to ours.

They have no unique keys, and so may hold what ours cannot. Hence they are not altered: they are put aside under names
of ours (`mcban_adopting_…`, at the end `mcban_adopted_…`), the schema is made as for a new database, and what they hold
is written into it. Nothing of the original is lost thereby.

MariaDB commits whenever a table is made or renamed. The steps are such that each can be done again: until the schema's
version is committed, which happens together with all that was copied, whatever was made is dropped and made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Connection, column, delete, insert, inspect, select, table
from sqlalchemy.exc import DBAPIError

from mcban.errors import ConfigError, DataError, McbanError, RefusedError, printable
from mcban.store import schema
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database, Transaction
from mcban.store.events import Event
from mcban.store.tables import CONF, JAILS, METADATA

PARTS = ("jail", "ips", "conf")
JAIL_COLUMNS = (
    "id",
    "enabled",
    "name",
    "maxretry",
    "findtime",
    "bantime",
    "port",
    "filter",
    "banaction",
    "logpath",
    "max_count",
    "send_mail",
    "send_mail_bl",
)
IP_COLUMNS = ("id", "ip", "count", "active", "blacklisted", "whitelisted", "jail", "last_hit", "host")
CONF_COLUMNS = ("id", "src_email", "src_name", "dest_email", "chain")
_COLUMNS = {"jail": JAIL_COLUMNS, "ips": IP_COLUMNS, "conf": CONF_COLUMNS}
_NEEDED = {"jail": {"name"}, "ips": {"ip", "jail"}, "conf": set[str]()}
BLOCK = 10_000
"""Rows that are written at once."""
_END_WAIT = 10.0
"""Seconds that a session which was told to end may take for that."""


class Standing(Enum):
    """How far a database is on the way from the original's to ours."""

    NOTHING = "no tables of the original"
    ORIGINAL = "the original's tables"
    HALFWAY = "put aside, not copied"
    COPIED = "copied, not renamed"
    ADOPTED = "adopted"
    OURS = "made by mcban"


@dataclass(frozen=True, slots=True)
class Original:
    """What the three tables hold, as it stands there: rows in the order of their numbers, values in the order of
    `…_COLUMNS`, None for a column that there is not. `unknown` are columns that are none of the original's."""

    jails: list[tuple[Any, ...]] = field(default_factory=list)
    ips: list[tuple[Any, ...]] = field(default_factory=list)
    conf: list[tuple[Any, ...]] = field(default_factory=list)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Heritage:
    """What is to be written of it. `jails` and `conf` are column to value."""

    jails: list[dict[str, Any]] = field(default_factory=list)
    records: list[AddressRecord] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    conf: list[dict[str, Any]] = field(default_factory=list)


def standing(database: Database) -> Standing:
    """How far the database is. Raises DatabaseError."""
    with database.translating(), database.engine.connect() as connection:
        return _standing(connection, schema.current(database))


def _standing(connection: Connection, version: str | None) -> Standing:
    tables = _tables(connection)
    if tables & set(_names("adopting").values()):
        return Standing.HALFWAY if version is None else Standing.COPIED
    if version is not None:
        return Standing.ADOPTED if tables & set(_names("adopted").values()) else Standing.OURS
    return Standing.ORIGINAL if tables & set(_originals().values()) else Standing.NOTHING


def look(database: Database) -> Original:
    """What the original's tables hold, wherever they stand by now; changes nothing. Raises DataError for tables that
    are not the original's, ConfigError where there are none."""
    with database.translating(), database.engine.connect() as connection, connection.begin():
        for names in (_names("adopting"), _originals()):
            if set(names.values()) & _tables(connection):
                return _read(connection, names)
    raise ConfigError(f"{database.shown_url} holds none of {', '.join(_originals().values())}: is it the right one?")


def take_over(database: Database, inherit: Callable[[Original], Heritage]) -> None:
    """Adopt the database in place: put its tables aside, make the schema, write what `inherit` makes of their rows.

    Interrupted anywhere it can be done again; when it fails, the tables get their names back. Raises DataError,
    DatabaseError, NoPermissionError, RefusedError.
    """
    with database.translating(), _alone(database):
        _refuse_if_made(database, schema.current(database))
        _check(database)

        session: list[int] = []

        def put_aside(connection: Connection) -> None:
            session.extend(_session(connection))
            if "alembic_version" in _tables(connection):  # an embedded database's lock is had only now
                made = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
                _refuse_if_made(database, made)
            if _tables(connection) & set(_names("adopting").values()):
                _drop_ours(connection)
            else:
                _rename(connection, _originals(), _names("adopting"))

        def fill(connection: Connection) -> None:
            write(Transaction(connection), inherit(_read(connection, _names("adopting"))), all_jails=True)
            # A server commits here, before it renames: all that was written, and the schema's version with it.
            _rename(connection, _names("adopting"), _names("adopted"))

        try:
            schema.upgrade(database, before=put_aside, after=fill)
        except BaseException as error:
            if _is_put_back(database, session):
                raise
            kind = type(error) if isinstance(error, McbanError) else McbanError
            raise kind(
                f"{str(error) or f'{database.shown_url}: stopped half-way'}; the tables of the original may be named "
                "mcban_adopting_… now: run `mcban db adopt` again, which goes on from there"
            ) from error


def finish(database: Database) -> None:
    """Do what an adoption left undone that ended after everything was copied."""
    with database.translating(), _alone(database), database.engine.begin() as connection:
        _rename(connection, _names("adopting"), _names("adopted"))


def write(transaction: Transaction, heritage: Heritage, *, all_jails: bool) -> None:
    """Write the rows; with `all_jails` the jails that there are make way for them, and so do the settings."""
    connection = transaction.connection
    if all_jails:
        connection.execute(delete(JAILS))
        connection.execute(delete(CONF))
    for target, rows in ((JAILS, heritage.jails), (CONF, heritage.conf)):
        for row in rows:
            connection.execute(insert(target), row)
    for start in range(0, len(heritage.records), BLOCK):
        transaction.addresses.save(heritage.records[start : start + BLOCK])
    for start in range(0, len(heritage.events), BLOCK):
        transaction.events.add(heritage.events[start : start + BLOCK])


def _names(word: str) -> dict[str, str]:
    return {part: f"mcban_{word}_{part}" for part in PARTS}


def _originals() -> dict[str, str]:
    return {part: f"fail2ban_{part}" for part in PARTS}


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def _refuse_if_made(database: Database, version: str | None) -> None:
    """Where two come at once, the tables that the first made are not the original's."""
    if version is not None:
        raise RefusedError(f"{database.shown_url} has been adopted in the meantime, by somebody else")


def _check(database: Database) -> None:
    """What would stop it is found out before its first step."""
    with database.engine.connect() as connection:
        tables = _tables(connection)
        left = tables & set(_names("adopted").values())
        if left:
            raise RefusedError(
                f"{database.shown_url} still holds {', '.join(sorted(left))} of an adoption: rename or drop them"
            )
        if database.engine.dialect.name == "mysql" and connection.exec_driver_sql("SELECT @@read_only").scalar():
            raise RefusedError(f"{database.shown_url} is read-only, as a replica is: adopt on its master")
        names = _names("adopting") if tables & set(_names("adopting").values()) else _originals()
        for part, name in names.items():
            if name in tables:
                _check_columns(connection, part, name)


def _check_columns(connection: Connection, part: str, name: str) -> dict[str, str]:
    """The columns that there are, by the name that we know them by."""
    found = {str(c["name"]).lower(): str(c["name"]) for c in inspect(connection).get_columns(name)}
    lacking = _NEEDED[part] - found.keys()
    if lacking:
        raise DataError(f"{name} has no column {', '.join(sorted(lacking))}: it is no table of the original")
    return found


def _read(connection: Connection, names: dict[str, str]) -> Original:
    tables, unknown = _tables(connection), []
    rows: dict[str, list[tuple[Any, ...]]] = {part: [] for part in PARTS}
    for part, name in names.items():
        if name not in tables:
            continue
        found = _check_columns(connection, part, name)
        unknown += [f"fail2ban_{part}.{printable(real)}" for low, real in found.items() if low not in _COLUMNS[part]]
        wanted = [c for c in _COLUMNS[part] if c in found]
        source = table(name, *(column(found[c]) for c in wanted))
        query = select(*(source.c[found[c]] for c in wanted))
        if "id" in found:
            query = query.order_by(source.c[found["id"]])
        places = [wanted.index(c) if c in found else None for c in _COLUMNS[part]]
        rows[part] = [tuple(None if at is None else row[at] for at in places) for row in connection.execute(query)]
    return Original(rows["jail"], rows["ips"], rows["conf"], tuple(unknown))


def _rename(connection: Connection, of: dict[str, str], to: dict[str, str]) -> None:
    """All at once, or none."""
    tables = _tables(connection)
    pairs = [(of[part], to[part]) for part in PARTS if of[part] in tables]
    quote = connection.dialect.identifier_preparer.quote
    if connection.dialect.name == "mysql":
        some = ", ".join(f"{quote(old)} TO {quote(new)}" for old, new in pairs)
        connection.exec_driver_sql(f"RENAME TABLE {some}")
        return
    for old, new in pairs:
        connection.exec_driver_sql(f"ALTER TABLE {quote(old)} RENAME TO {quote(new)}")


def _drop_ours(connection: Connection, *, keep: Collection[str] = ()) -> None:
    """Take away what an adoption made that never came to its end; its triggers go with the tables."""
    tables = _tables(connection)
    quote = connection.dialect.identifier_preparer.quote
    for name in (*(t.name for t in METADATA.sorted_tables), "mcban_probe", "alembic_version"):
        if name in tables and name not in keep:
            connection.exec_driver_sql(f"DROP TABLE {quote(name)}")


def _session(connection: Connection) -> list[int]:
    """The number of a server's session, where what it does may outlive the connection."""
    if connection.dialect.name != "mysql":
        return []
    return [connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()]


def _is_put_back(database: Database, sessions: Collection[int]) -> bool:
    """Give the tables of an adoption that failed in `sessions` their names back; whether they have them, or never had
    others."""
    try:
        with database.translating(), database.engine.begin() as connection:
            for number in sessions:
                _end(connection, number)
            now = _standing(connection, schema.current(database))
            if now is Standing.HALFWAY:
                _drop_ours(connection)
                _rename(connection, _names("adopting"), _originals())
    except (McbanError, KeyboardInterrupt):
        return not sessions
    return now is not Standing.COPIED


def _end(connection: Connection, number: int) -> None:
    """End a session and see the end of it: a server goes on with what it was told, such as a renaming that waits for a
    reader, though whoever told it was interrupted and has gone."""
    if _session(connection) == [number]:
        return
    with suppress(DBAPIError):  # it has ended
        connection.exec_driver_sql(f"KILL {number}")
    end = time.monotonic() + _END_WAIT
    there = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s"
    while connection.exec_driver_sql(there, (number,)).scalar() and time.monotonic() < end:
        time.sleep(0.02)


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Two adoptions of one database at once would take each other's tables away. An embedded database has a lock of
    its own."""
    if database.engine.dialect.name != "mysql":
        yield
        return
    with database.engine.connect() as connection:
        lock = "CONCAT('mcban adopt ', MD5(DATABASE()))"  # MySQL takes 64 characters
        if not connection.exec_driver_sql(f"SELECT GET_LOCK({lock}, 0)").scalar():
            raise RefusedError(f"{database.shown_url} is being adopted already: wait for that to end")
        try:
            yield
        finally:
            with suppress(DBAPIError):  # where the connection has ended, so has the lock
                connection.exec_driver_sql(f"SELECT RELEASE_LOCK({lock})")
