"""The schema: the same on every database, made and checked by the migrations alone."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from mcban.core.ladder import SHIPPED, generate
from mcban.errors import ConfigError, DatabaseError, McbanError, NoPermissionError, RefusedError
from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.database import Database
from mcban.store.original import Heritage, Standing, standing, take_over
from tests import original
from tests.mariadb import Server, private_server, sql

INSERT = (
    "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath, "
    "max_count) VALUES (1, 'my-jail', 3, 600, 3600, '8080,8443', 'my-filter', 'mc-custom', '/var/log/my.log', 0);"
)
"""The statement that the original's documentation gives for a custom jail."""


@pytest.fixture
def database(empty_database: str) -> Iterator[Database]:
    """An empty database of each kind."""
    made = Database(empty_database)
    yield made
    made.dispose()


def alembic() -> Config:
    """Alembic's configuration on an open connection, as a developer's would be."""
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    return config


def tables(database: Database) -> set[str]:
    """The tables that there are."""
    return set(inspect(database.engine).get_table_names())


def test_the_mappings_and_the_migrations_agree(database: Database) -> None:
    """`alembic check` finds nothing to add to an upgraded database."""
    schema.upgrade(database)
    config = alembic()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.check(config)


def test_an_empty_database_is_brought_up_and_a_second_time_left_alone(database: Database) -> None:
    """`db upgrade` says from where to where; twice in a row works."""
    assert schema.current(database) is None
    assert schema.upgrade(database) == (None, schema.HEAD)
    assert schema.upgrade(database) == (schema.HEAD, schema.HEAD)
    schema.require(database)


def _upgrade(url: str) -> None:
    schema.upgrade(Database(url))


