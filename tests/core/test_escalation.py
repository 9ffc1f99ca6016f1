"""The ladder climbs exactly as the specification's "Counting" says: compared with a model that forgets nothing."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.core.escalation import (
    COUNTED,
    NOT_COUNTED,
    Allowed,
    Record,
    Standing,
    Verdict,
    hits_counted,
    judge,
    judge_all,
    nobody,
)
from mcban.core.ladder import SHIPPED, Shipped, generate, tier_name
from mcban.core.model import FOREVER, Group, Hit, Jail, Kind, number_of, time_of
from tests.core.model import IP, Model, Step, blacklist, groups, jail, lift, lives, names, toggled


def shipped(group: Shipped, **other: Any) -> Group:
    """A shipped group as the migration makes it."""
    tiers = tuple(
        jail(tier_name(group.name, s.suffix), s.maxretry, s.findtime, s.bantime, group=group.name, **other)
        for s in generate(group.hits)
    )
    black = jail(f"{group.name}-bl", 0, 0, -1, group=group.name, kind=Kind.BLACKLIST)
    return Group(group.name, tiers, black)


def run(group: Group, times: list[int], record: Record | None = None, first: int = 1) -> list[Verdict]:
    """The verdicts on hits at `times`, one after the other."""
    record = record if record is not None else Record()
    return [judge(group, record, Hit(at, IP, group.name), n) for n, at in enumerate(times, first)]


def banned(verdicts: list[Verdict]) -> list[tuple[int, str]]:
    """(the hit's place from 1, jail) of every ban."""
    return [(place, ban.jail) for place, verdict in enumerate(verdicts, 1) for ban in verdict.bans]


def listed(those: Collection[str]) -> Allowed:
    """Allowed in the jails of these names."""
    return lambda jail: jail.name in those


EXIM = shipped(next(group for group in SHIPPED if group.name == "mc-exim"))


@settings(max_examples=200)
@given(groups(), lives())
def test_bans_are_those_of_a_model_that_keeps_every_hit(group: Group, life: list[Step]) -> None:
    """Whatever the ladder, the gaps, the liftings and what is disabled or allowed between: the same bans at the same
    times with the same counts and promotions, and the same hits counted towards the next one."""
    record, model = Record(), Model()
    at = 1_000_000
    for number, step in enumerate(life, 1):
        at += step.after
        group = toggled(group, step.toggles)
        for name in names(group, step.lifts):
            lift(record, name, number - 1)
            model.lift(name, number - 1)
        allowed = names(group, step.allowed)
        verdict = judge(group, record, Hit(at, IP, "g"), number, listed(allowed))
        expected = model.hit(group, at, number, allowed)
        assert [(b.jail, b.since, b.until, b.count) for b in verdict.bans] == expected
        assert [b.blacklisted for b in verdict.bans] == [name == "g-bl" for name, *_ in expected]
        for tier in group.tiers:
            assert min(hits_counted(tier, record, at), tier.maxretry) == min(model.counted(tier, at), tier.maxretry)


BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.integers(-1, 12)), max_size=25),
        st.sampled_from([frozenset(), frozenset(), frozenset({0}), frozenset({1, 2})]),  # jails switched before it
        st.sampled_from([frozenset(), frozenset(), frozenset({0}), frozenset({0, 1, 2, 3})]),  # where one is allowed
    ),
    max_size=5,
)


@settings(max_examples=200)
@given(groups(), BATCHES)
def test_a_batch_is_judged_as_its_hits_are_one_by_one(
    group: Group, batches: list[tuple[list[tuple[str, int]], frozenset[int], frozenset[int]]]
) -> None:
    """Hits of several addresses, now and then late, with jails switched and somebody allowed between two batches."""
    alone, together = {f"192.0.2.{n}": Record() for n in (1, 2)}, {f"192.0.2.{n}": Record() for n in (1, 2)}
    at, first = 1_000_000, 1
    for steps, toggles, places in batches:
        group = toggled(group, toggles)
        those = names(group, places)
        allowed = {"192.0.2.1": listed(those)} if those else {}
        hits = [Hit(at := at + gap, ip, "g") for ip, gap in steps]
        told = dict(judge_all(group, together, hits, first, allowed))
        for number, hit in enumerate(hits, first):
            verdict = judge(group, alone[hit.ip], hit, number, allowed.get(hit.ip, nobody))
            assert told.pop(number, COUNTED) == verdict
        assert not told
        assert together == alone
        first += len(hits)


