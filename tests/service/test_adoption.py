"""A database of the original becomes ours: whole, explained, interrupted anywhere, twice in a row."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, text

from mcban.config import Config
from mcban.core.model import FOREVER
from mcban.errors import ConfigError, DatabaseError, DataError, RefusedError
from mcban.firewall.memory import MemoryFirewall
from mcban.service.adoption import adopt, adopt_from
from mcban.service.context import Context
from mcban.service.heritage import read_entry
from mcban.service.report import bans_in_force
from mcban.service.sync import sync
from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database
from mcban.store.original import Heritage, Original, Standing, standing, take_over
from mcban.store.tables import METADATA
from tests import original
from tests.cli.terminal import MCBAN
from tests.conftest import NOON, Machine, require_mariadb
from tests.mariadb import Server, new_database, private_server
from tests.patience import PATIENCE, until
from tests.service.desk import held, sql_time

DAY = 86_400
IP = "203.0.113.7"
RECENT = sql_time(NOON - 3600)


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a database of the original: on SQLite, since what rows mean is the same everywhere."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    original.make(url)
    return url


@pytest.fixture
def either(empty_database: str) -> str:
    """The same, of each kind."""
    original.make(empty_database)
    return empty_database


@pytest.fixture
def make(machine: Machine, tmp_path: Path) -> Iterator[Callable[[str], Context]]:
    """Makes a context on a URL."""
    made: list[Context] = []

    def on(url: str) -> Context:
        config = Config(tmp_path, (shipped("etc") / "filter.d",), node="here", database_url=url)
        made.append(Context(config, Database(url), MemoryFirewall(), machine.host()))
        return made[-1]

    yield on
    for context in made:
        context.database.dispose()


Make = Callable[[str], Context]


def rows(context: Context, ip: str = IP) -> dict[str, AddressRecord]:
    """What is known of an address, by jail."""
    return {row.jail: row for row in context.database.read(lambda t: t.addresses.get([ip]))}


def raw(url: str, table: str) -> list[dict[str, Any]]:
    """The rows of any table."""
    database = Database(url)
    with database.engine.connect() as connection:
        found = [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
    database.dispose()
    return found


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


def test_a_file_that_is_not_there_is_not_made(make: Make, old: str, tmp_path: Path) -> None:
    """Neither the original's, mistyped, nor, by --check, our own."""
    mine, theirs = tmp_path / "mine.sqlite", tmp_path / "mistyped.sqlite"
    context = make(f"sqlite:///{mine}")
    for check in (True, False):
        with pytest.raises(ConfigError, match=f"{mine} does not exist"):
            adopt(context, check=check)
        with pytest.raises(ConfigError, match=f"{theirs} does not exist"):
            adopt_from(context, f"sqlite:///{theirs}", check=check)
    with pytest.raises(ConfigError, match="--from"):
        adopt_from(context, "nonsense")
    assert "nothing was changed" in adopt_from(context, old, check=True).done
    assert not mine.exists()
    assert not theirs.exists()


def test_the_jails_and_settings_are_taken_over_as_they_are(make: Make, old: str) -> None:
    """Numbers, switches, actions and `max_count` -1; the shipped jails do not come in beside them."""
    context = make(old)
    adopt(context)
    jails = {row.name: row for row in context.database.read(lambda t: t.jails.all())}
    assert list(jails) == [f"mc-exim-{suffix}" for suffix in ("1d", "1w", "1m", "1y", "bl")]
    year = jails["mc-exim-1y"]
    assert (year.maxretry, year.findtime, year.bantime, year.max_count) == (20, 5356800, 20563200, -1)
    assert (year.banaction, year.filter, year.logpath, year.enabled) == (
        "mc-ipset",
        "mc-exim-filter",
        original.LOG,
        True,
    )
    (conf,) = raw(old, "fail2ban_conf")
    assert (conf["src_name"], conf["chain"]) == ("Müller", "INPUT")


def test_a_year_of_238_days_is_said_and_left(make: Make, old: str) -> None:
    """With the command that would change it."""
    to_mend = adopt(make(old)).to_mend
    how = "mcban jail change -j mc-exim-1y --option bantime -v 1y changes it"
    assert [line for line in to_mend if "238d" in line] == [f"mc-exim-1y bans for 238d, not for 1y: left so; {how}"]
    assert len(to_mend) == 1, to_mend


