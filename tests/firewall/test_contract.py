"""What every backend does alike."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Actual, Plan, Rule, Wanted, plan
from mcban.firewall.base import Firewall, Glance, Turnover
from tests.core.test_plan import steps
from tests.firewall.conftest import SLACK, Make

DAY = 86400
EXIM = Ports(((25, 25), (465, 465), (587, 587)))
RULE = Rule(("mc-exim-1d", "mc-exim-bl"), EXIM)


def now() -> int:
    return int(time.time())


def sync(firewall: Firewall, wanted: Wanted) -> Plan:
    """One round, as the service does it."""
    way = plan(wanted, firewall.read(list(wanted.entries)), now(), firewall.longest)
    assert firewall.apply(way, now()) == []
    return way


def left(firewall: Firewall, wanted: Wanted) -> Plan:
    """What would be left to do."""
    return plan(wanted, firewall.read(list(wanted.entries)), now(), firewall.longest)


def full() -> Wanted:
    return Wanted(
        rules={"mc-exim": RULE, "my-jail": Rule(("my-jail",), Ports(()), drop=True)},
        entries={
            "mc-exim-1d": {
                "192.0.2.1": now() + DAY,
                "192.0.2.0/24": now() + 100,
                "2001:db8::1": now() + DAY,
                "2001:db8:2::/48": now() + 10 * DAY,
            },
            "mc-exim-bl": {"198.51.100.7": FOREVER, "2001:db8::bad": FOREVER, "10.0.0.0/8": FOREVER},
            "my-jail": {},
        },
    )


def test_nothing_is_there_and_nothing_is_missing_at_first(firewall: Firewall) -> None:
    """A machine on which mcban never ran is not reported as damaged."""
    assert firewall.read(["mc-exim-1d"]) == Actual()


def test_whether_anything_stands_is_known_without_reading(firewall: Firewall) -> None:
    """From the first rule to the end of all, whatever entries there are."""
    assert not firewall.stands()
    sync(firewall, full())
    assert firewall.stands()
    firewall.remove(list(full().entries))
    assert not firewall.stands()


def test_what_was_applied_is_what_is_read(firewall: Firewall) -> None:
    """Addresses, networks, both families, with and without end: all come back as they went in."""
    wanted = full()
    sync(firewall, wanted)
    actual = firewall.read(list(wanted.entries))
    assert {group: set(rule.jails) for group, rule in actual.rules.items()} == {
        "mc-exim": {"mc-exim-1d", "mc-exim-bl"},
        "my-jail": {"my-jail"},
    }
    for jail, ends in wanted.entries.items():
        assert actual.entries[jail].keys() == ends.keys()
        for entry, end in ends.items():
            assert abs(actual.entries[jail][entry] - end) <= SLACK
    assert actual.missing == ()
    assert left(firewall, wanted).empty


def test_the_same_plan_again_changes_nothing(firewall: Firewall) -> None:
    """Whoever is in doubt may apply once more."""
    wanted = full()
    way = sync(firewall, wanted)
    assert firewall.apply(way, now()) == []
    assert left(firewall, wanted).empty


@pytest.mark.parametrize("end", [300, 2 * DAY, FOREVER])
def test_adding_an_entry_again_moves_its_end(firewall: Firewall, end: int) -> None:
    """A ban made longer, shorter or endless is so in the kernel."""
    moved = end if end == FOREVER else now() + end
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": now() + DAY}}))
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": moved}}))
    assert abs(firewall.read(["a"]).entries["a"]["192.0.2.1"] - moved) <= SLACK


def test_an_endless_ban_can_get_an_end(firewall: Firewall) -> None:
    """Blacklisted by mistake is not for ever."""
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": FOREVER}}))
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": now() + 60}}))
    assert firewall.read(["a"]).entries["a"]["192.0.2.1"] < now() + 100


def test_a_ban_of_a_year_stands_with_the_longest_timeout_there_is(firewall: Firewall) -> None:
    """What is longer than the kernel can count is there, and counts as right."""
    before = now()
    wanted = Wanted({}, {"a": {"192.0.2.1": before + 365 * DAY}})
    sync(firewall, wanted)
    end = firewall.read(["a"]).entries["a"]["192.0.2.1"]
    assert abs(end - before - min(365 * DAY, firewall.longest)) <= SLACK
    assert left(firewall, wanted).empty


def test_a_lifted_network_frees_no_address_that_is_banned_by_itself(firewall: Firewall) -> None:
    """A /24 and a /32 in it are two bans, in either order of lifting."""
    both = {"192.0.2.0/24": FOREVER, "192.0.2.1": FOREVER, "2001:db8::/64": FOREVER, "2001:db8::1": FOREVER}
    sync(firewall, Wanted({}, {"a": both}))
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": FOREVER, "2001:db8::/64": FOREVER}}))
    assert firewall.read(["a"]).entries["a"].keys() == {"192.0.2.1", "2001:db8::/64"}


def test_lifting_what_is_not_banned_is_fine(firewall: Firewall) -> None:
    """An entry that ended meanwhile is no error, and neither is a jail without sets."""
    sync(firewall, Wanted({}, {"a": {"192.0.2.1": FOREVER}}))
    gone = {"192.0.2.9", "192.0.2.0/24", "2001:db8::9"}
    assert firewall.apply(Plan(remove={"a": gone, "nowhere": gone}), now()) == []
    assert firewall.read(["a"]).entries == {"a": {"192.0.2.1": FOREVER}}


def test_a_changed_rule_takes_the_place_of_the_old_one(firewall: Firewall) -> None:
    """Jails, ports and the manner of refusing can be changed, and other groups are not touched by it."""
    wanted = full()
    sync(firewall, wanted)
    changed = Rule(("mc-exim-bl", "my-jail"), Ports(((1, 1024),)), drop=True)
    wanted = Wanted({**wanted.rules, "mc-exim": changed}, wanted.entries)
    assert sync(firewall, wanted) == Plan(rules={"mc-exim": changed})
    assert left(firewall, wanted).empty
    assert changed.does(firewall.read(()).rules["mc-exim"])


def test_a_jail_that_is_not_wanted_leaves_with_its_entries(firewall: Firewall) -> None:
    """A disabled jail, and a removed group, are gone from the kernel; the others stay."""
    wanted = full()
    sync(firewall, wanted)
    less = Wanted(
        {"mc-exim": Rule(("mc-exim-1d",), EXIM)},
        {"mc-exim-1d": wanted.entries["mc-exim-1d"]},
    )
    way = plan(less, firewall.read(list(wanted.entries)), now(), firewall.longest)
    assert (way.drop, way.drop_rules) == (("mc-exim-bl", "my-jail"), ("my-jail",))
    assert firewall.apply(way, now()) == []
    actual = firewall.read(list(wanted.entries))
    assert set(actual.entries) == {"mc-exim-1d"}
    assert set(actual.rules) == {"mc-exim"}
    assert left(firewall, less).empty


def test_a_full_set_refuses_by_name_and_takes_what_it_can(make: Make) -> None:
    """A ban that is not taken is reported, those around it are in force, and what is in can be renewed."""
    firewall = make(3)
    ends = {f"192.0.2.{number}": now() + 100 for number in range(6)}
    six = {f"2001:db8::{number}": now() + 100 for number in (1, 2, 3)}
    refused = firewall.apply(Plan(create=("a",), add={"a": ends | six}), now())
    assert {(r.jail, r.why) for r in refused} == {("a", "the set is full (maxelem 3)")}
    held = firewall.read(["a"]).entries["a"].keys()
    assert {r.entry for r in refused} | held == ends.keys() | six.keys()
    assert (len(refused), len(held)) == (3, 6)
    renewed = {entry: now() + DAY for entry in held}
    assert firewall.apply(Plan(add={"a": renewed}), now()) == []


def test_ten_thousand_of_each_kind_come_back(firewall: Firewall) -> None:
    """Any size is one round, and none is lost between messages."""
    ends = {str(IPv4Address(0x0A000000 + number * 3)): now() + DAY + number for number in range(10_000)}
    ends |= {f"{IPv4Address(0x0B000000 + number * 256)}/24": now() + DAY for number in range(10_000)}
    ends |= {str(IPv6Address((0x20010DB8 << 96) + number + (1 << 64))): FOREVER for number in range(10_000)}
    ends |= {f"{IPv6Address((0x20010DB9 << 96) + (number << 64))}/64": now() + DAY for number in range(10_000)}
    wanted = Wanted({}, {"a": ends})
    sync(firewall, wanted)
    assert firewall.read(["a"]).entries["a"].keys() == ends.keys()
    assert left(firewall, wanted).empty
    sync(firewall, Wanted({}, {"a": {}}))
    assert firewall.read(["a"]).entries["a"] == {}


def test_remove_takes_everything_of_ours_and_does_so_twice(firewall: Firewall) -> None:
    """`stop` leaves nothing behind, and says nothing when there is nothing."""
    wanted = full()
    sync(firewall, wanted)
    firewall.remove(list(wanted.entries))
    actual = firewall.read(list(wanted.entries))
    assert (actual.rules, actual.entries) == ({}, {})
    firewall.remove(list(wanted.entries))
    sync(firewall, wanted)
    assert left(firewall, wanted).empty


def test_after_close_a_backend_can_be_used_again(firewall: Firewall) -> None:
    """Closing gives sockets back and nothing else."""
    wanted = full()
    sync(firewall, wanted)
    firewall.close()
    assert left(firewall, wanted).empty


def test_a_plan_cut_off_after_any_step_is_finished_by_the_next(make: Make) -> None:
    """Whatever instant the engine dies in, the next sync ends where that one would have."""
    firewall = make(1_000_000)
    before = full()
    after = Wanted(
        {"mc-exim": Rule(("mc-exim-1d", "mc-exim-1w"), EXIM), "new": Rule(("new",), Ports(((1, 9),)))},
        {
            "mc-exim-1d": {"192.0.2.1": FOREVER, "2001:db8:3::/48": now() + DAY},
            "mc-exim-1w": {"192.0.2.1": now() + 7 * DAY},
            "new": {},
        },
    )
    names = {*before.entries, *after.entries}
    cut = 0
    while True:
        sync(firewall, before)
        whole = plan(after, firewall.read(names), now(), firewall.longest)
        parts = list(steps(whole))
        for part in parts[:cut]:
            firewall.apply(part, now())
        firewall.apply(plan(after, firewall.read(names), now(), firewall.longest), now())
        assert plan(after, firewall.read(names), now(), firewall.longest).empty
        assert firewall.read(names).entries.keys() == after.entries.keys()
        if cut == len(parts):
            return
        cut += 1
        firewall.remove(names)


def test_a_glance_counts_and_says_that_all_is_whole(firewall: Firewall) -> None:
    """Between two syncs it is enough to count, both families together; a process that never looked has to look."""
    wanted = full()
    sync(firewall, wanted)
    firewall.read(list(wanted.entries))
    counts = {jail: len(ends) for jail, ends in wanted.entries.items()}
    assert firewall.glance(list(wanted.entries)) == Glance(True, counts)
    firewall.apply(Plan(add={"my-jail": {"192.0.2.77": FOREVER}}, remove={"mc-exim-bl": {"10.0.0.0/8"}}), now())
    counts |= {"my-jail": 1, "mc-exim-bl": 2}
    assert firewall.glance(()) == Glance(True, counts)
    changed = Plan(("new",), {"new": {"2001:db8::1": FOREVER}}, {"new": Rule(("new",), EXIM)}, ("my-jail",), {})
    firewall.apply(changed, now())
    assert firewall.glance(()) == Glance(True, counts | {"new": 1})
    firewall.apply(Plan(drop_rules=("new",), drop=("new", "my-jail")), now())
    del counts["my-jail"]
    assert firewall.glance(()) == Glance(True, counts)
    firewall.remove(list(wanted.entries))
    assert firewall.glance(["a"]).counts == {}


def test_turnover_tells_each_entry_that_came_or_went_once(firewall: Firewall) -> None:
    """At first all of them are new; an address, a network, either family; a jail without sets cannot be told of."""
    wanted = full()
    sync(firewall, wanted)
    firewall.read(list(wanted.entries))
    for jail, ends in wanted.entries.items():
        assert firewall.turnover(jail) == Turnover(ends.keys(), set())
        assert firewall.turnover(jail) == Turnover()
    firewall.apply(
        Plan(
            add={"mc-exim-bl": {"192.0.2.77": FOREVER, "2001:db8:9::/48": FOREVER}},
            remove={"mc-exim-bl": {"10.0.0.0/8", "2001:db8::bad"}},
        ),
        now(),
    )
    firewall.read(list(wanted.entries))
    came, went = {"192.0.2.77", "2001:db8:9::/48"}, {"10.0.0.0/8", "2001:db8::bad"}
    assert firewall.turnover("mc-exim-bl") == Turnover(came, went)
    assert firewall.turnover("mc-exim-bl") == firewall.turnover("mc-exim-1d") == Turnover()
    assert firewall.turnover("nowhere") is None
    firewall.apply(Plan(drop_rules=("my-jail",), drop=("my-jail",)), now())
    assert firewall.turnover("my-jail") is None


ADDRESSES = (
    "192.0.2.1",
    "192.0.2.0/24",
    "192.0.2.0/28",
    "192.0.0.0/16",
    "2001:db8::1",
    "2001:db8::/64",
    "2001:db8::/32",
)
some_ends = st.dictionaries(st.sampled_from(ADDRESSES), st.sampled_from([DAY, 7 * DAY, FOREVER]))
some_entries = st.dictionaries(st.sampled_from(["mc-exim-1d", "mc-exim-bl", "my-jail"]), some_ends)
some_rules = st.dictionaries(
    st.sampled_from(["mc-exim", "my-jail"]), st.tuples(st.sampled_from([EXIM, Ports(())]), st.booleans())
)


def aim(entries: dict[str, dict[str, int]], rules: dict[str, tuple[Ports, bool]]) -> Wanted:
    """What is wanted, with ends from now on, and rules over all the jails that there are."""
    at = now()
    ends = {jail: {e: min(FOREVER, at + end) for e, end in some.items()} for jail, some in entries.items()}
    jails = tuple(entries)
    return Wanted({g: Rule(jails, ports, drop) for g, (ports, drop) in rules.items()} if jails else {}, ends)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_entries, some_rules, some_entries, some_rules, st.integers(0, 30))
def test_any_plan_cut_off_anywhere_converges(
    make: Make,
    before: dict[str, dict[str, int]],
    old: dict[str, tuple[Ports, bool]],
    after: dict[str, dict[str, int]],
    new: dict[str, tuple[Ports, bool]],
    cut: int,
) -> None:
    """From any state to any other, the kernel's too, and overlapping networks are no exception."""
    firewall = make(1_000_000)
    names = ["mc-exim-1d", "mc-exim-bl", "my-jail"]
    firewall.remove(names)
    sync(firewall, aim(before, old))
    wanted = aim(after, new)
    for part in list(steps(plan(wanted, firewall.read(names), now(), firewall.longest)))[:cut]:
        firewall.apply(part, now())
    again = plan(wanted, firewall.read(names), now(), firewall.longest)
    assert firewall.apply(again, now()) == []
    assert plan(wanted, firewall.read(names), now(), firewall.longest).empty
    assert firewall.apply(again, now()) == []
    assert plan(wanted, firewall.read(names), now(), firewall.longest).empty
    held = firewall.read(names)
    assert {jail: ends.keys() for jail, ends in held.entries.items()} == {
        j: e.keys() for j, e in wanted.entries.items()
    }
    assert held.rules.keys() == wanted.rules.keys()
    firewall.close()
