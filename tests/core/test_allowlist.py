"""What is never banned, against a list that is walked from end to end."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from mcban.core.address import covers, parse_network
from mcban.core.allowlist import EVERYWHERE, Allowance, AllowList
from mcban.core.model import Jail, Kind
from tests.core.model import blacklist, jail

DAY, WEEK, BLACK, OTHER = jail("g-1d"), jail("g-1w"), blacklist(), jail("other", group="other", kind=Kind.CUSTOM)

# Few addresses, so that networks of all sizes meet.
small = st.one_of(
    st.tuples(st.integers(0, 7), st.integers(28, 32)).map(lambda p: parse_network(f"192.0.2.{p[0]}/{p[1]}")),
    st.tuples(st.integers(0, 7), st.integers(124, 128)).map(lambda p: parse_network(f"2001:db8::{p[0]}/{p[1]}")),
    st.sampled_from(["0.0.0.0/0", "::/0", "192.0.0.0/8"]),
)
scopes = st.sampled_from([EVERYWHERE, "g", "g-1d", "g-bl", "other"])
allowances = st.lists(st.builds(Allowance, small, scopes, st.just("why"), st.booleans()), max_size=6)
jails = st.sampled_from([DAY, WEEK, BLACK, OTHER])


def network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """For arithmetic."""
    return ipaddress.ip_network(entry)


def applying(made: list[Allowance], member: Jail, protected: bool) -> list[Allowance]:
    """Those that speak of a jail."""
    where = {EVERYWHERE, member.group, member.name}
    return [a for a in made if a.scope in where and (protected or not a.protected)]


@given(allowances, small, jails, st.booleans())
def test_an_address_is_allowed_when_an_allowance_for_its_jail_covers_it(
    made: list[Allowance], entry: str, member: Jail, protected: bool
) -> None:
    """In this jail, its group or everywhere; by itself or by a network around it."""
    found = AllowList(made).covering(entry, member, protected=protected)
    one = network(entry)
    matching = [a for a in applying(made, member, protected) if covers(network(a.entry), one)]
    assert (found is None) == (not matching)
    assert found is None or found in matching


@given(allowances, small, jails, st.booleans())
def test_a_network_is_touched_by_what_lies_in_it_and_what_lies_around_it(
    made: list[Allowance], entry: str, member: Jail, protected: bool
) -> None:
    """A ban of a network that holds one allowed address would refuse that address too."""
    found = AllowList(made).touching(entry, member, protected=protected)
    matching = [a for a in applying(made, member, protected) if network(a.entry).overlaps(network(entry))]
    assert (found is None) == (not matching)
    assert found is None or found in matching


def test_force_passes_over_what_is_protected_and_never_over_a_whitelist() -> None:
    """The protected one found first does not hide the other."""
    both = AllowList([Allowance("192.0.2.1", "*", "gateway", True), Allowance("192.0.2.0/24", "g", "whitelisted")])
    found = both.covering("192.0.2.1", DAY, protected=False)
    assert found is not None
    assert found.why == "whitelisted"
    assert both.covering("192.0.2.1", OTHER, protected=False) is None


def test_what_allows_the_same_is_the_same() -> None:
    """A list read anew from unchanged settings is no change, in whatever order it was read; another reason is one."""
    some = [Allowance("192.0.2.1", EVERYWHERE, "ignoreip"), Allowance("192.0.2.0/24", "mc-exim", "whitelisted")]
    assert AllowList(some) == AllowList(reversed(some))
    assert hash(AllowList(some)) == hash(AllowList(reversed(some)))
    assert AllowList(some) != AllowList([some[0], Allowance("192.0.2.0/24", "mc-ssh", "whitelisted")])
    assert AllowList(some) != AllowList(some[:1])


@given(allowances, small, jails)
def test_whoever_is_allowed_anywhere_is_mentioned(made: list[Allowance], entry: str, member: Jail) -> None:
    """The quick question never misses an allowance: who is not mentioned is covered in no jail."""
    known = AllowList(made)
    if known.covering(entry, member) is not None:
        assert known.mentions(entry)
