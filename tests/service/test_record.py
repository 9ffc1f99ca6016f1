"""Hits become bans, in SQL and in the kernel, each counted exactly once."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest

from mcban.config import Config
from mcban.core.ladder import SHIPPED, Shipped, generate
from mcban.core.model import FOREVER, Hit, Position
from mcban.errors import DatabaseError
from mcban.firewall.memory import MemoryFirewall
from mcban.service import upkeep
from mcban.service.bans import blacklist_remove, unban
from mcban.service.context import Context
from mcban.service.record import ForgottenError, is_written, record
from mcban.service.sync import sync
from mcban.store.database import Database
from tests.conftest import Machine, MakeContext
from tests.service.desk import IP, NOON, TIERS, dump, execute, fail, held, in_force, known, row

POSITION = Position("/var/log/exim4/mainlog", 1, 2, 3, "ab", 100)
DAY = 86_400


@pytest.mark.parametrize("group", SHIPPED, ids=lambda group: group.name)
def test_each_tier_fires_at_its_number_of_hits_and_not_one_earlier(context: Context, group: Shipped) -> None:
    """One hit after the other, in every shipped group: in SQL and in the kernel at once."""
    wanted: list[str] = []
    steps = {step.maxretry: f"{group.name}-{step.suffix}" for step in generate(group.hits)}
    for n in range(1, 4 * group.hits + 1):
        done = fail(context, group=group.name)
        wanted += [steps[n]] if n in steps else []
        assert [ban.jail for ban in done.bans] == wanted[-1:] * (n in steps)
        assert held(context) == in_force(context) == sorted(wanted)
    for step in generate(group.hits):
        ban = known(context, f"{group.name}-{step.suffix}")
        assert (ban.since, ban.until, ban.count, ban.active) == (NOON, NOON + step.bantime, 1, True)
        assert ban.reason is not None
        assert ban.reason.startswith(f"{step.maxretry} hits within ")


def test_one_batch_counts_as_one_line_after_the_other(context: Context) -> None:
    """Twenty hits at once: once in each tier."""
    assert [ban.jail for ban in fail(context, 20).bans] == list(TIERS)
    assert held(context) == sorted(TIERS)


def test_a_hit_and_its_position_are_committed_together(context: Context) -> None:
    """What a crash left undone is offered again; what was done is not."""
    record(context, [Hit(NOON, IP, "mc-exim")], [POSITION])
    assert context.database.read(lambda t: t.positions.all("here")) == [POSITION]
    later = replace(POSITION, offset=200)
    execute(context, "ALTER TABLE mcban_position RENAME TO gone")
    before = [len(rows) for name, rows in _tables(context).items() if name != "mcban_position"]
    try:
        with pytest.raises(Exception, match="mcban_position"):
            record(context, [Hit(NOON, IP, "mc-exim")] * 9, [later])
    finally:
        execute(context, "ALTER TABLE gone RENAME TO mcban_position")
    assert [len(rows) for name, rows in dump(context).items() if name != "mcban_position"] == before
    assert context.database.read(lambda t: t.positions.all("here")) == [POSITION]
    record(context, [Hit(NOON, IP, "mc-exim")], [later], [POSITION])
    assert context.database.read(lambda t: t.positions.all("here")) == []
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 2}


def test_a_batch_that_was_written_already_is_not_counted_again_and_its_bans_are_told(context: Context) -> None:
    """Offered again under its name, since the answer to its commit was lost: only what was not written is counted."""
    hits = [Hit(NOON, IP, "mc-exim")] * 5
    first = record(context, hits, [POSITION], batch="one")
    assert (first.hits, [ban.jail for ban in first.bans]) == (5, ["mc-exim-1d"])
    found = record(context, hits, [POSITION], batch="one", again=True)
    assert (found.hits, found.bans) == (0, first.bans)
    assert [(row.ip, row.jail, row.until) for row in found.records] == [(IP, "mc-exim-1d", NOON + DAY)]
    quiet = record(context, [Hit(NOON, "203.0.113.9", "mc-exim")], [replace(POSITION, offset=200)], batch="two")
    assert record(context, hits[:3], [replace(POSITION, offset=300)], batch="three", again=True).hits == 3
    assert (quiet.hits, context.database.read(lambda t: t.hits.totals())) == (1, {"mc-exim": 9})


def test_a_database_that_lacks_what_it_had_confirmed_takes_nothing_that_comes_after(context: Context) -> None:
    """As after a crash that lost the last commits: found by whoever writes first on a new connection, and nothing is
    written; a database that has them is not asked again."""
    record(context, [Hit(NOON, IP, "mc-exim")], [POSITION], batch="one")
    next_one = [Hit(NOON, IP, "mc-exim")], [replace(POSITION, offset=200)]
    assert is_written(context, "one") and not is_written(context, "two")
    execute(context, "UPDATE mcban_position SET batch = 'zero'")
    assert record(context, *next_one, batch="two", after="one").hits == 1  # the connection is the same
    execute(context, "UPDATE mcban_position SET batch = 'one'")
    context.database.dispose()
    with pytest.raises(ForgottenError, match="lacks what it had confirmed"):
        record(context, *next_one, batch="three", after="two")
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 2}
    assert record(context, *next_one, batch="three", after="one").hits == 1


def _tables(context: Context) -> dict[str, list[object]]:
    with context.database.engine.connect() as connection:
        from mcban.store.tables import METADATA

        return {
            table.name: list(connection.execute(table.select()))
            for table in METADATA.sorted_tables
            if table.name not in {"mcban_turn", "mcban_position"}
        }


def test_after_the_end_of_a_ban_the_tier_counts_from_zero(context: Context, machine: Machine) -> None:
    """Four failures after a day ban nobody, the fifth does; the week has counted on meanwhile."""
    fail(context, 5)
    machine.now += DAY
    assert upkeep.expire(context) == 1
    sync(context)
    assert held(context) == []
    assert fail(context, 4).bans == ()
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-1d", "mc-exim-1w"]
    assert known(context, "mc-exim-1d").count == 2


def test_after_unban_the_next_single_failure_bans_nobody(context: Context) -> None:
    """In the same second, too."""
    fail(context, 19)
    unban(context, "mc-exim", [IP])
    assert held(context) == in_force(context) == []
    assert fail(context, 4).bans == ()
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-1d"]


def test_unban_of_one_tier_leaves_what_the_others_counted(context: Context) -> None:
    """Lifted from the day after nine hits: the tenth is the week's."""
    fail(context, 9)
    unban(context, "mc-exim-1d", [IP])
    assert held(context) == []
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-1w"]
    assert fail(context, 3).bans == ()
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-1d"]


