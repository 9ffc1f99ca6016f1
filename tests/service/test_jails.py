"""Jails: changed by command or by plain SQL, what cannot work is named, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from mcban.core.ladder import generate
from mcban.errors import DataError, FilterError, RefusedError, UsageError
from mcban.service import upkeep
from mcban.service.bans import Report, ban, unban
from mcban.service.context import Context
from mcban.service.jail_changes import add, enable, reload, remove, switch_blacklist
from mcban.service.jails import select
from mcban.service.report import overview
from mcban.service.sync import sync
from mcban.service.world import load_world
from mcban.store.database import Transaction
from mcban.store.jails import JailRecord
from tests.conftest import Machine
from tests.service.desk import IP, TIERS, dump, execute, fail, held, in_force, known
from tests.service.jail_desk import alter, faults, insert, made, rows

GROUPS = ["mc-ssh", "mc-exim", "mc-webauth"]


@pytest.mark.parametrize("name", ["mc-exim", "mc-exim-1d", None])
def test_disabling_empties_the_kernel_and_enabling_brings_running_bans_back(context: Context, name: str | None) -> None:
    """A group, a tier, everything: the rows of SQL stay as they are."""
    fail(context, 20)
    ban(context, "mc-exim-bl", ["192.0.2.1"], None, force=False, yes=False)
    before, bans = held(context), dump(context)["fail2ban_ips"]
    enable(context, name, on=False)
    off = {"mc-exim": set(TIERS), "mc-exim-1d": {"mc-exim-1d"}, None: set(TIERS)}[name]
    assert set(held(context)) == set(before) - off
    assert held(context, "192.0.2.1") == ([] if name is None else ["mc-exim-bl"])
    assert dump(context)["fail2ban_ips"] == bans
    sync(context)
    assert set(held(context)) == set(before) - off
    enable(context, name, on=True)
    sync(context)  # what a running engine does at once when it sees the change
    assert held(context) == before
    assert held(context, "192.0.2.1") == ["mc-exim-bl"]


def test_a_disabled_jail_bans_nobody(context: Context) -> None:
    """The tiers above it go on."""
    enable(context, "mc-exim-1d", on=False)
    assert [b.jail for b in fail(context, 20).bans] == ["mc-exim-1w", "mc-exim-1m", "mc-exim-1y"]


def test_disabling_the_blacklist_stops_promotion_and_keeps_its_rows(context: Context) -> None:
    """Enabled with -v N, the N-th ban is the last before it."""
    ban(context, "mc-exim-bl", ["192.0.2.1"], None, force=False, yes=False)
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{IP}', 'mc-exim-1d', 0, 5)")
    switch_blacklist(context, "mc-exim", on=False)
    assert held(context, "192.0.2.1") == []
    assert [b.jail for b in fail(context, 5).bans] == ["mc-exim-1d"]
    assert known(context, "mc-exim-1d").count == 6
    unban(context, "mc-exim", [IP])
    switch_blacklist(context, "mc-exim", on=True, max_count=7)
    assert held(context, "192.0.2.1") == ["mc-exim-bl"]
    assert [rows(context)[tier].max_count for tier in TIERS] == [7, 7, 7, 7]
    assert [b.jail for b in fail(context, 5).bans] == ["mc-exim-1d"]
    unban(context, "mc-exim", [IP])
    assert [b.jail for b in fail(context, 5).bans] == ["mc-exim-bl"]


def test_the_blacklists_are_switched_all_at_once(context: Context) -> None:
    """general disable-bl and enable-bl -v N."""
    switch_blacklist(context, None, on=False)
    assert [rows(context)[f"{g}-bl"].enabled for g in GROUPS] == [False] * 3
    switch_blacklist(context, None, on=True, max_count=9)
    assert {r.max_count for r in rows(context).values() if not r.name.endswith("-bl")} == {9}
    assert all(r.enabled for r in rows(context).values())


COMMANDS: dict[str, Callable[[Context], Report]] = {
    "disable": lambda c: enable(c, "mc-exim", on=False),
    "disable tier": lambda c: enable(c, "mc-exim-1d", on=False),
    "disable all": lambda c: enable(c, None, on=False),
    "enable": lambda c: enable(c, "mc-exim", on=True),
    "blacklist off": lambda c: switch_blacklist(c, "mc-exim", on=False),
    "blacklist on": lambda c: switch_blacklist(c, "mc-exim", on=True, max_count=4),
    "all blacklists off": lambda c: switch_blacklist(c, None, on=False),
    "change tier": lambda c: alter(c, "mc-exim-1d", "bantime", "2d"),
    "regenerate": lambda c: alter(c, "mc-exim", "maxretry", "7"),
    "port": lambda c: alter(c, "mc-exim", "port", "smtp"),
    "max_count": lambda c: alter(c, "mc-exim", "max_count", "5"),
    "logpath": lambda c: alter(c, "mc-exim", "logpath", "/var/log/a';DROP/**/TABLE/**/fail2ban_jail;--"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_asking_again_says_so_and_changes_no_row(context: Context, name: str) -> None:
    """What is changed is said, one line each; the second time that it is so already."""
    first = COMMANDS[name](context)
    before = dump(context)
    second = COMMANDS[name](context)
    assert all("already" in line or "stays enabled" in line for line in second.done), second.done
    assert second.done
    assert first.done
    assert dump(context) == before
    assert len(before["fail2ban_jail"]) == 15


def test_a_groups_maxretry_regenerates_its_ladder(context: Context) -> None:
    """From N, whatever was changed in single tiers before; one tier's is that tier's alone."""
    alter(context, "mc-exim-1w", "maxretry", "11")
    assert [rows(context)[tier].maxretry for tier in TIERS] == [5, 11, 15, 20]
    alter(context, "mc-exim-1d", "bantime", "2d")
    alter(context, "mc-exim", "maxretry", "2")
    for step in generate(2):
        row = rows(context)[f"mc-exim-{step.suffix}"]
        assert (row.maxretry, row.findtime, row.bantime) == (step.maxretry, step.findtime, step.bantime)
    assert rows(context)["mc-ssh-1d"].maxretry == 3
    assert [b.jail for b in fail(context, 8).bans] == list(TIERS)


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("mc-exim-1d", "maxretry", "10", "maxretry 10 of 1w is not above 10 of 1d"),
        ("mc-exim-1w", "findtime", "1h", "findtime 3600 of 1w is not above 3600 of 1d"),
        ("mc-exim-1y", "bantime", "1w", "bantime 604800 of 1y is not above 2592000 of 1m"),
        ("mc-exim-1m", "bantime", "-1", "bantime 31536000 of 1y is not above for ever of 1m"),
        ("mc-exim", "findtime", "1h", "findtime 3600 of 1w is not above 3600 of 1d"),
    ],
)
def test_a_ladder_that_does_not_ascend_is_refused_unless_forced_and_then_reported(
    context: Context, name: str, option: str, value: str, said: str
) -> None:
    """Exit status 3 with the ladder and the value; forced, status says so for as long as it stands."""
    before = dump(context)
    with pytest.raises(RefusedError) as caught:
        alter(context, name, option, value)
    assert caught.value.exit_status == 3
    assert said in str(caught.value)
    assert "1m 15 in 2w for" in str(caught.value) or name == "mc-exim"
    assert "--force" in str(caught.value)
    assert dump(context) == before
    alter(context, name, option, value, force=True)
    assert said in faults(context)["mc-exim"] or name == "mc-exim"
    assert any(fault.what == "mc-exim" for fault in overview(context, "mc-exim").faults)
    alter(context, name, "port", "25")  # needs no force: it is not about the ladder
    alter(context, "mc-exim", "maxretry", "5")
    assert faults(context) == {}


@pytest.mark.parametrize(
    ("name", "option", "value", "error"),
    [
        ("mc-exim", "colour", "1", UsageError),
        ("mc-exim", "maxretry", "0", UsageError),
        ("mc-exim", "maxretry", "five", UsageError),
        ("mc-exim", "maxretry", "10001", DataError),
        ("mc-exim", "maxretry", "5000", DataError),
        ("mc-exim-1d", "bantime", "never", UsageError),
        ("mc-exim-1d", "findtime", "-1", DataError),
        ("mc-exim", "port", "99999", DataError),
        ("mc-exim", "port", "", DataError),
        ("mc-exim", "banaction", "mail", DataError),
        ("mc-exim", "banaction", "mc-custom[port=99999]", DataError),
        ("mc-exim", "banaction", "mc-custom[chain=DOCKER-USER]", DataError),
        ("mc-exim", "banaction", "mc-custom[blocktype=ACCEPT]", DataError),
        ("mc-exim", "filter", "no-such-filter", FilterError),
        ("mc-exim", "filter", "../../etc/passwd", FilterError),
        ("mc-exim", "logpath", "relative/path", DataError),
        ("mc-exim", "logpath", "/" + "y" * 500, DataError),
        ("mc-exim", "v6_prefix", "16", DataError),
        ("mc-exim", "v6_prefix", "/64", UsageError),
        ("mc-exim-bl", "v6_prefix", "64", UsageError),
        ("mc-exim-bl", "bantime", "1d", UsageError),
        ("mc-exim-bl", "maxretry", "1", UsageError),
        ("mc-eximm", "maxretry", "1", UsageError),
    ],
)
def test_a_value_that_cannot_work_is_refused_and_changes_nothing(
    context: Context, name: str, option: str, value: str, error: type[Exception]
) -> None:
    """In one line."""
    before = dump(context)
    with pytest.raises(error) as caught:
        alter(context, name, option, value)
    assert "\n" not in str(caught.value)
    assert dump(context) == before


def test_the_originals_row_is_a_live_jail(context: Context) -> None:
    """Inserted by plain SQL it bans in a list and by a rule of its own."""
    insert(context, made())
    assert upkeep.take_over(context)[1] == []
    assert [b.jail for b in fail(context, 3, group="my-jail").bans] == ["my-jail"]
    sync(context)
    assert held(context) == ["my-jail"]
    assert str(context.firewall.read(()).rules["my-jail"].ports) == "8080"
    assert "my-jail-bl" not in rows(context)


def test_a_custom_jail_with_max_count_gets_its_blacklist(context: Context, machine: Machine) -> None:
    """Made at the next reload; the ban after max_count leads there."""
    insert(context, made(max_count=1))
    assert reload(context).done == ("my-jail-bl: made, since my-jail has max_count 1",)
    assert reload(context).done == ()
    fail(context, 3, group="my-jail")
    machine.now += 3600
    assert [b.jail for b in fail(context, 3, group="my-jail").bans] == ["my-jail-bl"]
    sync(context)
    assert held(context) == ["my-jail-bl"]


def test_escalate_turns_a_row_into_a_ladder(context: Context) -> None:
    """The four tiers of its maxretry, and its blacklist; the row itself is gone."""
    insert(context, made("my", escalate=True, max_count=2, maxretry=2))
    reload(context)
    for step in generate(2):
        row = rows(context)[f"my-{step.suffix}"]
        assert (row.maxretry, row.findtime, row.bantime, row.port) == (
            step.maxretry,
            step.findtime,
            step.bantime,
            "8080",
        )
        assert (row.escalate, row.max_count) == (False, 2)
    assert "my" not in rows(context)
    assert rows(context)["my-bl"].bantime == -1
    assert faults(context) == {}
    assert [b.jail for b in fail(context, 8, group="my").bans] == ["my-1d", "my-1w", "my-1m", "my-1y"]


def test_escalate_beside_tiers_of_that_name_is_reported(context: Context) -> None:
    """It waits for the names to be free."""
    insert(context, made("mc-exim", escalate=True))
    assert "free" in faults(context)["mc-exim"]
    assert len(fail(context, 5).bans) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"port": "99999"}, "from 1 to 65535"),
        ({"port": "nosuchservice"}, "is no port"),
        ({"port": ""}, "no port is given"),
        ({"banaction": "sendmail-whois"}, "banaction 'sendmail-whois' is not known"),
        ({"banaction": "iptables-multiport[actname=x]"}, "the parameter 'actname' is not known"),
        ({"banaction": "iptables-multiport[port=nosuchservice]"}, "is no port"),
        ({"banaction": "iptables-multiport[protocol=udp]"}, "protocol 'udp' cannot be had"),
        ({"banaction": "iptables-multiport[chain=FORWARD]"}, "the chain 'FORWARD' is not among"),
        ({"name": "x" * 40}, "the name has 40 characters"),
        ({"name": "a;b"}, "a name begins with a letter"),
        ({"name": "a b"}, "a name begins with a letter"),
        ({"name": "\x1b[31m"}, "a name begins with a letter"),
        ({"name": ""}, "a name begins with a letter"),
        ({"name": "it's; DROP TABLE x"}, "a name begins with a letter"),
        ({"name": "nice-all"}, "are kept for sets"),
        ({"maxretry": 0}, "maxretry 0 is out of range"),
        ({"maxretry": 2**31 - 1}, "maxretry 2147483647 is out of range"),
        ({"findtime": -5}, "findtime -5 is out of range"),
        ({"bantime": 0}, "bantime 0 is out of range"),
        ({"bantime": -7}, "bantime -7 is out of range"),
        ({"filter": " "}, "names no filter"),
        ({"v6_prefix": 31}, "v6_prefix 31 is out of range"),
        ({"v6_prefix": 129}, "v6_prefix 129 is out of range"),
        ({"name": "x" * 30, "escalate": True}, "characters"),
        ({"name": "lonely-bl"}, "is a blacklist without a jail of its group: mcban jail remove"),
        ({"name": "x" * 27, "max_count": 3}, "nobody is blacklisted"),
    ],
)
def test_a_row_that_cannot_work_is_named_and_the_others_go_on(
    context: Context, changed: dict[str, Any], words: str
) -> None:
    """In the log and in status; the shipped jails ban as ever."""
    jail = made(**changed)
    insert(context, jail)
    found = {what: why for what, why in faults(context).items() if words in why}
    assert len(found) == 1
    assert all(f"{what}{why}".isprintable() for what, why in found.items())
    assert {f.what for f in overview(context).faults} >= set(found)
    assert [b.jail for b in fail(context, 5).bans] == ["mc-exim-1d"]
    sync(context)
    assert held(context) == ["mc-exim-1d"]
    if jail.name.isprintable() and "nobody" not in words and "without" not in words:
        with pytest.raises(UsageError, match="cannot be used"):
            context.database.read(lambda t: select(load_world(context, t).book, jail.name))
    remove(context, jail.name, yes=False)
    assert faults(context) == {}


@pytest.mark.parametrize("column", ["maxretry", "findtime", "bantime", "max_count", "v6_prefix"])
def test_a_number_that_is_text_is_a_fault_by_name(context: Context, column: str) -> None:
    """SQLite takes it; MariaDB says no itself."""
    update = f"UPDATE fail2ban_jail SET {column} = 'five' WHERE name = 'mc-ssh-1d'"
    if context.database.sqlite_file is None:
        with pytest.raises(SQLAlchemyError, match=column):
            execute(context, update)
        return
    execute(context, update)
    assert faults(context)["mc-ssh-1d"] == f"{column} 'five' is no whole number"
    assert len(fail(context, 5).bans) == 1


def test_null_in_enabled_is_on(context: Context) -> None:
    """As the original treats it."""
    execute(context, "UPDATE fail2ban_jail SET enabled = NULL WHERE name = 'mc-exim-1d'")
    assert [b.jail for b in fail(context, 5).bans] == ["mc-exim-1d"]


def test_a_row_that_cannot_be_used_can_be_mended(context: Context) -> None:
    """By command, so that nobody needs SQL for it."""
    insert(context, made(port="nosuchservice", max_count=2))
    with pytest.raises(DataError, match="nosuchservice"):
        alter(context, "my-jail", "maxretry", "4")
    done = alter(context, "my-jail", "port", "8080").done
    assert done[0] == "my-jail: port nosuchservice is now 8080"
    assert faults(context) == {}
    assert "my-jail-bl" in rows(context)


def test_a_jail_is_added_and_removed(context: Context) -> None:
    """With its ladder, and with its blacklist; bans that run want --yes."""
    add(context, made("my", escalate=True, max_count=3), force=False)
    assert set(rows(context)) >= {"my-1d", "my-1w", "my-1m", "my-1y", "my-bl"}
    fail(context, 3, group="my")
    with pytest.raises(RefusedError, match="holds 1 ban, which"):
        remove(context, "my", yes=False)
    remove(context, "my", yes=True)
    sync(context)
    assert held(context) == in_force(context) == []
    assert len(rows(context)) == 15


@pytest.mark.parametrize(
    ("jail", "error"),
    [
        (made("mc-exim-1d"), UsageError),
        (made("mc-exim"), UsageError),
        (made("mc-exim", escalate=True), UsageError),
        (made("broken"), UsageError),
        (made("-x"), DataError),
        (made("x", filter="nope"), FilterError),
        (made("x", port="nope"), DataError),
        (made("my-1d", bantime=10**12), DataError),
        (made("x", logpath="/var/log/\udcff"), DataError),
        (made("x", logpath="/var/log/" + "x" * 492), DataError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_jail_that_cannot_be_added_changes_nothing(
    context: Context, jail: JailRecord, error: type[Exception]
) -> None:
    """A name that is taken, also by a row that cannot be used; a filter or port that is none."""
    insert(context, made("broken", port="nope"))
    before = dump(context)
    with pytest.raises(error) as caught:
        add(context, jail, force=False)
    assert "\n" not in str(caught.value)
    assert dump(context) == before


def test_a_removed_blacklist_does_not_come_back(context: Context) -> None:
    """Its tiers lead nowhere from then on; enabling it makes it anew."""
    remove(context, "mc-exim-bl", yes=False)
    assert [rows(context)[tier].max_count for tier in TIERS] == [0, 0, 0, 0]
    assert reload(context).done == ()
    assert "mc-exim-bl" not in rows(context)
    switch_blacklist(context, "mc-exim", on=True, max_count=2)
    assert rows(context)["mc-exim-bl"].enabled
    assert {rows(context)[tier].max_count for tier in TIERS} == {2}


@pytest.mark.parametrize(
    ("name", "maxretry", "escalate"), [("lonely-bl", 5, False), ("steep", 9_000, True)], ids=["no jail", "too steep"]
)
def test_a_jail_whose_rows_could_not_be_used_is_not_made(
    context: Context, name: str, maxretry: int, escalate: bool
) -> None:
    """`jail add` refuses what would only become a fault, and leaves nothing behind."""
    record = JailRecord(name, True, maxretry, 600, 600, "25", "mc-exim-filter", "mc-custom", "/x", 0, escalate=escalate)
    before = dump(context)
    with pytest.raises(DataError):
        add(context, record, force=False)
    assert dump(context) == before


def test_where_there_is_no_jail_at_all_that_is_said(context: Context) -> None:
    """Somebody emptied the table: whoever names a jail is told so, and how one is made."""

    def delete_all(transaction: Transaction) -> None:
        for jail in transaction.jails.all():
            transaction.jails.delete(jail.name)

    context.database.write(delete_all)
    with pytest.raises(UsageError, match="there is no jail mc-exim: there is none at all: mcban jail add makes one"):
        enable(context, "mc-exim", on=True)
