"""The schema's version: what the database has, what this version of mcban needs, and the way from one to the other."""

from __future__ import annotations

from sqlalchemy import MetaData, Table, inspect, select

from mcban.errors import ConfigError, McbanError
from mcban.shipped import shipped
from mcban.store.database import Database

HEAD = "0001"
"""The newest migration. Kept here too, since Alembic takes a third of a second to import; a test holds them equal."""


def current(database: Database) -> str | None:
    """The version of the database's schema, None when it has none yet. Raises DatabaseError."""
    with database.translating(), database.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        table = Table("alembic_version", MetaData(), autoload_with=connection)
        return connection.execute(select(table.c.version_num)).scalar()


def require(database: Database) -> None:
    """Raises ConfigError unless the schema is the one that this version needs."""
    found = current(database)
    if found is None:
        raise ConfigError(f"{database.shown_url} has no schema yet: run `mcban db upgrade`")
    if found != HEAD:
        if found in _known():
            raise ConfigError(
                f"the schema of {database.shown_url} is behind ({found}, this mcban needs {HEAD}): "
                "run `mcban db upgrade`"
            )
        raise ConfigError(
            f"the schema of {database.shown_url} is ahead ({found}, this mcban knows {HEAD}): "
            "install the mcban that made it, or a newer one"
        )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema up; returns the versions before and after. Raises ConfigError when it is ahead."""
    from alembic import command  # noqa: PLC0415  # imported where needed: it takes a third of a second
    from alembic.config import Config  # noqa: PLC0415

    before = current(database)
    if before == HEAD:
        return before, before
    if before is not None and before not in _known():
        require(database)
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    write = database.engine.execution_options(mcban_write=True)
    try:
        with database.translating(), write.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except McbanError:
        if before is None:
            _forget_version(database)
        raise
    return before, HEAD


def _forget_version(database: Database) -> None:
    """A server keeps the table that Alembic made before a migration which then was refused."""
    with database.translating(), database.engine.begin() as connection:
        if inspect(connection).has_table("alembic_version"):
            table = Table("alembic_version", MetaData(), autoload_with=connection)
            if connection.execute(select(table.c.version_num)).first() is None:
                table.drop(connection)


def _known() -> set[str]:
    return {path.name.split("_")[0] for path in (shipped("migrations") / "versions").glob("[0-9]*.py")}