def test_the_fourth_ban_is_for_ever(context: Context, machine: Machine) -> None:
    """max_count 3: the next goes to the blacklist, in SQL and kernel, and nothing counts there any more."""
    for n in range(3):
        assert [ban.jail for ban in fail(context, 5).bans][:1] == ["mc-exim-1d"]
        assert known(context, "mc-exim-1d").count == n + 1
        unban(context, "mc-exim", [IP])
        machine.now += 10 * DAY
    (ban,) = fail(context, 5).bans
    assert (ban.jail, ban.until, ban.blacklisted) == ("mc-exim-bl", FOREVER, True)
    assert held(context) == ["mc-exim-bl"]
    assert known(context, "mc-exim-bl").blacklisted
    assert known(context, "mc-exim-1d").count == 3
    before = dump(context)
    assert fail(context, 50).hits == 0
    assert dump(context) == before


def _blacklisted(context: Context) -> None:
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{IP}', 'mc-exim-1d', 0, 3)")
    fail(context, 5)
    assert held(context) == ["mc-exim-bl"]


def test_whom_unban_lets_out_of_the_blacklist_is_not_back_with_the_next_failure(context: Context) -> None:
    """The hits that led there are forgotten; the count stays, so that the next ban leads there again."""
    _blacklisted(context)
    unban(context, "mc-exim-bl", [IP])
    assert fail(context, 4).bans == ()
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-bl"]


def test_blacklist_remove_begins_anew(context: Context) -> None:
    """Count 0: the next ban is the first again."""
    _blacklisted(context)
    blacklist_remove(context, "mc-exim", [IP])
    assert known(context, "mc-exim-1d").count == known(context, "mc-exim-bl").count == 0
    assert held(context) == []
    assert fail(context, 4).bans == ()
    assert [ban.jail for ban in fail(context).bans] == ["mc-exim-1d"]
    assert known(context, "mc-exim-1d").count == 1


def test_a_restart_forgets_nothing(make_context: MakeContext) -> None:
    """Four hits before, one after, from a process that knows SQL only."""
    fail(make_context(), 4)
    again = make_context()
    assert [ban.jail for ban in fail(again).bans] == ["mc-exim-1d"]
    third = make_context()
    sync(third)
    assert held(third) == ["mc-exim-1d"]


def test_a_late_hit_completes_the_ban_of_a_later_one(context: Context) -> None:
    """Two logs read one after the other."""
    record(context, [Hit(NOON - 10, IP, "mc-exim")] * 4)
    (ban,) = record(context, [Hit(NOON - 20, IP, "mc-exim")]).bans
    assert (ban.jail, ban.since) == ("mc-exim-1d", NOON - 10)


