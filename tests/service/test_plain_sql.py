"""What others write by plain SQL: taken over, mended, noticed once; and nothing that they write stops the rest."""

from __future__ import annotations

import json

import pytest

from mcban.core.model import FOREVER, Position
from mcban.service import upkeep
from mcban.service.bans import unban
from mcban.service.claim import NodeName
from mcban.service.context import Context
from mcban.service.report import bans_in_force, overview, show
from mcban.service.sync import aim_of, enforce, sync
from mcban.service.world import load_world
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
    insert(context, "2001:db8::1", count=2, active=0)
    insert(context, "2001:db8::2", active=0)
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


OTHER = "198.51.100.1"


def raw(context: Context, values: str, columns: str = "ip, jail, last_hit") -> None:
    """A row of `fail2ban_ips` as a client with sql_mode='' inserts it: any date that MariaDB can hold."""
    mode = [] if context.database.sqlite_file else ["SET SESSION sql_mode = ''"]
    execute(context, *mode, f"INSERT INTO fail2ban_ips ({columns}) VALUES ({values})")
    context.database.dispose()  # the session with that mode


def everything_works(context: Context, *odd: str) -> list[str]:
    """Every reading of the tables, with a ban of IP that goes on beside the odd rows; twice, so that what was made of
    them is read as well. Returns what the first taking over said."""
    insert(context, IP, "mc-exim-1w")
    first = take_over(context)
    assert f"{IP} banned in mc-exim-1w by SQL" in first
    for _ in range(2):
        assert take_over(context) == []
        overview(context)
        assert IP in [line.ip for line in bans_in_force(context, None)]
        for entry in (IP, OTHER, "198.51.100.0/24"):
            show(context, entry)
        for address in odd:
            assert held(context, address) == []
        aim = context.database.read(lambda t: aim_of(context, t, load_world(context, t), None))
        assert aim.wanted.entries["mc-exim-1w"] == {IP: NOON + 7 * DAY}
        assert held(context) == ["mc-exim-1w"]
    assert [ban.ip for ban in fail(context, 5, "192.0.2.99").bans] == ["192.0.2.99"]
    upkeep.expire(context)
    NodeName(context, "machine").take()
    upkeep.Purge().step(context, upkeep.take_over(context)[0])
    context.database.read(lambda t: (t.changes.since(0), t.addresses.covering("192.0.2.1"), t.positions.all("here")))
    return first


lenient = pytest.mark.parametrize("any_database", ["sqlite", "mariadb"], indirect=True)
"""PostgreSQL refuses a time that is none."""


@lenient
@pytest.mark.parametrize("column", ["last_hit", "since", "until"])
@pytest.mark.parametrize("typed", ["0000-00-00 00:00:00", "2027-02-00 00:00:00", "0001-01-01T00:00:00+14:00", "never"])
def test_a_time_that_no_calendar_has_is_no_time(context: Context, column: str, typed: str) -> None:
    """The ban is taken over as one without that time, and every other ban goes on."""
    times = {"last_hit": sql_time(NOON), "since": sql_time(NOON), "until": sql_time(NOON + DAY), column: typed}
    raw(
        context,
        f"'{OTHER}', 'mc-exim-1d', " + ", ".join(f"'{at}'" for at in times.values()),
        f"ip, jail, {', '.join(times)}",
    )
    everything_works(context)
    known(context, "mc-exim-1d", OTHER)
    unban(context, "mc-exim", [OTHER])
    assert held(context, OTHER) == []


@lenient
@pytest.mark.parametrize("typed", ["0000-00-00 00:00:00", "0001-01-01T00:00:00+14:00"])
def test_a_ban_whose_last_hit_is_no_time_runs_from_now(context: Context, typed: str) -> None:
    """Its jail's time counts from when it was noticed."""
    raw(context, f"'{OTHER}', 'mc-exim-1d', '{typed}'")
    assert f"{OTHER} banned in mc-exim-1d by SQL" in everything_works(context)
    ban = known(context, "mc-exim-1d", OTHER)
    assert (ban.since, ban.until, held(context, OTHER)) == (NOON, NOON + DAY, ["mc-exim-1d"])


def blob(text: str) -> str:
    """The bytes of `text` as SQL writes them."""
    return f"x'{text.encode().hex()}'"


embedded = pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
"""SQLite alone keeps bytes where text belongs."""


@embedded
@pytest.mark.parametrize("typed", ["x'01ff'", "x''", blob(OTHER), blob("198.51.100.0/24"), "CAST(x'01ff' AS TEXT)"])
@pytest.mark.parametrize("until", [None, NOON + DAY], ids=["no end", "an end"])
def test_an_address_in_bytes_is_said_and_never_enforced(context: Context, typed: str, until: int | None) -> None:
    """Whatever the bytes would spell, it is named once as SQL writes it, and every other ban goes on."""
    end = f"'{sql_time(until)}'" if until else "NULL"
    raw(context, f"{typed}, 'mc-exim-1d', '{sql_time(NOON)}', {end}", "ip, jail, last_hit, until")
    said = everything_works(context, typed, OTHER, "198.51.100.0/24")
    shown = "x'01ff'" if "CAST" in typed else typed
    assert f"{shown} in mc-exim-1d: not an address or network that can be banned" in said
    assert len(dump(context)["fail2ban_ips"]) == 3


@embedded
def test_an_allowance_in_bytes_is_a_fault_and_allows_nobody(context: Context) -> None:
    """It is shown with the jails, as SQL writes it."""
    raw(context, f"{blob(IP)}, {blob('*')}, 1", "ip, jail, whitelisted")
    everything_works(context)
    assert blob(IP) in [fault.what for fault in overview(context).faults]