def test_a_late_hit_of_a_time_in_which_the_blacklist_held_counts_for_nobody() -> None:
    """Also when another came before it that was not counted, since its address was allowed then."""
    black = EXIM.jails[-1].name
    record = Record(standings={black: Standing(until=1_000)})
    judge_all(EXIM, {IP: record}, [Hit(1_001, IP, "mc-exim")], 1, {IP: lambda _: True})
    assert judge_all(EXIM, {IP: record}, [Hit(999, IP, "mc-exim")], 2, {}) == [(2, NOT_COUNTED)]


def test_a_hit_that_is_still_to_come_counts_from_its_moment_on() -> None:
    """A log whose clock is ahead: the hit counts when its time has come, for as long as the tier looks back."""
    record = Record()
    run(EXIM, [1_000_000], record)
    day = EXIM.tiers[0]
    counted = [hits_counted(day, record, 1_000_000 + late) for late in (-1, 0, day.findtime - 1, day.findtime)]
    assert counted == [0, 1, 1, 0]


@given(groups(), lives())
def test_no_more_hits_are_kept_than_a_tier_can_ask_for(group: Group, life: list[Step]) -> None:
    """At most the highest maxretry of hits, none older than the longest look-back; what is dropped is said once."""
    record, at = Record(), 1_000_000
    dropped: set[int] = set()
    for number, step in enumerate(life, 1):
        at += step.after
        verdict = judge(group, record, Hit(at, IP, "g"), number)
        assert not dropped & set(verdict.dropped)
        dropped |= set(verdict.dropped)
        if not verdict.counted:
            continue
        assert len(record.hits) <= group.most_hits
        assert all(at - group.longest_look_back < when <= at for when in map(time_of, record.hits))
        assert not dropped & set(map(number_of, record.hits))