def test_a_ban_that_was_over_when_its_log_was_read_is_counted_and_not_enforced(context: Context) -> None:
    """A log of last month: the count rises, nobody is refused for it."""
    done = fail(context, 5, at=NOON - 10 * DAY)
    assert [ban.jail for ban in done.bans] == ["mc-exim-1d"]
    assert held(context) == []
    assert known(context, "mc-exim-1d").count == 1


@pytest.mark.parametrize("at", [-5, 0, 1, NOON + 30])
def test_a_log_with_a_broken_clock_stops_nothing(context: Context, at: int) -> None:
    """1970 and a little in the future are times like others."""
    done = record(context, [Hit(at, IP, "mc-exim")] * 5)
    assert done.hits == 5
    assert [ban.since for ban in done.bans] == [at] * (at >= 0)


def test_hits_kept_are_bounded_and_totals_exact(context: Context, machine: Machine) -> None:
    """An attack of hundreds leaves twenty rows; they go with the longest look-back."""
    for n in range(40):
        record(context, [Hit(NOON + n, ip, "mc-exim") for ip in ("192.0.2.1", "192.0.2.2") for _ in range(5)])
    kept = context.database.read(lambda t: t.hits.of(["192.0.2.1", "192.0.2.2"]))
    assert [len(hits) for hits in kept.values()] == [20, 20]
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 400}
    record(context, [Hit(NOON, IP, "mc-ssh")])
    machine.now += 5_184_000 + 39
    world, _ = upkeep.take_over(context)
    upkeep.Purge().step(context, world)
    assert context.database.read(lambda t: t.hits.kept()) == {}
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 400, "mc-ssh": 1}


def test_hits_of_a_group_that_is_gone_are_dropped_in_their_time(context: Context, machine: Machine) -> None:
    """Not at once: its rows may only be unusable for an hour."""
    fail(context)
    execute(context, "DELETE FROM fail2ban_jail WHERE name LIKE 'mc-exim%'")
    for after, kept in ((1, {"mc-exim": 1}), (5_184_000, {})):
        machine.now += after
        upkeep.Purge().step(context, upkeep.take_over(context)[0])
        assert context.database.read(lambda t: t.hits.kept()) == kept


def test_old_decisions_are_dropped(context: Context, machine: Machine) -> None:
    """After keep_events; younger ones stay to explain a ban."""
    fail(context, 5)
    machine.now += context.config.keep_events
    fail(context, 5, at=NOON + context.config.keep_events)
    machine.now += 1
    upkeep.Purge().step(context, upkeep.take_over(context)[0])
    assert {event.at for event in context.database.read(lambda t: t.events.of(IP, 99))} == {machine.now - 1}


@pytest.mark.parametrize("login", ["'; DROP TABLE fail2ban_ips; --", "\\", "\0", '"', "%s %(x)s :x"])
def test_a_login_name_is_never_sql(context: Context, login: str) -> None:
    """Nor is the name of a group. PostgreSQL keeps a sign for NUL."""
    record(context, [Hit(NOON, IP, "mc-exim", login), Hit(NOON, IP, login)])
    (kept,) = context.database.read(lambda t: t.hits.logins(IP))["mc-exim"]
    assert kept in {login, login.replace("\0", "\N{SYMBOL FOR NULL}")}
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 1}


def test_a_database_that_is_away_is_said_and_nothing_is_lost(context: Context) -> None:
    """The same batch offered again counts once."""
    broken = Database("sqlite:////nowhere/at/all.sqlite")
    away = Context(context.config, broken, context.firewall, context.host)
    with pytest.raises(DatabaseError, match="/nowhere/at/all"):
        record(away, [Hit(NOON, IP, "mc-exim")])
    record(context, [Hit(NOON, IP, "mc-exim")])
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 1}


def _record_many(url: str, node: str, times: int) -> None:
    machine = Machine()
    context = Context(Config(node=node), Database(url), MemoryFirewall(), machine.host())
    for _ in range(times):
        record(context, [Hit(NOON, IP, "mc-exim")], [POSITION])
    context.database.dispose()


def test_nodes_that_record_hits_of_one_address_at_once_count_each_once(context: Context, any_database: str) -> None:
    """As if one node had seen them all: no ban is missed, none comes twice."""
    spawn = multiprocessing.get_context("spawn")
    nodes = [spawn.Process(target=_record_many, args=(any_database, f"n{n}", 10)) for n in range(3)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    assert [node.exitcode for node in nodes] == [0, 0, 0]
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-exim": 30}
    assert in_force(context) == sorted(TIERS)
    assert [known(context, jail).count for jail in TIERS] == [1, 1, 1, 1]
    assert sorted(e.jail for e in context.database.read(lambda t: t.events.of(IP, 99))) == sorted(TIERS)
    assert row(context, "mc-exim-bl") is None
