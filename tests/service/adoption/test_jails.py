"""What the jails and settings of the original become."""

from __future__ import annotations

from sqlalchemy import text

from mcban.service.adoption import adopt
from mcban.service.sync import sync
from mcban.store.database import Database
from tests import original
from tests.service.adoption.desk import IP, RECENT, Make, raw
from tests.service.desk import held


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


def test_a_custom_jail_that_blacklists_gets_a_blacklist_jail(make: Make, old: str) -> None:
    """Made as mcban makes them, and said."""
    original.execute(Database(old), "UPDATE fail2ban_jail SET name = 'my-jail' WHERE name = 'mc-exim-1y'")
    original.add(old, (IP, "my-jail", 4, 1, 1, 0, RECENT))
    context = make(old)
    assert [line for line in adopt(context).done if line.startswith("my-jail-bl: made")]
    sync(context)
    assert held(context) == ["my-jail-bl"]


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


def test_what_a_file_of_sqlite_lets_stand_in_a_jail_comes_over_as_far_as_it_fits(make: Make, old: str) -> None:
    """A log's name that is too long is cut, which is said; a jail of which nobody said whether it is on is on."""
    original.execute(
        Database(old),
        f"UPDATE fail2ban_jail SET enabled = NULL, logpath = '/{'x' * 3000}' WHERE name = 'mc-exim-1d'",
    )
    context = make(old)
    assert "mc-exim-1d: logpath is too long: cut at 2000 characters" in adopt(context).to_mend
    (day,) = [row for row in context.database.read(lambda t: t.jails.all()) if row.name == "mc-exim-1d"]
    assert (day.enabled, day.logpath) == (True, "/" + "x" * 1999)
