"""A group may count and ban IPv6 attackers by network: together in SQL and kernel, and nobody allowed with them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.allowlist import EVERYWHERE, Allowance, AllowList
from mcban.core.escalation import counted_for, network_of, was_counted
from mcban.core.model import FOREVER, Group, Hit
from mcban.service import upkeep
from mcban.service.allow import allow, disallow
from mcban.service.bans import ban, blacklist_remove, unban
from mcban.service.context import Context
from mcban.service.jail_changes import change
from mcban.service.record import Recorded, record
from mcban.service.replay import choose_sources, replay
from mcban.service.report import bans_in_force, show
from mcban.service.sync import enforce, sync
from tests.conftest import Machine
from tests.core.model import jail
from tests.service.desk import NOON, TIERS, dump, execute, fail, held, in_force, known, row

A, B, NETWORK = "2001:db8:0:1::a", "2001:db8:0:1::b", "2001:db8:0:1::/64"
FAR = "2001:db8:0:2::a"


@pytest.fixture
def by64(context: Context) -> Context:
    """Databases of both kinds; mc-exim counts by /64."""
    change(context, "mc-exim", "v6_prefix", "64", force=False)
    return context


def hits(context: Context, *ips: str, group: str = "mc-exim") -> Recorded:
    """A batch of hits, recorded and enforced as the engine does."""
    done = record(context, [Hit(context.now, ip, group) for ip in ips])
    enforce(context, done.world, done.records)
    return done


@pytest.mark.parametrize("apart", [False, True], ids=["one batch", "hit by hit"])
def test_hits_of_one_network_count_together_and_ban_it(by64: Context, apart: bool) -> None:
    """Five hits from two neighbours: the network is banned, once, in SQL and kernel; the reason names the last."""
    ips = [A, B, A, FAR, B, B]
    done = [hits(by64, ip) for ip in ips][-1] if apart else hits(by64, *ips)
    assert [(b.ip, b.jail) for b in done.bans] == [(NETWORK, "mc-exim-1d")]
    assert held(by64, NETWORK) == in_force(by64, NETWORK) == ["mc-exim-1d"]
    assert held(by64, A) == in_force(by64, A) == held(by64, FAR) == []
    assert known(by64, "mc-exim-1d", NETWORK).reason == f"5 hits within 1h, the last from {B}"
    sync(by64)
    assert held(by64, NETWORK) == ["mc-exim-1d"]
    assert [line.ip for line in bans_in_force(by64, None)] == [NETWORK]


def test_an_address_of_a_banned_network_is_shown_as_banned(by64: Context) -> None:
    """With the network that the ban is of."""
    hits(by64, *[A] * 5)
    views = {view.jail: view for view in show(by64, B).jails}
    assert (views["mc-exim-1d"].banned, views["mc-exim-1d"].entry) == (True, NETWORK)


def test_an_address_shows_the_hits_and_the_history_of_the_network_that_it_counts_in(
    by64: Context, machine: Machine
) -> None:
    """Hits to the next tier, bans so far, what was decided; of other groups its own."""
    hits(by64, *[A] * 5)
    unban(by64, "mc-exim", [A])
    machine.now += 1
    hits(by64, *[A] * 3)
    hits(by64, B, group="mc-ssh")
    view = show(by64, B)
    told = {one.jail: (one.entry, one.hits, one.count) for one in view.jails}
    assert (told["mc-exim-1d"], told["mc-exim-1w"]) == ((NETWORK, 3, 1), (NETWORK, 3, 0))
    assert told["mc-ssh-1d"] == (B, 1, 0)
    assert [event.what for event in view.events] == ["ban", "lift"]
    assert {one.jail for one in show(by64, FAR).jails} == set()


def test_other_groups_and_ipv4_count_by_address(by64: Context) -> None:
    """The setting is of its group, and of IPv6."""
    hits(by64, A, B, B, group="mc-ssh")
    hits(by64, *["203.0.113.7"] * 4, "203.0.113.8", "::ffff:203.0.113.9")
    assert bans_in_force(by64, None) == []
    assert [b.ip for b in hits(by64, "203.0.113.7").bans] == ["203.0.113.7"]
    assert [b.ip for b in hits(by64, B, group="mc-ssh").bans] == [B]


@pytest.mark.parametrize(
    ("prefix", "network"), [("32", "2001:db8::/32"), ("56", "2001:db8::/56"), ("127", f"{A}/127"), ("128", A)]
)
def test_networks_have_the_length_that_was_set(context: Context, prefix: str, network: str) -> None:
    """From 32 to 128."""
    change(context, "mc-exim", "v6_prefix", prefix, force=False)
    hits(context, *[A] * 5)
    assert held(context, network) == in_force(context, network) == ["mc-exim-1d"]


def test_a_burst_climbs_the_whole_ladder_and_repetition_the_blacklist(by64: Context, machine: Machine) -> None:
    """A network has its count and is promoted as an address is."""
    assert [b.jail for b in hits(by64, *[A, B] * 10).bans] == list(TIERS)
    for _ in range(2):
        machine.now += 400 * 86_400
        hits(by64, *[A] * 5)
    machine.now += 400 * 86_400
    (last,) = hits(by64, *[B] * 5).bans
    assert (last.ip, last.jail, last.until) == (NETWORK, "mc-exim-bl", FOREVER)
    sync(by64)
    assert held(by64, NETWORK) == ["mc-exim-bl"]
    assert hits(by64, A).hits == 0


def test_an_allowed_address_is_not_banned_with_its_neighbours(by64: Context) -> None:
    """Nor does it ban them: in its network each counts for himself."""
    allow(by64, "mc-exim", [A])
    assert hits(by64, A, A, A, B, B, B, B).bans == ()
    assert [b.ip for b in hits(by64, B).bans] == [B]
    assert in_force(by64, NETWORK) == []


@pytest.mark.parametrize("protected", [A, "2001:db8:0:1::/80", "2001:db8::/48"])
def test_what_is_protected_or_allowed_in_part_splits_the_network(
    by64: Context, machine: Machine, protected: str
) -> None:
    """An address of this host, a part of the network, all of it."""
    machine.protected[protected] = "an address of this host"
    hits(by64, *[A, B] * 20)
    covered = {A: [A], "2001:db8:0:1::/80": [A, B], "2001:db8::/48": [A, B]}[protected]
    assert in_force(by64, NETWORK) == []
    assert [ip for ip in (A, B) if not in_force(by64, ip)] == covered


def test_an_allowance_lets_its_address_through_a_banned_network(by64: Context) -> None:
    """The network's ban leaves the kernel and its neighbours count singly; without the allowance it is back."""
    hits(by64, *[A] * 5)
    allow(by64, None, [A])
    assert held(by64, NETWORK) == []
    hits(by64, *[B] * 5)
    assert held(by64, B) == ["mc-exim-1d"]
    disallow(by64, None, [A])
    assert held(by64, NETWORK) == ["mc-exim-1d"]


