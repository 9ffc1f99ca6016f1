"""The database after its adoption: like a new one, on every engine; adopted once, and only one of the original."""

from __future__ import annotations

import re
from typing import Any

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import inspect, text

from mcban.errors import ConfigError, DataError
from mcban.service.adoption import adopt
from mcban.service.report import bans_in_force
from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.database import Database
from mcban.store.original import Standing, standing
from mcban.store.tables import METADATA
from tests import original
from tests.conftest import NOON
from tests.mariadb import Server
from tests.service.adoption.desk import DAY, IP, RECENT, Make, raw


def shape(url: str) -> dict[str, Any]:
    """The schema in the database's own words."""
    database = Database(url)
    with database.engine.connect() as connection:
        if database.sqlite_file is not None:
            made = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master"))
            shown = {f"{row.type} {row.name}": row.sql for row in made if row.tbl_name in METADATA.tables}
        else:
            words = {t: connection.execute(text(f"SHOW CREATE TABLE {t}")).one()[1] for t in METADATA.tables}
            shown = {table: re.sub(r" AUTO_INCREMENT=\d+", "", made) for table, made in words.items()}
            triggers = connection.execute(text("SHOW TRIGGERS")).mappings()
            shown |= {trigger["Trigger"]: (trigger["Table"], trigger["Statement"]) for trigger in triggers}
    database.dispose()
    return shown


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_the_schema_is_that_of_a_new_database(request: pytest.FixtureRequest, make: Make, kind: str) -> None:
    """Columns, keys, indexes, charsets, triggers; `db upgrade` has nothing to do, `alembic check` nothing to add, and
    other tables of the original's database stay."""
    old, fresh = request.getfixturevalue(f"empty_{kind}"), request.getfixturevalue(f"{kind}_url")
    if kind == "sqlite":
        old = old.replace("mcban.sqlite", "old.sqlite")  # both would be in the same file
    original.make(old)
    database = Database(old)
    original.execute(database, "CREATE TABLE domain (id INT)")
    context = make(old)
    adopt(context)
    assert shape(old) == shape(fresh)
    assert schema.upgrade(database) == (schema.HEAD, schema.HEAD)
    config = AlembicConfig()
    config.set_main_option("script_location", str(shipped("migrations")))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.check(config)
        assert "domain" in inspect(connection).get_table_names()
    database.dispose()


def test_a_second_time_it_is_so_already(make: Make, old: str) -> None:
    """And nothing is written."""
    original.add(old, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    context = make(old)
    adopt(context)
    before = raw(old, "fail2ban_ips")
    adopted = adopt(context)
    assert "is mcban's already" in adopted.done[0]
    assert (len(adopted.done), adopted.to_mend) == (1, ())
    assert raw(old, "fail2ban_ips") == before


def test_a_check_changes_nothing_and_says_the_same(make: Make, old: str) -> None:
    """Every line of the real thing, and that nothing was done."""
    original.add(old, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT), (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    context = make(old)
    before = raw(old, "fail2ban_ips")
    checked = adopt(context, check=True)
    assert standing(context.database) is Standing.ORIGINAL
    assert raw(old, "fail2ban_ips") == before
    adopted = adopt(context)
    assert checked.done == (*adopted.done, "nothing was changed")
    assert checked.to_mend == adopted.to_mend


def test_commands_point_to_it(make: Make, old: str) -> None:
    """`db upgrade` and everything else say what to do, and change nothing."""
    database = make(old).database
    for ask in (schema.require, schema.upgrade):
        with pytest.raises(ConfigError, match="mcban db adopt"):
            ask(database)
    assert standing(database) is Standing.ORIGINAL


def test_what_is_no_database_of_the_original(make: Make, empty_database: str) -> None:
    """An empty one, and one whose tables lack what is needed: told, and left as it is."""
    context = make(empty_database)
    with pytest.raises(ConfigError, match=r"holds none of fail2ban_jail, fail2ban_ips|does not exist"):
        adopt(context)
    original.execute(context.database, "CREATE TABLE fail2ban_ips (id INTEGER PRIMARY KEY, address VARCHAR(150))")
    with pytest.raises(DataError, match="has no column ip, jail: it is no table of the original"):
        adopt(context)
    assert set(inspect(context.database.engine).get_table_names()) == {"fail2ban_ips"}


@pytest.mark.parametrize("options", ["ENGINE=MyISAM DEFAULT CHARSET=latin1", "DEFAULT CHARSET=utf8 COLLATE=utf8_bin"])
def test_engines_and_charsets_of_the_original(make: Make, empty_mariadb: str, mariadb: Server, options: str) -> None:
    """MyISAM, which knows no transactions, latin1, utf8; `0000-00-00` is no time."""
    original.make(empty_mariadb, options)
    original.add(empty_mariadb, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT), ("192.0.2.1", "mc-exim-1d", 1, 1, 0, 0, RECENT))
    mariadb.sql(
        empty_mariadb, "SET sql_mode=''; UPDATE fail2ban_ips SET last_hit = '0000-00-00' WHERE ip = '192.0.2.1'"
    )
    context = make(empty_mariadb)
    adopt(context)
    assert {ban.ip: ban.until for ban in bans_in_force(context, None)} == {
        IP: NOON - 3600 + DAY,
        "192.0.2.1": NOON + DAY,
    }
    assert raw(empty_mariadb, "fail2ban_conf")[0]["src_name"] == "Müller"
