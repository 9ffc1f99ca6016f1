"""Judging while SQL is away: the same ladder, nobody who is allowed, a bounded memory."""

from __future__ import annotations

import pytest

from mcban.core.model import FOREVER, Hit
from mcban.core.plan import Plan
from mcban.service import provisional
from mcban.service.allow import allow
from mcban.service.context import Context
from mcban.service.known import Known, ask
from mcban.service.provisional import Provisional
from tests.conftest import Machine, MakeContext
from tests.service.desk import IP, NOON, TIERS, fail, held


def hits(times: int, ip: str = IP, group: str = "mc-exim") -> list[Hit]:
    """So many failures of an address."""
    return [Hit(NOON, ip, group)] * times


def test_the_ladder_is_the_one_that_sql_has(context: Context) -> None:
    """Twenty hits: the four tiers, at the same thresholds and until the same ends, and in the kernel."""
    judgement = Provisional(context, ask(context))
    bans = judgement.take(hits(20))
    judgement.enforce(bans)
    assert ([ban.jail for ban in bans], held(context)) == (list(TIERS), sorted(TIERS))
    recorded = fail(context, 20)
    assert [(ban.jail, ban.since, ban.until) for ban in bans] == [(b.jail, b.since, b.until) for b in recorded.bans]


def test_hits_that_were_counted_before_are_not_forgotten(context: Context) -> None:
    """Four that SQL counted and one since: the fifth bans, and what the four had led to does not come again."""
    fail(context, 4)
    judgement = Provisional(context, ask(context))
    judgement.learn(hits(4))
    assert [ban.jail for ban in judgement.take(hits(1))] == ["mc-exim-1d"]


def test_a_running_ban_is_none_of_its_business(context: Context) -> None:
    """Who is banned already is not banned again, but climbs on."""
    fail(context, 5)
    judgement = Provisional(context, ask(context))
    judgement.learn(hits(5))
    assert [ban.jail for ban in judgement.take(hits(5))] == ["mc-exim-1w"]


def test_nobody_who_is_allowed_is_banned(make_context: MakeContext, machine: Machine) -> None:
    """By SQL, by settings, or protected, be it only since SQL went."""
    context = make_context(ignoreip=("203.0.113.8",))
    allow(context, "mc-exim", ["203.0.113.7"])
    judgement = Provisional(context, ask(context))
    machine.protected = {"203.0.113.9": "an address of this host"}
    assert judgement.take([hit for n in (7, 8, 9) for hit in hits(20, f"203.0.113.{n}")]) == []
    assert {ban.ip for ban in judgement.take(hits(20, "203.0.113.7", "mc-webauth"))} == {"203.0.113.7"}


def test_old_hits_do_not_ban_today(context: Context, machine: Machine) -> None:
    """A ban that would be over by now is none."""
    judgement = Provisional(context, ask(context))
    machine.now = NOON + 10 * 86_400
    assert [ban.jail for ban in judgement.take(hits(10))] == []


def test_memory_is_bounded(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more addresses than fit, those that were quiet for longest begin anew."""
    monkeypatch.setattr(provisional, "MOST", 10)
    judgement = Provisional(context, ask(context))
    for n in range(100):
        judgement.take(hits(4, f"203.0.113.{n}"))
    assert len(judgement._records) == 10
    assert [ban.ip for ban in judgement.take([*hits(1, "203.0.113.99"), *hits(1, "203.0.113.1")])] == ["203.0.113.99"]


def test_what_the_kernel_should_hold_is_what_is_known_and_what_came_since(context: Context) -> None:
    """For whoever flushes it."""
    fail(context, 5)
    known: Known = ask(context)
    judgement = Provisional(context, known)
    judgement.enforce(judgement.take(hits(5, "203.0.113.8")))
    assert judgement.aim().wanted.entries["mc-exim-1d"].keys() == {IP, "203.0.113.8"}
    assert known.ends()["mc-exim-1d"].keys() == {IP}


def test_what_sql_says_meanwhile_holds(context: Context) -> None:
    """Of whom it lets in nothing is remembered, so that the next failure bans nobody; whom it bans is held, and climbs
    on."""
    judgement = Provisional(context, ask(context))
    judgement.enforce(judgement.take(hits(5)))
    judgement.note(Plan(add={"mc-exim-1d": {"203.0.113.8": FOREVER}}, remove={"mc-exim-1d": {IP}}))
    assert judgement.aim().wanted.entries["mc-exim-1d"] == {"203.0.113.8": FOREVER}
    assert judgement.take(hits(4)) == []
    assert [ban.jail for ban in judgement.take(hits(1))] == ["mc-exim-1d"]
    assert [ban.jail for ban in judgement.take(hits(10, "203.0.113.8"))] == ["mc-exim-1w"]


def test_bans_that_ended_are_forgotten_however_long_it_takes(context: Context, machine: Machine) -> None:
    """An outage of weeks holds the bans that run, and of those that ended a bounded number."""
    judgement = Provisional(context, ask(context))
    for day in range(40):
        machine.now = NOON + day * 86_400
        attackers = [f"10.0.{day}.{n}" for n in range(100)]
        failures = [Hit(context.now, ip, "mc-exim") for ip in attackers for _ in range(5)]
        judgement.enforce(judgement.take(failures))
        assert judgement.bans["mc-exim-1d"].keys() >= set(attackers)
    assert sum(map(len, judgement.bans.values())) <= provisional.ENDED + 100
    assert set(attackers) <= judgement.aim().wanted.entries["mc-exim-1d"].keys()