@pytest.mark.parametrize(
    ("given_rows", "expected"),
    [
        # (count, active, blacklisted, whitelisted, last hit) of each row → count, active, until, allowed
        ([(2, 1, 0, 0, NOON - 60)], (2, True, NOON - 60 + DAY, False)),
        ([(2, 1, None, None, NOON - 60)], (2, True, NOON - 60 + DAY, False)),
        ([(None, 1, None, None, NOON - 60)], (1, True, NOON - 60 + DAY, False)),
        ([(2, None, None, None, NOON - 60)], (2, False, None, False)),
        ([(2, 0, 0, 0, NOON - 60)], (2, False, None, False)),
        ([(2, 1, 0, 0, NOON - 9 * DAY)], (2, False, NOON - 8 * DAY, False)),
        ([(2, 1, 0, 0, None)], (2, True, NOON + DAY, False)),
        ([(0, 0, 0, 1, NOON - 60)], (0, False, None, True)),
        ([(4, 1, 0, 1, NOON - 60)], (4, False, None, True)),
        ([(2, 1, 0, 0, NOON - 60), (3, 0, 0, 0, NOON - 90)], (3, True, NOON - 60 + DAY, False)),
        ([(2, 0, 0, 0, NOON - 60), (1, 1, 0, 0, NOON - 90)], (2, True, NOON - 60 + DAY, False)),
        ([(2, 1, 0, 0, NOON - 60), (0, 0, 0, 1, None)], (2, False, None, True)),
        ([(5, 0, 1, 0, NOON - 60)], (5, False, None, False)),
    ],
)
def test_what_rows_mean(
    make: Make, old: str, given_rows: list[tuple[Any, ...]], expected: tuple[int, bool, int | None, bool]
) -> None:
    """One row of an address in a jail, or several that become one."""
    original.add(old, *((IP, "mc-exim-1d", *row[:4], row[4] and sql_time(row[4])) for row in given_rows))
    context = make(old)
    adopt(context)
    if given_rows[0][4] is None:
        # Not every server lets a time be NULL; without one the ban counts from now.
        assert rows(context)["mc-exim-1d"].active
        return
    row = rows(context)["mc-exim-1d"]
    assert (row.count, row.active, row.until, row.whitelisted) == expected
    assert not row.blacklisted
    sync(context)
    assert held(context) == (["mc-exim-1d"] if expected[1] else [])


def test_a_blacklisted_address_goes_to_the_blacklist_of_its_group(make: Make, old: str) -> None:
    """The original marked the row of a tier, and had a blacklist jail for each tier."""
    original.add(
        old,
        (IP, "mc-exim-1d", 4, 1, 1, 0, RECENT),
        (IP, "mc-exim-1w", 5, 1, 1, 0, RECENT),
        ("192.0.2.9", "mc-exim-1d-bl", 1, 1, 0, 0, RECENT),
        ("192.0.2.10", "mc-exim-bl", 1, 1, 1, 0, RECENT),
        ("192.0.2.11", "mc-exim-1d", 4, 1, 1, 1, RECENT),
    )
    context = make(old)
    adopt(context)
    sync(context)
    for ip in (IP, "192.0.2.9", "192.0.2.10"):
        assert held(context, ip) == ["mc-exim-bl"]
        assert rows(context, ip)["mc-exim-bl"].until == FOREVER
    assert held(context, "192.0.2.11") == []
    assert [rows(context)[f"mc-exim-{suffix}"].count for suffix in ("1d", "1w")] == [4, 5]


def test_a_disabled_blacklist_stays_disabled_and_that_is_said(make: Make, old: str) -> None:
    """So that nobody thinks its addresses were kept out."""
    original.execute(Database(old), "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-exim-bl'")
    original.add(old, (IP, "mc-exim-1d", 4, 1, 1, 0, RECENT))
    context = make(old)
    assert [line for line in adopt(context).to_mend if "mcban blacklist enable -j mc-exim" in line]
    sync(context)
    assert held(context) == []


def test_a_custom_jail_that_blacklists_gets_a_blacklist_jail(make: Make, old: str) -> None:
    """Made as mcban makes them, and said."""
    original.execute(Database(old), "UPDATE fail2ban_jail SET name = 'my-jail' WHERE name = 'mc-exim-1y'")
    original.add(old, (IP, "my-jail", 4, 1, 1, 0, RECENT))
    context = make(old)
    assert [line for line in adopt(context).done if line.startswith("my-jail-bl: made")]
    sync(context)
    assert held(context) == ["my-jail-bl"]