def test_unban_of_an_address_lets_in_the_network_that_it_was_counted_in(by64: Context) -> None:
    """The administrator knows the customer's address. Four more failures ban nobody; asking again says so."""
    hits(by64, *[A] * 19)
    done = unban(by64, "mc-exim", [B])
    assert (done.done, done.failed) == (tuple(f"{NETWORK} lifted in {jail}" for jail in TIERS[:3]), ())
    assert held(by64, NETWORK) == in_force(by64, NETWORK) == []
    before = dump(by64)
    assert unban(by64, "mc-exim", [B]).done == (f"{B} is not banned in mc-exim",)
    assert dump(by64) == before
    assert hits(by64, *[A] * 4).bans == ()
    unban(by64, None, [A])
    assert hits(by64, *[A] * 4).bans == ()
    assert [b.jail for b in hits(by64, A).bans] == ["mc-exim-1d"]


def test_unban_of_one_tier_leaves_the_networks_hits_to_the_others(by64: Context) -> None:
    """As it does with an address."""
    hits(by64, *[A] * 9)
    unban(by64, "mc-exim-1d", [A])
    assert held(by64, NETWORK) == []
    assert [b.jail for b in hits(by64, A).bans] == ["mc-exim-1w"]


def test_unban_leaves_a_network_that_was_banned_by_hand(by64: Context) -> None:
    """That was somebody's decision: what to type is said, and it is a failure."""
    ban(by64, "mc-exim-1d", [NETWORK], None, force=False, yes=False)
    hits(by64, *[A] * 10)
    done = unban(by64, "mc-exim", [A])
    assert done.done == (f"{NETWORK} lifted in mc-exim-1w",)
    (failed,) = done.failed
    assert failed.startswith(f"{A} is still refused by the ban of {NETWORK} in mc-exim-1d: unban that")
    assert held(by64, NETWORK) == ["mc-exim-1d"]


def test_unban_finds_a_network_counted_by_an_earlier_setting(by64: Context) -> None:
    """Changed back to single addresses, the networks banned before are still let in by their addresses."""
    hits(by64, *[A] * 5)
    change(by64, "mc-exim", "v6_prefix", "128", force=False)
    assert unban(by64, None, [A]).done == (f"{NETWORK} lifted in mc-exim-1d",)


