"""The only diff there is: whatever happens while a plan is carried out, planning again finishes it."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import CLOCK_SLACK, Actual, Missing, Plan, Rule, Wanted, plan, settled, timeout
from mcban.firewall.memory import MemoryFirewall

NOW = 1_800_000_000
LONGEST = 1000

jails = st.sampled_from(["mc-exim-1d", "mc-exim-1w", "mc-exim-bl", "my-jail", "other"])
entries = st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.0/24", "2001:db8::1", "2001:db8::/64"])
ends = st.one_of(st.integers(NOW - 10, NOW + 3 * LONGEST), st.sampled_from([NOW, NOW + 1, FOREVER]))
held = st.dictionaries(jails, st.dictionaries(entries, ends))
ports = st.sampled_from([Ports(()), Ports(((22, 22),)), Ports(((25, 25), (465, 587)))])
rules = st.dictionaries(
    st.sampled_from(["mc-exim", "my-jail", "other"]),
    st.builds(Rule, st.lists(jails, unique=True).map(tuple), ports, st.booleans()),
)
wanteds = st.builds(Wanted, rules, held)


def kernel(before: Wanted) -> MemoryFirewall:
    """A kernel that holds something, with a limit on timeouts."""
    firewall = MemoryFirewall(LONGEST)
    firewall.entries = {jail: dict(ends) for jail, ends in before.entries.items()}
    firewall.rules = dict(before.rules)
    return firewall


def steps(whole: Plan) -> Iterator[Plan]:
    """A plan as the smallest steps in which it can be carried out."""
    for jail in whole.create:
        yield Plan(create=(jail,))
    for jail, ends in whole.add.items():
        for entry, end in ends.items():
            yield Plan(add={jail: {entry: end}})
    for group, rule in whole.rules.items():
        yield Plan(rules={group: rule})
    for group in whole.drop_rules:
        yield Plan(drop_rules=(group,))
    for jail, gone in whole.remove.items():
        for entry in gone:
            yield Plan(remove={jail: {entry}})
    for jail in whole.drop:
        yield Plan(drop=(jail,))


def converged(firewall: MemoryFirewall, wanted: Wanted) -> bool:
    """Whether the kernel holds what is wanted and nothing else."""
    running = {jail: {entry: end for entry, end in ends.items() if end > NOW} for jail, ends in wanted.entries.items()}
    return (
        {jail: set(ends) for jail, ends in firewall.entries.items()} == {jail: set(e) for jail, e in running.items()}
        and all(
            settled(end, firewall.entries[jail][entry], NOW, LONGEST)
            for jail, ends in running.items()
            for entry, end in ends.items()
        )
        and firewall.rules.keys() == wanted.rules.keys()
        and all(rule.does(firewall.rules[group]) for group, rule in wanted.rules.items())
    )


@given(wanteds, wanteds, st.integers(0, 60))
def test_a_plan_cut_off_anywhere_and_planned_again_converges(before: Wanted, wanted: Wanted, cut: int) -> None:
    """A crash in the middle of a sync costs nothing: the next sync ends where the first would have."""
    firewall = kernel(before)
    for step in list(steps(plan(wanted, firewall.read(()), NOW, LONGEST)))[:cut]:
        firewall.apply(step, NOW)
    firewall.apply(plan(wanted, firewall.read(()), NOW, LONGEST), NOW)
    assert converged(firewall, wanted)
    assert plan(wanted, firewall.read(()), NOW, LONGEST).empty


@given(wanteds, wanteds)
def test_applying_a_plan_twice_changes_nothing(before: Wanted, wanted: Wanted) -> None:
    """A plan may be carried out again after a doubt."""
    firewall = kernel(before)
    way = plan(wanted, firewall.read(()), NOW, LONGEST)
    firewall.apply(way, NOW)
    once = firewall.read(())
    firewall.apply(way, NOW)
    assert firewall.read(()) == once


@given(wanteds, wanteds)
def test_a_wanted_entry_that_is_there_never_leaves(before: Wanted, wanted: Wanted) -> None:
    """There is no moment of a sync in which someone who is rightly banned is let in."""
    firewall = kernel(before)
    kept = {
        (jail, entry)
        for jail, ends in wanted.entries.items()
        for entry, end in ends.items()
        if end > NOW and entry in before.entries.get(jail, {})
    }
    for step in steps(plan(wanted, firewall.read(()), NOW, LONGEST)):
        firewall.apply(step, NOW)
        assert kept <= {(jail, entry) for jail, ends in firewall.entries.items() for entry in ends}


@given(wanteds, wanteds)
def test_nothing_outlives_its_ban(before: Wanted, wanted: Wanted) -> None:
    """No entry that a plan adds ends later in the kernel than in SQL, and none that it leaves there by more than the
    clocks may differ."""
    firewall = kernel(before)
    way = plan(wanted, firewall.read(()), NOW, LONGEST)
    firewall.apply(way, NOW)
    for jail, ends in firewall.entries.items():
        for entry, end in ends.items():
            slack = 0 if entry in way.add.get(jail, ()) else CLOCK_SLACK
            assert end <= wanted.entries[jail][entry] + slack


@given(wanteds, st.integers(0, 4 * LONGEST))
def test_with_a_sync_each_now_and_then_no_running_ban_ends_early(wanted: Wanted, later: int) -> None:
    """A ban longer than the kernel's longest timeout is renewed in time, as long as anyone syncs."""
    firewall = MemoryFirewall(LONGEST)
    every = LONGEST // 4
    for now in range(NOW, NOW + later, every):
        firewall.apply(plan(wanted, firewall.read(()), now, LONGEST), now)
        for jail, ends in wanted.entries.items():
            for entry, end in ends.items():
                if end > now:
                    assert firewall.entries[jail][entry] >= min(end - 3, now + every)


