"""What others write by plain SQL: taken over, mended, noticed once; and nothing that they write stops the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from mcban.core.model import FOREVER
from mcban.service import upkeep
from mcban.service.bans import unban
from mcban.service.changes import OVERLAP, ChangeFeed
from mcban.service.context import Context
from mcban.service.report import bans_in_force, overview, show
from mcban.service.sync import enforce, sync
from tests.conftest import Machine
from tests.service.desk import IP, NOON, TIERS, dump, execute, fail, held, in_force, known, row, sql_time

DAY = 86_400


def take_over(context: Context) -> list[str]:
    """What the engine does when it notices a change."""
    _, said = upkeep.take_over(context)
    upkeep.expire(context)
    sync(context)
    return said


def insert(context: Context, ip: str, jail: str = "mc-exim-1d", **columns: object) -> None:
    """A row as somebody types it: address, jail, and what is given."""
    values = {"ip": ip, "jail": jail, "last_hit": sql_time(NOON), **columns}
    shown = ", ".join(repr(value) for value in values.values())
    execute(context, f"INSERT INTO fail2ban_ips ({', '.join(values)}) VALUES ({shown})")


@pytest.mark.parametrize(
    ("jail", "until", "blacklisted"), [("mc-exim-1w", NOON + 7 * DAY, False), ("mc-exim-bl", FOREVER, True)]
)
def test_an_inserted_ban_gets_its_end_and_is_enforced(
    context: Context, jail: str, until: int, blacklisted: bool
) -> None:
    """last_hit and the jail's time; a blacklisting is for ever. Said and noted once."""
    insert(context, IP, jail)
    assert take_over(context) == [f"{IP} banned in {jail} by SQL"]
    assert take_over(context) == []
    assert held(context) == [jail]
    ban = known(context, jail)
    assert (ban.until, ban.since, ban.count, ban.reason) == (until, NOON, 1, "by SQL")
    assert ban.blacklisted == blacklisted
    assert [e.what for e in context.database.read(lambda t: t.events.of(IP, 9))] == ["ban"]


@pytest.mark.parametrize(
    ("typed", "entry"),
    [
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", IP),
        (f" {IP} ", IP),
        (f"{IP}/32", IP),
        ("203.0.113.7/24", "203.0.113.0/24"),
    ],
)
@pytest.mark.parametrize("until", [None, NOON + DAY], ids=["no end", "an end"])
def test_an_address_in_another_spelling_is_enforced(
    context: Context, typed: str, entry: str, until: int | None
) -> None:
    """Upper case, mapped, spaces, host bits: nothing stops, and the kernel gets the address."""
    insert(context, typed, **({"until": sql_time(until)} if until else {}))
    take_over(context)
    assert held(context, entry) == ["mc-exim-1d"]
    assert len(bans_in_force(context, "mc-exim")) == 1
    show(context, entry)
    assert row(context, "mc-exim-1d", typed) is None
    assert known(context, "mc-exim-1d", entry).until == NOON + DAY
    assert take_over(context) == []
    unban(context, "mc-exim", [entry])
    assert held(context, entry) == in_force(context, entry) == []


def test_a_ban_inserted_with_an_end_of_its_own_keeps_it(context: Context) -> None:
    """Whatever the jail's time; it is said and noted as others are, once, and `since` stays when it was given."""
    insert(context, IP, until=sql_time(NOON + 999), count=2)
    insert(context, IP, "mc-exim-1w", until=sql_time(NOON + 999), since=sql_time(NOON - 9), reason="by a script")
    assert take_over(context) == [f"{IP} banned in mc-exim-1d by SQL"]
    assert take_over(context) == []
    ban = known(context, "mc-exim-1d")
    assert (ban.until, ban.since, ban.count, ban.reason) == (NOON + 999, NOON, 2, "by SQL")
    assert known(context, "mc-exim-1w").reason == "by a script"
    assert held(context) == ["mc-exim-1d", "mc-exim-1w"]