def test_what_cannot_be_taken_over_is_named_and_kept(make: Make, old: str) -> None:
    """Names, garbage, ambiguous zeros, everybody, no jail; nothing that a terminal would obey is printed."""
    bad = ["mail.example.com", "\x1b[31mred", "010.2.3.4", "192.0.2.1-192.0.2.9", "0.0.0.0/0", "", "1.2.3.4; touch /x"]
    original.add(old, *((ip, "mc-exim-1d", 1, 1, 0, 0, RECENT) for ip in bad), (IP, None, 1, 1, 0, 0, RECENT))
    original.add(old, (None, "mc-exim-1d", 1, 1, 0, 0, RECENT), ("198.51.100.1", "gone-jail", 1, 1, 0, 0, RECENT))
    adopted = adopt(make(old))
    lines = [line for line in adopted.to_mend if line.startswith("fail2ban_ips")]
    assert len(lines) == 3, lines
    assert lines[0].startswith("fail2ban_ips: 1 ban is in jails that do not exist: kept, not enforced: 198.51.100.1")
    assert lines[1].startswith("fail2ban_ips: 8 rows name no address or network that can be banned")
    assert "'\\x1b[31mred' in mc-exim-1d" in lines[1]
    assert lines[2].startswith("fail2ban_ips: 1 row names no jail")
    assert all(line.isprintable() for line in (*adopted.done, *adopted.to_mend))
    assert len(raw(old, "mcban_adopted_ips")) == len(bad) + 3
    assert len(raw(old, "fail2ban_ips")) == 1


def test_allowed_names_and_networks_are_taken_over(make: Make, old: str) -> None:
    """Everybody, too, since somebody said so; and that is told."""
    for ip in ("mail.example.com", "192.0.2.0/24", "0.0.0.0/0"):
        original.add(old, (ip, "mc-exim-1d", 0, 0, 0, 1, RECENT))
    context = make(old)
    assert [line for line in adopt(context).to_mend if "nobody is banned there" in line]
    assert {row.ip for row in context.database.read(lambda t: t.addresses.allowing())} == {
        "mail.example.com",
        "192.0.2.0/24",
        "0.0.0.0/0",
    }


def test_spellings_of_one_address_become_one_row(make: Make, old: str) -> None:
    """Upper case, mapped, zeros, masks; and jails in another case, which the original took for the same."""
    for spelled in ("2001:DB8:0::1", "2001:db8::1", " 2001:db8::0001 "):
        original.add(old, (spelled, "mc-exim-1d", 1, 1, 0, 0, RECENT))
    for spelled in ("::ffff:203.0.113.7", "203.0.113.007", IP):
        original.add(old, (spelled, "MC-Exim-1d", 1, 1, 0, 0, RECENT))
    original.add(old, ("198.51.100.9/255.255.255.0", "mc-exim-1d", 1, 1, 0, 0, RECENT))
    context = make(old)
    done = adopt(context).done
    assert sorted(ban.ip for ban in bans_in_force(context, None)) == ["198.51.100.0/24", "2001:db8::1", IP]
    (merged,) = [line for line in done if "more than once" in line]
    assert "2 addresses" in merged
    assert f"{IP} in mc-exim-1d (3)" in merged


def test_jails_that_stand_there_twice(make: Make, old: str) -> None:
    """Equal ones become one; of different ones the first is taken, and both values are named. NULLs are faults."""
    database = Database(old)
    same = "enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath, max_count"
    original.execute(
        database,
        f"INSERT INTO fail2ban_jail ({same}) SELECT {same} FROM fail2ban_jail WHERE name = 'mc-exim-1w'",
        f"INSERT INTO fail2ban_jail ({same}) SELECT {same} FROM fail2ban_jail WHERE name = 'mc-exim-1d'",
        "INSERT INTO fail2ban_jail (name) VALUES ('empty-jail')",
        "INSERT INTO fail2ban_jail (maxretry) VALUES (3)",
    )
    with database.engine.begin() as connection:
        last = connection.execute(text("SELECT MAX(id) FROM fail2ban_jail WHERE name = 'mc-exim-1d'")).scalar()
        connection.execute(text(f"UPDATE fail2ban_jail SET maxretry = 8 WHERE id = {last}"))
    database.dispose()
    context = make(old)
    adopted = adopt(context)
    assert [line for line in adopted.done if "'mc-exim-1w' stands there more than once, with equal values" in line]
    assert [line for line in adopted.to_mend if "'mc-exim-1d'" in line and "maxretry 5, 8" in line]
    assert [line for line in adopted.to_mend if line.startswith("empty-jail: ") and "no port is given" in line]
    assert [line for line in adopted.to_mend if "no usable name" in line]
    jails = {row.name: row for row in context.database.read(lambda t: t.jails.all())}
    assert jails["mc-exim-1d"].maxretry == 5
    assert len(jails) == 6


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