@given(groups(), st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_a_ban_has_its_hits_inside_its_look_back_also_when_they_arrive_in_disorder(
    group: Group, times: list[int]
) -> None:
    """No ban without maxretry hits in (t - findtime, t], t being its beginning, whatever the order of arrival."""
    record = Record()
    tiers = {tier.name: tier for tier in group.tiers}
    for number, at in enumerate(times, 1):
        for ban in judge(group, record, Hit(at, IP, "g"), number).bans:
            if ban.jail in tiers:
                tier = tiers[ban.jail]
                within = [when for when in times[:number] if ban.since - tier.findtime < when <= ban.since]
                assert len(within) >= tier.maxretry
                assert ban.since in within
                assert at <= ban.since


@given(groups(), st.lists(st.integers(0, 60), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_who_would_have_been_banned_in_order_is_banned_in_any_order(
    group: Group, times: list[int], random: Random
) -> None:
    """Two logs read one after the other ban whom one log with the same lines bans, as long as nothing was pruned."""
    for tier in group.tiers:
        wide = jail("g-wide", 99, 1000, enabled=False)  # keeps every hit
        alone = Group("g", (tier, wide), None)
        shuffled = list(times)
        random.shuffle(shuffled)
        in_order = [b for v in run(alone, sorted(times)) for b in v.bans]
        in_disorder = [b for v in run(alone, shuffled) for b in v.bans]
        assert bool(in_order) == bool(in_disorder)
        if in_order:
            assert min(b.since for b in in_disorder) >= in_order[0].since


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.permutations(range(3)))
def test_the_last_hit_to_arrive_bans_as_if_all_had_come_in_order(times: list[int], order: list[int]) -> None:
    """With exactly maxretry hits in the window the ban is the same one, from the same second, in every order."""
    group = Group("g", (jail("g-1d", 3, 10, 20),), None)
    (ban,) = run(group, [times[place] for place in order])[-1].bans
    assert (ban.since, ban.until) == (max(times), max(times) + 20)


def test_a_second_log_read_after_the_first_leads_to_the_same_bans() -> None:
    """Four failures in one log and one in another, of the time between: a ban from the last of the five on."""
    late = run(EXIM, [100, 110, 120, 130, 105])
    assert [(b.jail, b.since) for b in late[-1].bans] == [("mc-exim-1d", 130)]
    assert not any(v.bans for v in late[:-1])


def test_a_burst_of_twenty_hits_bans_once_in_each_tier() -> None:
    """In mc-exim after 5, 10, 15 and 20 hits, though all are of one second."""
    assert banned(run(EXIM, [1000] * 20)) == [
        (5, "mc-exim-1d"),
        (10, "mc-exim-1w"),
        (15, "mc-exim-1m"),
        (20, "mc-exim-1y"),
    ]
    assert banned(run(EXIM, [1000] * 200)) == banned(run(EXIM, [1000] * 20))


def test_a_high_maxretry_is_judged_in_reasonable_time() -> None:
    """Thousands of hits of one second, none of them enough: an attacker chooses how many there are."""
    group = Group("g", (jail("g-1d", 3000),), None)
    assert banned(run(group, [1000] * 3000)) == [(3000, "g-1d")]


@pytest.mark.parametrize("group", SHIPPED, ids=lambda group: group.name)
def test_each_tier_fires_at_its_number_of_hits_and_not_one_earlier(group: Shipped) -> None:
    """Tier by tier, the others disabled, the hits as far apart as the tier allows and then one second further."""
    made = shipped(group)
    for tier in made.tiers:
        only = Group(made.name, tuple(t if t is tier else jail(t.name, enabled=False) for t in made.tiers), None)
        n, window = tier.maxretry, tier.findtime
        spread = [1_000_000, *[1_000_000 + window - 1] * (n - 1)]
        assert banned(run(only, spread)) == [(n, tier.name)]
        assert banned(run(only, [1_000_000, *[1_000_000 + window] * (n - 1)])) == []


def test_a_ban_lasts_as_long_as_its_tier_says() -> None:
    """A day, a week, thirty days, a year of 365 days, from the hit that reached the threshold."""
    bans = [ban for verdict in run(EXIM, [1000] * 20) for ban in verdict.bans]
    assert [ban.until - ban.since for ban in bans] == [86_400, 604_800, 2_592_000, 31_536_000]


def test_a_tier_counts_from_zero_when_its_ban_has_ended() -> None:
    """The hits before the end are not counted again, those from its second on are."""
    group = Group("g", (jail("g-1d", 2, 100, 10),), None)
    assert banned(run(group, [0, 0, 5, 9, 10, 11])) == [(2, "g-1d"), (6, "g-1d")]


def test_the_next_single_failure_after_a_lifting_bans_nobody() -> None:
    """A ban lifted by hand lets the tier count from zero, also within the same second."""
    record = Record()
    run(EXIM, [50] * 5, record)
    lift(record, "mc-exim-1d", 5)
    assert banned(run(EXIM, [50] * 4, record, 6)) == []
    assert banned(run(EXIM, [50], record, 10)) == [(1, "mc-exim-1d"), (1, "mc-exim-1w")]


@pytest.mark.parametrize(("max_count", "place"), [(1, 2), (2, 3), (3, 4)])
def test_the_ban_after_max_count_bans_is_for_ever(max_count: int, place: int) -> None:
    """With max_count 3 the fourth ban goes to the blacklist; the tier's own count stays."""
    group = Group("g", (jail("g-1d", 1, 10, 5, max_count=max_count),), blacklist())
    record = Record()
    bans = [ban for verdict in run(group, [n * 10 for n in range(6)], record) for ban in verdict.bans]
    assert [ban.jail for ban in bans] == ["g-1d"] * (place - 1) + ["g-bl"]
    assert (bans[-1].until, bans[-1].blacklisted, bans[-1].count) == (FOREVER, True, 1)
    assert record.standing("g-1d").count == max_count


@pytest.mark.parametrize("max_count", [0, -1])
def test_without_max_count_nobody_is_promoted(max_count: int) -> None:
    """0 and -1 switch promotion off."""
    group = Group("g", (jail("g-1d", 1, 10, 5, max_count=max_count),), blacklist())
    assert {name for _, name in banned(run(group, [n * 10 for n in range(9)]))} == {"g-1d"}


def test_whom_the_blacklist_holds_is_not_counted() -> None:
    """Nor is the table of hits filled by those that come through before the kernel refuses them."""
    record = Record()
    record.standing("g-bl").until = FOREVER
    group = Group("g", (jail("g-1d", 1),), blacklist())
    assert run(group, [1, 2, 3], record) == [Verdict(counted=False)] * 3
    assert not record.hits
    assert banned(run(Group("g", group.tiers, blacklist(enabled=False)), [4], record)) == [(1, "g-1d")]


def test_an_allowed_address_is_not_counted() -> None:
    """Allowed in all tiers: no count at all. Allowed in one: the others go on."""
    group = Group("g", (jail("g-1d", 1), jail("g-1w", 2)), blacklist())

    def one(member: Jail) -> bool:
        return member.name == "g-1d"

    record = Record()
    assert not judge(group, record, Hit(1, IP, "g"), 1, lambda _: True).counted
    assert not record.hits
    verdicts = [judge(group, record, Hit(1, IP, "g"), n, one) for n in (1, 2)]
    assert banned(verdicts) == [(2, "g-1w")]


def test_an_address_allowed_in_the_blacklist_is_never_promoted() -> None:
    """Its bans go on in the tier."""
    group = Group("g", (jail("g-1d", 1, 10, 5, max_count=1),), blacklist())
    record = Record()
    got = [
        ban.jail
        for n in range(4)
        for ban in judge(group, record, Hit(n * 10, IP, "g"), n + 1, lambda j: j.kind is Kind.BLACKLIST).bans
    ]
    assert got == ["g-1d"] * 4