def test_a_rewritten_spelling_does_not_take_its_address_out_of_the_kernel(context: Context) -> None:
    """The row that is gone and the one in its place are of one address."""
    insert(context, "2001:DB8::1")
    take_over(context)
    rows = context.database.read(lambda t: t.addresses.get(["2001:db8::1"]))
    world = upkeep.take_over(context)[0]
    for gone in ([("2001:DB8::1", "mc-exim-1d")], [("2001:DB8::1", "mc-exim-1d"), ("192.0.2.1", "mc-exim-1d")]):
        enforce(context, world, rows, gone)
        assert held(context, "2001:db8::1") == ["mc-exim-1d"]


def test_another_spelling_of_a_known_address_keeps_what_was_known(context: Context) -> None:
    """Its count goes on, an allowance stays, the later end holds."""
    for address, columns in (("2001:db8::1", {"count": 2, "active": 0}), ("2001:db8::2", {"active": 0})):
        insert(context, address, **columns)
    execute(context, "UPDATE fail2ban_ips SET whitelisted = 1 WHERE ip = '2001:db8::2'")
    insert(context, "2001:db8::3", until=sql_time(NOON + 9 * DAY), count=5)
    for address in ("2001:DB8::1", "2001:DB8::2", "2001:DB8::3"):
        insert(context, address)
    take_over(context)
    assert known(context, "mc-exim-1d", "2001:db8::1").count == 3
    assert known(context, "mc-exim-1d", "2001:db8::2").whitelisted
    assert held(context, "2001:db8::2") == []
    last = known(context, "mc-exim-1d", "2001:db8::3")
    assert (last.count, last.until) == (5, NOON + 9 * DAY)
    assert len(dump(context)["fail2ban_ips"]) == 3


@pytest.mark.parametrize(
    "typed", ["garbage", "", "1.2.3", "0.0.0.0/0", "::/0", "1.2.3.4; rm -rf /", "fe80::1%eth0", "1.2.3.4/33"]
)
@pytest.mark.parametrize("until", [None, NOON + DAY], ids=["no end", "an end"])
def test_garbage_is_said_and_never_enforced(context: Context, typed: str, until: int | None) -> None:
    """And the others go on."""
    insert(context, typed, **({"until": sql_time(until)} if until else {}))
    insert(context, IP, "mc-exim-1w")
    said = take_over(context)
    assert f"{IP} banned in mc-exim-1w by SQL" in said
    assert held(context) == ["mc-exim-1w"]
    assert held(context, typed) == []
    assert [line.ip for line in bans_in_force(context, None)] == [IP]
    assert len(fail(context, 5).bans) == 1
    overview(context)
    assert f"{typed} in mc-exim-1d: not an address or network that can be banned" in said
    assert take_over(context) == []


def test_a_row_in_a_jail_that_is_not_there_stops_nothing(context: Context) -> None:
    """It waits for its jail."""
    insert(context, IP, "gone-1d")
    assert take_over(context) == []
    assert held(context) == []
    assert len(fail(context, 5).bans) == 1


@pytest.mark.parametrize("jail", ["mc-exim-1d", "mc-exim-bl"])
def test_a_ban_lifted_by_plain_sql_is_lifted(context: Context, jail: str) -> None:
    """As the original did it, active = 0: out of the kernel, and the next single failure bans nobody."""
    if jail == "mc-exim-bl":
        execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{IP}', 'mc-exim-1d', 0, 3)")
    fail(context, 5)
    assert held(context) == [jail]
    execute(context, f"UPDATE fail2ban_ips SET active = 0 WHERE ip = '{IP}'")
    assert take_over(context) == [f"{IP} lifted in {jail} by SQL"]
    assert take_over(context) == []
    assert held(context) == []
    assert not known(context, jail).blacklisted
    assert fail(context, 4).bans == ()
    assert [b.jail for b in fail(context).bans][:1] == [jail]