CUT = """
import sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from mcban.cli.main import main
left = int(sys.argv[1])
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    global left
    if statement.split()[0] in ("SELECT", "PRAGMA", "SHOW", "SET", "BEGIN", "DESCRIBE"):
        return
    left -= 1
    if not left:
        import os
        os.kill(os.getpid(), 9)
main(["db", "adopt"])
"""
"""`mcban db adopt`, killed right after the statement of that number which changes something."""


def killed(url: str, after: int, folder: Path) -> bool:
    """Whether it was killed, or came to its end before."""
    env = os.environ | {
        "MCBAN_DATABASE_URL": url,
        "MCBAN_STATE_DIR": str(folder),
        "MCBAN_FIREWALL": "memory",
        "MCBAN_CONFIG": "/dev/null",
    }
    done = subprocess.run([sys.executable, "-c", CUT, str(after)], env=env, capture_output=True, check=False)
    assert done.returncode in {0, -9}, done.stderr.decode()
    return done.returncode == -9


@pytest.mark.parametrize("step", [19, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_after_any_statement_it_can_be_done_again(make: Make, either: str, tmp_path: Path, step: int) -> None:
    """Over and over, each time a little later: in the end everything is there, once."""
    original.add(either, *((f"203.0.113.{n}", "mc-exim-1y", 1, 1, 0, 0, RECENT) for n in range(20)))
    after = 1
    while killed(either, after, tmp_path):
        after += step
        context = make(either)
        if standing(context.database) in {Standing.COPIED, Standing.ADOPTED}:  # only the names were still to be changed
            assert len(bans_in_force(context, "mc-exim-1y")) == 20
            continue
        with pytest.raises(ConfigError, match="mcban db adopt"):
            schema.require(context.database)
    context = make(either)
    assert standing(context.database) is Standing.ADOPTED
    assert len(bans_in_force(context, "mc-exim-1y")) == 20
    assert len(raw(either, "mcban_adopted_ips")) == 20
    assert after > 30


def adopting(url: str, folder: Path) -> subprocess.Popen[str]:
    """`mcban db adopt` at a keyboard."""
    env = os.environ | {
        "MCBAN_DATABASE_URL": url,
        "MCBAN_STATE_DIR": str(folder),
        "MCBAN_FIREWALL": "memory",
        "MCBAN_CONFIG": "/dev/null",
    }
    return subprocess.Popen(
        [MCBAN, "db", "adopt"],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # a build may ignore it
    )


def test_control_c_leaves_no_renaming_behind_that_the_server_still_waits_for(
    make: Make, empty_mariadb: str, mariadb: Server, tmp_path: Path
) -> None:
    """Whoever reads the tables keeps them from being put aside; when he has read, nothing is done any more for a
    command that was stopped meanwhile."""
    original.make(empty_mariadb)
    reader = Database(empty_mariadb)

    def waiting() -> bool:
        name = reader.engine.url.database
        listed = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = '{name}' AND STATE LIKE '%metadata lock'"
        return bool(mariadb.sql(empty_mariadb, listed).stdout)

    with reader.engine.connect() as connection:
        connection.execute(text("SELECT * FROM fail2ban_ips"))
        command = adopting(empty_mariadb, tmp_path)
        until(waiting, "the renaming")
        command.send_signal(signal.SIGINT)
        said = command.communicate(timeout=PATIENCE)
        assert not waiting()
    reader.dispose()
    assert (command.returncode, *said) == (130, "", "mcban: stopped by the keyboard\n")
    assert standing(make(empty_mariadb).database) is Standing.ORIGINAL
    adopt(make(empty_mariadb))


def test_a_server_that_dies_half_way_is_said_with_what_is_to_be_done(make: Make, tmp_path: Path) -> None:
    """Nobody who looks for his tables finds them under the names of an adoption without a word; done again, it goes on
    from there."""
    require_mariadb()
    durable = "--innodb-flush-log-at-trx-commit=1"

    def die(_: Original) -> Heritage:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        return Heritage()

    with private_server(tmp_path, durable) as socket:
        url = new_database(socket, "old")
        original.make(url)
        words = "cannot be used: .*mcban_adopting_.*: run `mcban db adopt` again"
        with pytest.raises(DatabaseError, match=words) as caught:
            take_over(make(url).database, die)
        assert "\n" not in str(caught.value)
    with private_server(tmp_path, durable):
        assert standing(make(url).database) is Standing.HALFWAY
        adopt(make(url))
        assert standing(make(url).database) is Standing.ADOPTED


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


def test_two_at_once_do_not_meet(make: Make, empty_mariadb: str) -> None:
    """The second is told to wait."""
    original.make(empty_mariadb)
    first, second = make(empty_mariadb), make(empty_mariadb)
    with first.database.engine.connect() as connection:
        connection.execute(text("SELECT GET_LOCK(CONCAT('mcban adopt ', DATABASE()), 0)"))
        with pytest.raises(RefusedError, match="being adopted already"):
            adopt(second)
    first.database.dispose()
    adopt(second)


def test_who_comes_second_leaves_what_the_first_made(make: Make, either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when he had looked before the first was done."""
    original.add(either, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    adopt(make(either))
    context = make(either)
    for late in ("mcban.service.adoption.store.standing", "mcban.store.original.schema.current"):
        with monkeypatch.context() as patch:
            patch.setattr("mcban.service.adoption.store.standing", lambda _: Standing.ORIGINAL)
            if late.endswith("current"):
                patch.setattr(late, lambda _: None)
                patch.setattr("mcban.store.original._check", lambda _: None)
            with pytest.raises(RefusedError, match="in the meantime"):
                adopt(context)
    assert [ban.ip for ban in bans_in_force(context, None)] == [IP]
    assert standing(context.database) is Standing.ADOPTED


def test_a_database_elsewhere_is_copied_and_only_read(make: Make, either: str, tmp_path: Path) -> None:
    """Into a database that does not exist yet; again for what has come since, and what is here stays as it is."""
    original.add(either, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    before = raw(either, "fail2ban_ips"), raw(either, "fail2ban_jail")
    context = make(f"sqlite:///{tmp_path / 'ours.sqlite'}")
    adopt_from(context, either, check=True)
    assert schema.current(context.database) is None
    adopted = adopt_from(context, either)
    assert [ban.ip for ban in bans_in_force(context, None)] == [IP]
    assert len(context.database.read(lambda t: t.jails.all())) == 5
    assert (raw(either, "fail2ban_ips"), raw(either, "fail2ban_jail")) == before
    assert "1 of 1 rows are here already: left as they are" in adopt_from(context, either).done
    original.add(either, ("192.0.2.1", "mc-exim-1d", 1, 1, 0, 0, RECENT))
    adopted = adopt_from(context, either)
    assert "1 of 2 rows are here already: left as they are" in adopted.done
    assert sorted(ban.ip for ban in bans_in_force(context, None)) == ["192.0.2.1", IP]


def test_a_new_database_gets_the_jails_and_one_in_use_keeps_its_own(make: Make, old: str, sqlite_url: str) -> None:
    """After `db upgrade` the shipped jails make way, unless somebody changed them or bans are there."""
    context = make(sqlite_url)
    context.database.write(lambda t: t.jails.update("mc-exim-1d", {"maxretry": 4}))
    adopted = adopt_from(context, old)
    assert (
        "mc-exim-1d is here already, with another maxretry, banaction, logpath, max_count: left as it is"
        in adopted.done
    )
    assert len(context.database.read(lambda t: t.jails.all())) == 15
    context.database.write(lambda t: t.jails.update("mc-exim-1d", {"maxretry": 5}))
    adopt_from(context, old)
    assert len(context.database.read(lambda t: t.jails.all())) == 5


@given(
    st.one_of(
        st.text(max_size=30),
        st.ip_addresses().map(str),
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    ),
    st.booleans(),
)
def test_any_text_reads_as_an_entry_or_as_none(spelled: str, names: bool) -> None:
    """Never an error; and what is read, reads as itself."""
    entry = read_entry(spelled, names=names)
    assert entry is None or read_entry(entry, names=names) == entry