def test_blacklist_remove_of_an_address_lets_in_its_network(by64: Context) -> None:
    """And its counts begin at 0."""
    execute(by64, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{NETWORK}', 'mc-exim-1d', 0, 3)")
    assert [b.jail for b in hits(by64, *[A] * 5).bans] == ["mc-exim-bl"]
    blacklist_remove(by64, "mc-exim", [B])
    assert held(by64, NETWORK) == []
    assert known(by64, "mc-exim-1d", NETWORK).count == known(by64, "mc-exim-bl", NETWORK).count == 0
    assert [b.jail for b in hits(by64, *[B] * 5).bans] == ["mc-exim-1d"]


def test_a_ban_of_one_address_by_hand_is_of_that_address(by64: Context) -> None:
    """The setting is about counting: what an administrator types is meant as it stands."""
    ban(by64, "mc-exim-1d", [A], None, force=False, yes=False)
    assert held(by64, A) == ["mc-exim-1d"]
    assert held(by64, NETWORK) == []
    assert unban(by64, None, [B]).done == (f"{B} is not banned anywhere",)


def test_a_restart_goes_on_counting_the_network(by64: Context) -> None:
    """Hits are kept under the network; purging leaves them."""
    hits(by64, *[A] * 4)
    upkeep.Purge().step(by64, upkeep.take_over(by64)[0])
    assert [b.ip for b in hits(by64, B).bans] == [NETWORK]
    assert row(by64, "mc-exim-1d", B) is None


def test_replay_comes_to_the_same_bans(by64: Context) -> None:
    """Nothing is touched."""
    when = datetime.fromtimestamp(NOON, UTC).astimezone()
    lines = [
        f"{when:%Y-%m-%d %H:%M:%S} login authenticator failed for (User) [{ip}]: 535 Incorrect authentication data"
        for ip in [A, B] * 5
    ]
    world = upkeep.take_over(by64)[0]
    blocks = [("log", "".join(f"{line}\n" for line in lines).encode())]
    group = world.book.groups["mc-exim"]
    sources = choose_sources(by64, group, ["log"])
    done = replay(by64, group, world.allow, sources, blocks)
    assert [(b.ip, b.jail) for b in done.bans] == [(NETWORK, "mc-exim-1d"), (NETWORK, "mc-exim-1w")]
    assert [(b.jail, b.reason) for b in hits(by64, *[A, B] * 5).bans] == [(b.jail, b.reason) for b in done.bans]
    one = AllowList([Allowance(A, EVERYWHERE, "test")])
    assert {b.ip for b in replay(by64, group, one, sources, blocks).bans} == {B}


def test_fail_by_hand_needs_no_setting(context: Context) -> None:
    """Without it every address counts by itself."""
    fail(context, 4, A)
    fail(context, 4, B)
    assert bans_in_force(context, None) == []


def group(prefix: int) -> Group:
    """A group that counts by networks of that length."""
    return Group("g", (jail("g-1d", v6_prefix=prefix),), None)


addresses = st.one_of(
    st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
    st.integers(0, 2**20 - 1).map(lambda n: ipaddress.IPv6Address((0x20010DB8 << 96) + (n >> 4 << 60) + (n & 15))),
).filter(lambda address: address.ipv4_mapped is None)


@given(addresses, addresses, st.integers(32, 128))
def test_two_addresses_count_together_exactly_when_one_network_holds_them(
    one: ipaddress.IPv6Address, other: ipaddress.IPv6Address, prefix: int
) -> None:
    """Whatever the length: the network is canonical text, and the right one."""
    keys = [counted_for(group(prefix), str(address), AllowList()) for address in (one, other)]
    for address, key in zip((one, other), keys, strict=True):
        assert address in ipaddress.ip_network(key)
        assert key == str(address) or key == str(ipaddress.ip_network((address, prefix), strict=False))
    if all("/" in key for key in keys):
        shift = 128 - prefix
        assert (keys[0] == keys[1]) == (int(one) >> shift == int(other) >> shift)


@given(addresses, addresses, st.integers(33, 128), st.integers(32, 127))
def test_nobody_allowed_is_in_a_network_that_is_counted(
    one: ipaddress.IPv6Address, friend: ipaddress.IPv6Address, length: int, prefix: int
) -> None:
    """Whatever the allowance, alone or with its neighbours, and wherever it lies."""
    allowed = ipaddress.ip_network((friend, length), strict=False)
    key = counted_for(group(prefix), str(one), AllowList([Allowance(str(allowed), EVERYWHERE, "test")]))
    assert key == str(one) or not ipaddress.ip_network(key).overlaps(allowed)


@pytest.mark.parametrize("ip", ["::1", "64:ff9b::cb00:7107", "64:ff9b:1::1", "2001:0:1234::1", "fe80::1"])
def test_addresses_that_share_a_network_with_strangers_count_singly(ip: str) -> None:
    """Translated IPv4, Teredo, the wire itself: one /64 there is not one customer."""
    assert counted_for(group(64), ip, AllowList()) == ip
    assert network_of(group(64), ip) is None


@pytest.mark.parametrize(
    ("reason", "counted"),
    [("5 hits within 1h", True), ("15 hits within 2w, after 3 bans in x (max_count 3), the last from ::a", True)]
    + [(reason, False) for reason in ("by hand", "by SQL", "by hand, after 3 bans", "", None)],
)
def test_a_reason_tells_who_decided(reason: str | None, counted: bool) -> None:
    """Hits, or a hand."""
    assert was_counted(reason) == counted