def test_a_ban_renewed_by_plain_sql_runs_again(context: Context, machine: Machine) -> None:
    """As the original did it, active = 1 and a new last_hit, on a row whose ban was over."""
    fail(context, 5)
    machine.now += 2 * DAY
    take_over(context)
    assert held(context) == []
    execute(context, f"UPDATE fail2ban_ips SET active = 1, last_hit = '{sql_time(context.now)}', count = count + 1")
    assert take_over(context) == [f"{IP} banned in mc-exim-1d by SQL"]
    assert held(context) == ["mc-exim-1d"]
    ban = known(context, "mc-exim-1d")
    assert (ban.since, ban.until, ban.count) == (context.now, context.now + DAY, 2)


def test_a_deleted_row_leaves_the_kernel(context: Context) -> None:
    """At the next sync, whatever wrote it."""
    fail(context, 20)
    execute(context, "DELETE FROM fail2ban_ips WHERE jail <> 'mc-exim-1y'")
    take_over(context)
    assert held(context) == in_force(context) == ["mc-exim-1y"]


def test_hits_count_while_a_row_is_not_taken_over_yet(context: Context) -> None:
    """A row that somebody inserted a moment ago holds the address: no second ban in that jail."""
    insert(context, IP)
    assert [b.jail for b in fail(context, 20).bans] == list(TIERS)[1:]
    assert take_over(context) == [f"{IP} banned in mc-exim-1d by SQL"]


@pytest.fixture
def feed(context: Context) -> Callable[[float], list[tuple[str, str]]]:
    """Polls, as the engine does, at a time that the test says."""
    made = context.database.read(ChangeFeed)
    return lambda now: context.database.read(lambda t: made.poll(t, now))


def test_each_change_is_told_once(context: Context, feed: Callable[[float], list[tuple[str, str]]]) -> None:
    """Those from before are not."""
    assert feed(0) == []
    fail(context, 5)
    execute(context, "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-ssh-1d'")
    assert feed(1) == [(IP, "mc-exim-1d"), ("", "mc-ssh-1d")]
    for now in (1, 2, OVERLAP + 2, 3 * OVERLAP):
        assert feed(now) == []
    fail(context, 5)
    assert feed(3 * OVERLAP + 1) == [(IP, "mc-exim-1w")]


def test_what_was_noted_before_a_feed_was_made_is_not_told(context: Context) -> None:
    """An engine that starts reads everything anyway."""
    fail(context, 20)
    made = context.database.read(ChangeFeed)
    assert context.database.read(lambda t: made.poll(t, 0)) == []


@pytest.mark.parametrize("when", ["before the feed is made", "between two polls"])
def test_a_change_that_commits_late_is_told(context: Context, when: str) -> None:
    """A transaction that was open meanwhile commits a lower number than one that was told already."""
    if context.database.sqlite_file is not None:
        return  # there is one writer at a time: numbers are committed in their order
    made = context.database.read(ChangeFeed) if when == "between two polls" else None
    with context.database.engine.connect() as slow, slow.begin():
        slow.execute(text("INSERT INTO fail2ban_ips (ip, jail) VALUES ('192.0.2.1', 'slow')"))
        execute(context, "INSERT INTO fail2ban_ips (ip, jail) VALUES ('192.0.2.2', 'quick')")
        if made is None:
            made = context.database.read(ChangeFeed)
        else:
            assert context.database.read(lambda t: made.poll(t, 0)) == [("192.0.2.2", "quick")]
    for now, told in ((5, [("192.0.2.1", "slow")]), (6, []), (OVERLAP + 7, [])):
        assert context.database.read(lambda t, now=now: made.poll(t, now)) == told


def test_notes_of_changes_are_dropped_when_there_are_too_many(context: Context) -> None:
    """The newest stay."""
    rows = ", ".join(["('192.0.2.1', 'j')"] * 1000)
    for _ in range(101):
        execute(context, f"INSERT INTO mcban_change (ip, jail) VALUES {rows}")
    last = context.database.read(lambda t: t.changes.last())
    upkeep.purge(context, upkeep.take_over(context)[0])
    kept = context.database.read(lambda t: [number for number, _, _ in t.changes.since(0)])
    assert (len(kept), kept[-1]) == (100_000, last)
