"""A node of this release on a database that a newer one has upgraded."""

from __future__ import annotations

import pytest

from mcban.core.model import Hit, Position
from mcban.errors import ConfigError
from mcban.service import upkeep
from mcban.service.bans import ban, unban
from mcban.service.context import Context
from mcban.service.record import record
from mcban.service.report import show
from mcban.store import schema
from mcban.store.database import Database
from mcban.store.tables import METADATA
from tests.conftest import NOON
from tests.service.desk import IP, dump, execute, fail, in_force


@pytest.fixture
def newer(empty_database: str, context: Context) -> Context:
    """The context on a schema to which each table got a column, and that has a table more."""
    database = Database(empty_database)
    schema.upgrade(database)
    context.database.dispose()
    object.__setattr__(context, "database", database)
    for table in METADATA.sorted_tables:
        execute(context, f"ALTER TABLE {table.name} ADD COLUMN newer VARCHAR(9) NOT NULL DEFAULT 'kept'")
    execute(
        context, "CREATE TABLE mcban_newer (id INTEGER PRIMARY KEY)", "UPDATE alembic_version SET version_num = '0002'"
    )
    return context


def test_what_a_newer_release_added_is_in_nobodys_way(newer: Context) -> None:
    """Hits are counted, bans made, shown, lifted and purged; what the newer one wrote in its columns stays."""
    assert schema.require(newer.database) == "0002"
    assert schema.upgrade(newer.database) == ("0002", "0002")
    position = Position("/var/log/x", 1, 2, 0, "", 7)
    record(newer, [Hit(NOON, IP, "mc-exim")] * 5, [position])
    execute(newer, "UPDATE fail2ban_ips SET newer = 'theirs'", "UPDATE mcban_position SET newer = 'theirs'")
    record(newer, [Hit(NOON, IP, "mc-exim")] * 5, [position])
    assert in_force(newer) == ["mc-exim-1d", "mc-exim-1w"]
    unban(newer, "mc-exim", [IP])
    ban(newer, "mc-exim-1d", [IP], None, force=False, yes=False)
    fail(newer, 3)
    upkeep.Purge().step(newer, upkeep.take_over(newer)[0])
    assert [view.jail for view in show(newer, IP).jails if view.banned] == ["mc-exim-1d"]
    rows = dump(newer)
    assert {row["ip"] for row in rows["mcban_event"]} == {IP}
    with newer.database.engine.connect() as connection:
        for table, jail in (("mcban_position", ""), ("fail2ban_ips", " WHERE jail = 'mc-exim-1d'")):
            found = connection.exec_driver_sql(f"SELECT newer FROM {table}{jail}").scalars().all()
            assert found == ["theirs"]


def test_a_newer_release_may_shut_older_ones_out(newer: Context) -> None:
    """Where its schema says that this one must be known, one clear line says what to do, and nothing is changed."""
    execute(newer, "UPDATE mcban_turn SET oldest_schema = '0002'")
    for ask in (schema.require, schema.upgrade):
        with pytest.raises(
            ConfigError, match=r"is ahead \(0002, this mcban knows 0001\): install the mcban that made it"
        ):
            ask(newer.database)
