"""The schema's version: what the database has, what this version of mcban needs, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, MetaData, Table, inspect, select

from mcban.errors import ConfigError, McbanError
from mcban.shipped import shipped
from mcban.store.database import Database
from mcban.store.tables import METADATA, TURN

HEAD = "0001"
"""The newest migration. Kept here too, since Alembic takes a third of a second to import; a test holds them equal."""


def current(database: Database) -> str | None:
    """The version of the database's schema, None when it has none yet. Raises DatabaseError."""

    def ask() -> str | None:
        with database.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            table = Table("alembic_version", MetaData(), autoload_with=connection)
            return connection.execute(select(table.c.version_num)).scalar()

    return database.attempt(ask)


def require(database: Database) -> str:
    """The version of the database's schema, on which this mcban may work: the one that it needs, or a newer one that
    lets it. Raises ConfigError when there is none, or another."""
    found = current(database)
    if found is None:
        what = "adopt" if _is_original(database) else "upgrade"
        raise ConfigError(f"{database.shown_url} has no schema yet: run `mcban db {what}`")
    if found == HEAD or (found > HEAD and _lets_us(database)):
        return found
    if found in _known():
        raise ConfigError(
            f"the schema of {database.shown_url} is behind ({found}, this mcban needs {HEAD}): run `mcban db upgrade`"
        )
    raise ConfigError(
        f"the schema of {database.shown_url} is ahead ({found}, this mcban knows {HEAD}): "
        "install the mcban that made it, or a newer one"
    )


def _lets_us(database: Database) -> bool:
    """Whether a newer schema says of itself that who knows ours may work on it."""

    def ask() -> str:
        with database.engine.connect() as connection:
            return connection.execute(select(TURN.c.oldest_schema)).scalar() or ""

    try:
        return "" < database.attempt(ask) <= HEAD
    except ConfigError:
        return False  # it does not even say so


def verify(database: Database) -> None:
    """Look whether tables and columns are there that a database of this version has: a backup may hold some of them
    only. Raises ConfigError where they are not."""

    def ask() -> list[str]:
        with database.engine.connect() as connection:
            there, lacking = inspect(connection), []
            names = set(there.get_table_names())
            for table in METADATA.sorted_tables:
                if table.name in names:
                    held = {column["name"] for column in there.get_columns(table.name)}
                    lacking += [f"{table.name}.{column.name}" for column in table.columns if column.name not in held]
                else:
                    lacking.append(table.name)
            return lacking

    if lacking := database.attempt(ask):
        raise ConfigError(
            f"{database.shown_url} is of version {HEAD}, but lacks {', '.join(lacking)}: put that back from a backup, "
            "or give mcban a new database"
        )


def upgrade(
    database: Database,
    before: Callable[[Connection], None] | None = None,
    after: Callable[[Connection], None] | None = None,
) -> tuple[str | None, str]:
    """Bring the schema up; returns the versions before and after, the same for a newer one that lets this mcban work
    on it. Raises ConfigError when it is ahead and does not, and as `verify` does when there was nothing to do.

    `before` and `after` work on the same connection, around the migrations: what `after` writes is committed together
    with the new version.
    """
    if (found := current(database)) == HEAD:
        verify(database)
        return found, found
    with _alone(database):
        return _upgrade(database, before, after)


def _upgrade(
    database: Database,
    before: Callable[[Connection], None] | None,
    after: Callable[[Connection], None] | None,
) -> tuple[str | None, str]:
    from alembic import command  # noqa: PLC0415  # imported where needed: it takes a third of a second
    from alembic.config import Config  # noqa: PLC0415

    found = current(database)
    if found == HEAD:
        return found, found
    if found is not None and found not in _known():
        return found, require(database)
    if found is None and before is None and _is_original(database):
        raise ConfigError(
            f"{database.shown_url} holds tables of the original: `mcban db adopt` takes them over; or give mcban a "
            "database of its own"
        )
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    write = database.engine.execution_options(mcban_write=True)
    try:
        with database.translating(), write.begin() as connection:
            if before is not None:
                before(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if after is not None:
                after(connection)
    except McbanError:
        if found is None:
            _forget_version(database)
        raise
    return found, HEAD


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """One upgrade at a time: on MariaDB half of one can be seen, and its tables would be made twice. SQLite's write
    lock is enough. On a Galera cluster this holds for one node: upgrade by way of one. Raises as a question does."""
    locks = {
        "mysql": f"SELECT GET_LOCK(CONCAT('mcban upgrade ', MD5(DATABASE())), {_OTHERS_WAIT})",
        "postgresql": "SELECT pg_advisory_xact_lock(hashtext('mcban upgrade'))",
    }
    lock = locks.get(database.engine.dialect.name)
    if lock is None:
        yield
        return
    with ExitStack() as held:
        with database.translating():
            connection = held.enter_context(database.engine.connect())
            connection.exec_driver_sql(lock)
        held.callback(connection.invalidate)  # the lock ends with the connection
        yield


_OTHERS_WAIT = 15
"""Seconds that an upgrade waits for one that runs."""


def _is_original(database: Database) -> bool:
    """Whether it holds the original's tables, under their names or those that an adoption cut off gave them."""
    with database.translating(), database.engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    if any(name.startswith("mcban_adopting_") for name in tables):
        return True
    # Beside tables of ours they are ours too, with or without a version.
    return "mcban_turn" not in tables and any(name.startswith("fail2ban_") for name in tables)


def _forget_version(database: Database) -> None:
    """A server keeps the table that Alembic made before a migration which then was refused."""
    with database.translating(), database.engine.begin() as connection:
        if inspect(connection).has_table("alembic_version"):
            table = Table("alembic_version", MetaData(), autoload_with=connection)
            if connection.execute(select(table.c.version_num)).first() is None:
                table.drop(connection)


def _known() -> set[str]:
    return {path.name.split("_")[0] for path in (shipped("migrations") / "versions").glob("[0-9]*.py")}