def test_damage_that_nobody_wants_any_more_is_taken_away() -> None:
    """A half-built jail or an altered rule of a jail that was removed does not stay behind."""
    way = plan(Wanted(), Actual(broken_rules={"old"}, broken_sets={"old-1d"}), NOW, LONGEST)
    assert way == Plan(drop_rules=("old",), drop=("old-1d",))


def test_damage_to_what_is_wanted_is_mended() -> None:
    """A half-built jail is made whole, an altered rule is put back."""
    rule = Rule(("a",), Ports(()))
    way = plan(Wanted({"a": rule}, {"a": {}}), Actual(broken_rules={"a"}, broken_sets={"a"}), NOW, LONGEST)
    assert way == Plan(create=("a",), rules={"a": rule})


def test_the_order_of_jails_in_a_rule_is_no_difference() -> None:
    """The kernel's lists have no order, so none is compared."""
    ports = Ports(((22, 22),))
    way = plan(Wanted({"g": Rule(("a", "b"), ports)}), Actual({"g": Rule(("b", "a"), ports)}), NOW, LONGEST)
    assert way.empty


def test_a_plan_reads_as_what_it_would_do() -> None:
    """`sync --check` shows one line for each thing to do."""
    way = Plan(
        create=("a",),
        add={"a": {"192.0.2.1": FOREVER}},
        rules={"a": Rule(("a",), Ports(((22, 22), (80, 90))))},
        drop_rules=("b",),
        remove={"c": {"192.0.2.2"}},
        drop=("b",),
    )
    assert way.lines() == [
        "create set a",
        "add 1 to a",
        "set rule a: a on ports 22,80:90",
        "drop rule b",
        "remove 1 from c",
        "drop set b",
    ]
    assert (way.additions, way.empty, Plan().empty) == (1, False, True)


def test_timeouts_are_seconds_within_the_kernels_limit() -> None:
    """For ever is 0, too long is the longest, and what is about to end gets a second."""
    assert [timeout(end, NOW, LONGEST) for end in (FOREVER, NOW + 5000, NOW + 7, NOW)] == [0, LONGEST, 7, 1]


def test_what_nobody_wants_any_more_is_missed_by_nobody() -> None:
    """Sets and rules that a command took down are no damage; those that somebody wants are, and so is a chain."""
    chain, mine = Missing("the chain is gone"), Missing("set a is gone", jail="a")
    rule, old = Missing("the rule of g is gone", group="g"), Missing("the rule of old is gone", group="old")
    actual = Actual(missing=(chain, mine, Missing("set b is gone", jail="b"), rule, old))
    wanted = Wanted({"g": Rule(("a",), Ports(((25, 25),)))}, {"a": {}})
    assert actual.missed(wanted) == (chain.said, mine.said, rule.said)