@embedded
@pytest.mark.parametrize("typed", ["x'01ff'", blob("mc-exim-1d"), "7", "CAST(x'01ff' AS TEXT)"])
def test_a_jail_in_bytes_is_a_jail_that_is_not_there(context: Context, typed: str) -> None:
    """Its rows ban nobody and stop nothing."""
    raw(context, f"'{OTHER}', {typed}, '{sql_time(NOON)}'")
    everything_works(context, OTHER)


@embedded
@pytest.mark.parametrize("typed", ["x'01ff'", "7", "7.5"])
def test_a_reason_and_a_host_in_bytes_are_shown_as_sql_writes_them(context: Context, typed: str) -> None:
    """The ban is as good as any other."""
    raw(context, f"'{OTHER}', 'mc-exim-1d', {typed}, {typed}, '{sql_time(NOON)}'", "ip, jail, reason, host, last_hit")
    everything_works(context)
    (line,) = [line for line in bans_in_force(context, None) if line.ip == OTHER]
    assert json.loads(json.dumps([line.reason, line.host])) == [typed, typed]
    assert held(context, OTHER) == ["mc-exim-1d"]


@embedded
@pytest.mark.parametrize("typed", ["x'01ff'", "'many'", "9223372036854775807", "-5", "1.5", "9e999"])
def test_a_count_that_is_none_stops_nothing(context: Context, typed: str) -> None:
    """Not even two that add up to more than a number holds, nor the next ban of that address."""
    for address in (OTHER, "198.51.100.2"):
        raw(context, f"'{address}', 'mc-exim-1d', {typed}, '{sql_time(NOON)}'", "ip, jail, count, last_hit")
    everything_works(context)
    execute(context, "UPDATE fail2ban_ips SET active = 0")
    take_over(context)
    assert [ban.ip for ban in fail(context, 5, OTHER).bans] == [OTHER]


def test_a_node_whose_addresses_are_none_stops_nothing(context: Context) -> None:
    """Those that are addresses are protected all the same."""
    odd = f"INSERT INTO mcban_node (host, addresses, seen) VALUES ('odd', 'garbage 1.2.3 {OTHER}', '{sql_time(NOON)}')"
    execute(context, odd)
    if context.database.sqlite_file:
        execute(context, "INSERT INTO mcban_node (host, addresses, seen) VALUES (x'01ff', x'01ff', x'01ff')")
    everything_works(context)
    assert fail(context, 5, OTHER).bans == ()


def test_a_position_that_is_none_is_passed_over(context: Context) -> None:
    """The positions beside it are used."""
    good = Position("/var/log/auth.log", 1, 2, 3, "ab", 4)
    context.database.write(lambda t: t.positions.save("here", [good]))
    columns = "INSERT INTO mcban_position (host, path, device, inode, head_length, head_hash, read_to) VALUES "
    execute(context, columns + "('here', '/a', 1, 'x', 1, '', 1), ('here', '/b', 1, '7', 1, '', -1)")
    if context.database.sqlite_file:
        execute(context, columns + "('here', x'01ff', 'a', x'01ff', x'00', x'01ff', 'b')")
    everything_works(context)
    assert context.database.read(lambda t: t.positions.all("here")) == [good]


@embedded
def test_odd_hits_totals_events_and_changes_stop_nothing(context: Context) -> None:
    """What is no number counts as none, and bytes are shown as SQL writes them."""
    execute(
        context,
        f"INSERT INTO mcban_hit (id, jail_group, ip, at, login) VALUES (1, 'mc-exim', '{OTHER}', 'noon', x'01ff')",
        f"INSERT INTO mcban_hit (id, jail_group, ip, at, login) VALUES (2, 'mc-exim', '{OTHER}', {NOON}, 'a')",
        "INSERT INTO mcban_hit (id, jail_group, ip, at, login) VALUES (x'01ff', x'01ff', x'01ff', x'01ff', x'01ff')",
        "INSERT OR REPLACE INTO mcban_total (jail_group, hits) VALUES ('mc-exim', 'many'), (x'01ff', x'01ff')",
        "INSERT INTO mcban_event (at, what, ip, jail, until, reason, host)"
        f" VALUES (x'01ff', x'01ff', '{OTHER}', x'01ff', x'01ff', x'01ff', 7)",
        "INSERT INTO mcban_change (ip, jail) VALUES (x'01ff', x'01ff')",
    )
    everything_works(context)
    seen = show(context, OTHER)
    assert json.loads(json.dumps(seen.logins)) == ["x'01ff'", "a"]
    assert [(event.what, event.at, event.until, event.reason) for event in seen.events] == [
        ("x'01ff'", 0, None, "x'01ff'")
    ]
    assert {view.hits for view in seen.jails if view.jail in TIERS} == {1}
    assert ("x'01ff'", "x'01ff'") in context.database.read(lambda t: [(ip, jail) for _, ip, jail in t.changes.since(0)])


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


def test_notes_of_changes_are_dropped_when_there_are_too_many(context: Context) -> None:
    """The newest stay."""
    rows = ", ".join(["('192.0.2.1', 'j')"] * 1000)
    for _ in range(101):
        execute(context, f"INSERT INTO mcban_change (ip, jail) VALUES {rows}")
    last = context.database.read(lambda t: t.changes.last())
    upkeep.Purge().step(context, upkeep.take_over(context)[0])
    kept = context.database.read(lambda t: [number for number, _, _ in t.changes.since(0)])
    assert (len(kept), kept[-1]) == (100_000, last)