def test_several_may_upgrade_at_once(empty_database: str) -> None:
    """Nodes that were started together: one does it, the others find it done."""
    spawn = multiprocessing.get_context("spawn")
    nodes = [spawn.Process(target=_upgrade, args=(empty_database,)) for _ in range(3)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    assert [node.exitcode for node in nodes] == [0, 0, 0]
    database = Database(empty_database)
    assert len(database.read(lambda t: t.jails.all())) == 15
    database.dispose()


def test_the_version_that_is_asked_for_is_that_of_the_newest_migration() -> None:
    """HEAD is kept beside the code, since Alembic is slow to import."""
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_the_shipped_jails_are_the_generated_ladders(database: Database) -> None:
    """Twelve tiers and three blacklists, with the numbers that the ladder gives."""
    schema.upgrade(database)
    rows = {row.name: row for row in database.read(lambda t: t.jails.all())}
    assert len(rows) == 15
    for group in SHIPPED:
        for step in generate(group.hits):
            row = rows.pop(f"{group.name}-{step.suffix}")
            assert (row.maxretry, row.findtime, row.bantime) == (step.maxretry, step.findtime, step.bantime)
            assert (row.port, row.filter, row.logpath) == (group.port, group.filter, group.logpath)
            assert (row.enabled, row.max_count, row.banaction, row.escalate) == (True, 3, "mc-custom", False)
        black = rows.pop(f"{group.name}-bl")
        assert (black.enabled, black.bantime, black.port) == (True, -1, group.port)
    assert rows == {}


def test_a_downgrade_leaves_nothing(database: Database) -> None:
    """Down to the base and up again."""
    schema.upgrade(database)
    config = alembic()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert tables(database) <= {"alembic_version"}
    assert schema.upgrade(database) == (None, schema.HEAD)


def test_a_schema_that_is_missing_behind_or_ahead_is_told_with_what_to_do(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 78, and one line that names the command."""
    assert ConfigError.exit_status == 78
    with pytest.raises(ConfigError, match="no schema yet: run `mcban db upgrade`"):
        schema.require(database)
    schema.upgrade(database)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "HEAD", "0002")
        with pytest.raises(ConfigError, match=r"is behind \(0001, this mcban needs 0002\): run `mcban db upgrade`"):
            schema.require(database)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
        connection.execute(text("UPDATE mcban_turn SET oldest_schema = '0999'"))
    for ask in (schema.require, schema.upgrade):
        with pytest.raises(ConfigError, match=r"is ahead \(0999"):
            ask(database)


def test_tables_that_are_not_there_are_no_traceback(database: Database) -> None:
    """A database without the schema, used all the same."""
    with pytest.raises(ConfigError, match="run `mcban db upgrade`"):
        database.read(lambda t: t.jails.all())
    schema.upgrade(database)
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE fail2ban_ips DROP COLUMN reason"))
    with pytest.raises(ConfigError, match="run `mcban db upgrade`"):
        database.read(lambda t: t.addresses.allowing())


def test_what_a_backup_left_out_is_named(database: Database) -> None:
    """The version alone proves nothing: an upgrade that has nothing to do says which tables and columns are lacking."""
    schema.upgrade(database)
    schema.verify(database)
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE fail2ban_ips DROP COLUMN reason"))
        connection.execute(text("DROP TABLE mcban_node"))
    for ask in (schema.verify, schema.upgrade):
        with pytest.raises(ConfigError, match=r"0001, but lacks .*: put that back from a backup") as caught:
            ask(database)
        assert "fail2ban_ips.reason" in str(caught.value) and "mcban_node" in str(caught.value)


def test_a_database_of_the_original_is_refused_and_left_as_it_is(database: Database) -> None:
    """Its tables have no unique key and may hold duplicates: nothing of it is touched."""
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE fail2ban_ips (id INTEGER PRIMARY KEY, ip VARCHAR(150))"))
        connection.execute(text("INSERT INTO fail2ban_ips VALUES (1, '192.0.2.1')"))
    with pytest.raises(ConfigError, match="mcban db adopt"):
        schema.upgrade(database)
    assert tables(database) == {"fail2ban_ips"}
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM fail2ban_ips")).all() == [(1, "192.0.2.1")]


def test_the_originals_insert_works_as_it_stands(request: pytest.FixtureRequest, any_database: str) -> None:
    """Typed into the mariadb client, into psql, and into sqlite3."""
    if any_database.startswith("sqlite"):
        file = any_database.removeprefix("sqlite:///")
        if shutil.which("sqlite3"):
            subprocess.run(["sqlite3", file], input=INSERT, text=True, check=True)
        else:
            with sqlite3.connect(file) as connection:
                connection.execute(INSERT)
    else:
        server = request.getfixturevalue("mariadb" if any_database.startswith("mysql") else "postgresql")
        server.sql(any_database, INSERT)
    database = Database(any_database)
    (row,) = database.read(lambda t: [row for row in t.jails.all() if row.name == "my-jail"])
    database.dispose()
    assert (row.enabled, row.maxretry, row.findtime, row.bantime, row.max_count) == (True, 3, 600, 3600, 0)
    assert (row.port, row.filter, row.logpath) == ("8080,8443", "my-filter", "/var/log/my.log")


@pytest.mark.parametrize(
    ("url", "error", "status"),
    [
        ("mysql+pymysql://u:secret@127.0.0.1:9/x", DatabaseError, 69),
        ("mysql+pymysql://u:secret@localhost/x?unix_socket=/nowhere/s", DatabaseError, 69),
        ("sqlite:////nowhere/mcban.sqlite", DatabaseError, 69),
        ("postgresql://u:secret@127.0.0.1:9/x", DatabaseError, 69),
        ("postgresql+psycopg://u:secret@/x?host=/nowhere", DatabaseError, 69),
        ("oracle://u:secret@h/x", ConfigError, 78),
        ("postgresql+psycopg2://u:secret@h/x", ConfigError, 78),
        ("mysql://u:half@secret@h/x", ConfigError, 78),
        ("mysql+pymysql://u@127.0.0.1:9/x?password=secret", DatabaseError, 69),
        ("mysql+pymysql://u:secret@127.0.0.1:9/x?no_such_option=1", ConfigError, 78),
        ("mysql+pymysql://u:secret@127.0.0.1:9/x?ssl_ca=/nowhere/ca.pem", ConfigError, 78),
        ("mysql+nosuch://u:secret@h/x", ConfigError, 78),
        ("u:secret@h/x", ConfigError, 78),
        ("mysql://u:secret@h:port/x", ConfigError, 78),
        ("sqlite://", ConfigError, 78),
        ("sqlite:///:memory:", ConfigError, 78),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(
    url: str, error: type[McbanError], status: int
) -> None:
    """69 for one that does not answer, 78 for a URL that is none."""
    with pytest.raises(error) as caught:
        schema.require(Database(url))
    assert caught.value.exit_status == status
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_password_is_told_as_such(mariadb: Server) -> None:
    """And not shown."""
    sql(mariadb.socket, "CREATE USER IF NOT EXISTS careful@localhost IDENTIFIED BY 'right'")
    url = f"mysql+pymysql://careful:secret@localhost/x?unix_socket={mariadb.socket}"
    with pytest.raises(DatabaseError, match="check user, password and grants") as caught:
        schema.require(Database(url))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Text where SQLite's file should be."""
    (tmp_path / "mcban.sqlite").write_text("no database at all, " * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        schema.require(Database(f"sqlite:///{tmp_path / 'mcban.sqlite'}"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, mariadb: Server) -> Iterator[Path]:
    """A server that keeps a binary log, as one does that others replicate from."""
    with private_server(tmp_path_factory.mktemp("b"), "--log-bin=binlog", "--server-id=1") as socket:
        sql(socket, "CREATE USER plain@localhost; CREATE DATABASE kept; GRANT ALL ON kept.* TO plain@localhost")
        yield socket


def test_where_only_an_administrator_may_make_triggers_nothing_is_left_half_made(logged: Path) -> None:
    """A binary log and a user without SUPER: exit status 77 with what to do; done so, it works."""
    database = Database(f"mysql+pymysql://plain@localhost/kept?unix_socket={logged}")
    with pytest.raises(NoPermissionError, match="log_bin_trust_function_creators=1"):
        schema.upgrade(database)
    assert tables(database) == set()
    sql(logged, "SET GLOBAL log_bin_trust_function_creators=1")
    assert schema.upgrade(database) == (None, schema.HEAD)
    database.dispose()


def test_a_user_who_may_not_make_tables_is_told(logged: Path) -> None:
    """Grants are wrong: nothing is made."""
    sql(logged, "CREATE DATABASE poor; CREATE USER poor@localhost; GRANT SELECT ON poor.* TO poor@localhost")
    database = Database(f"mysql+pymysql://poor@localhost/poor?unix_socket={logged}")
    with pytest.raises(DatabaseError, match="grants"):
        schema.upgrade(database)
    assert tables(database) == set()
    database.dispose()


def test_where_a_database_cannot_be_adopted_its_tables_keep_their_names(logged: Path) -> None:
    """A binary log and a plain user: told what to do, and the original goes on working; a replica is refused."""
    sql(logged, "SET GLOBAL log_bin_trust_function_creators=0; CREATE DATABASE mc_config")
    sql(logged, "GRANT ALL ON mc_config.* TO plain@localhost")
    url = f"mysql+pymysql://plain@localhost/mc_config?unix_socket={logged}"
    original.make(url)
    database = Database(url)
    with pytest.raises(NoPermissionError, match="log_bin_trust_function_creators=1"):
        take_over(database, lambda _: Heritage())
    assert tables(database) == {"fail2ban_jail", "fail2ban_ips", "fail2ban_conf"}
    sql(logged, "SET GLOBAL read_only=1")
    with pytest.raises(RefusedError, match="adopt on its master"):
        take_over(database, lambda _: Heritage())
    sql(logged, "SET GLOBAL read_only=0; SET GLOBAL log_bin_trust_function_creators=1")
    take_over(database, lambda _: Heritage())
    assert standing(database) is Standing.ADOPTED
    database.dispose()
