"""Sets that fill up: they grow before they are full, and nobody is let in meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Plan, Rule
from mcban.errors import FirewallError
from mcban.firewall.base import Firewall
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.ipset_growth import PREFIX, fitting
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.nftables import NftablesFirewall
from tests.netns import Host

RULES = {"g": Rule(("a",), Ports(((25, 25),)))}


@pytest.fixture(params=["ipset", "nftables"])
def small(request: pytest.FixtureRequest, host: Host) -> Iterator[Firewall]:
    """A backend whose sets start small."""
    firewall: Firewall = IpsetFirewall(maxelem=1024) if request.param == "ipset" else NftablesFirewall()
    firewall.apply(Plan(create=("a",), rules=RULES), int(time.time()))
    yield firewall
    firewall.close()


def flood(firewall: Firewall, attackers: int) -> None:
    """So many distinct addresses of both families, and networks, in batches as the log gives them."""
    chance = random.Random(attackers)
    called = set()
    now = int(time.time())
    at = 0
    while at < attackers:
        some = range(at, min(attackers, at + chance.randint(1, 200)))
        at = some.stop
        ends = {f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}": now + 3600 + n % 7 for n in some}
        ends |= {f"2001:db8::{n + 1:x}": FOREVER for n in some[::10]}
        ends |= {f"172.{16 + (n >> 12 & 15)}.{n >> 4 & 255}.{n << 4 & 255}/28": now + 3600 for n in some[:1]}
        refused = {refusal.entry for refusal in firewall.apply(Plan(add={"a": ends}), now)}
        called |= ends.keys() - refused
    held = firewall.read(["a"])
    assert held.entries["a"].keys() == called
    assert len(called) > attackers
    assert RULES["g"].does(held.rules.get("g"))


def test_in_a_flood_nobody_is_called_banned_who_is_not(small: Firewall) -> None:
    """20 000 attackers in small batches into sets of a thousand: each is in the kernel, the rule over them too."""
    flood(small, 20_000)


@pytest.mark.soak
def test_in_a_great_flood_nobody_is_called_banned_who_is_not(small: Firewall) -> None:
    """The same with 200 000."""
    flood(small, 200_000)


def test_a_set_grows_up_to_what_it_may_hold_and_then_refuses_by_name(host: Host) -> None:
    """Past the limit no ban is called one."""
    firewall = IpsetFirewall(maxelem=1024, most=4096)
    ends = {f"10.0.{n >> 8}.{n & 255}": FOREVER for n in range(6000)}
    entries = list(ends.items())
    firewall.apply(Plan(create=("a",)), 0)
    refused = [
        refusal.entry
        for at in range(0, 6000, 500)
        for refusal in firewall.apply(Plan(add={"a": dict(entries[at : at + 500])}), int(time.time()))
    ]
    held = firewall.read(["a"]).entries["a"].keys()
    assert len(held) >= 4096
    assert held | set(refused) == ends.keys()
    assert not held & set(refused)
    assert "maxelem 4096" in host.run("ipset", "list", "a", "-t")


def test_a_bulk_gets_a_set_that_it_fits_into(host: Host) -> None:
    """A start with many bans does not grow step by step."""
    firewall = IpsetFirewall(maxelem=1024)
    ends = {f"10.0.{n >> 8}.{n & 255}": FOREVER for n in range(5000)}
    assert firewall.apply(Plan(create=("a",), add={"a": ends}), 0) == []
    assert "maxelem 8192" in host.run("ipset", "list", "a", "-t")


def test_growing_keeps_ends_lists_and_what_others_did_meanwhile(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ban and an unban by another process, in the instant before the swap, both hold."""
    firewall = IpsetFirewall(maxelem=1024)
    now = int(time.time())
    first = {f"10.0.{n >> 8}.{n & 255}": now + 1000 + n for n in range(900)}
    firewall.apply(Plan(create=("a",), add={"a": first}, rules=RULES), now)
    swap = Sets.swap

    def meddled(sets: Sets, name: str, other: str) -> None:
        host.run("ipset", "add", "a", "192.0.2.1", "timeout", "500")
        host.run("ipset", "del", "a", "10.0.0.7")
        swap(sets, name, other)

    monkeypatch.setattr(Sets, "swap", meddled)
    more = {f"10.1.{n >> 8}.{n & 255}": FOREVER for n in range(300)}
    firewall.read(["a"])
    assert firewall.glance(["a"]).whole
    assert firewall.apply(Plan(add={"a": more}), now) == []
    assert not firewall.glance(["a"]).whole  # whoever knows the ends is to look at them
    held = firewall.read(["a"])
    wanted = {**first, **more, "192.0.2.1": now + 500}
    del wanted["10.0.0.7"]
    assert held.entries["a"].keys() == wanted.keys()
    assert all(abs(held.entries["a"][entry] - end) <= 3 for entry, end in wanted.items())
    assert held.missing == ()
    assert RULES["g"].does(held.rules["g"])


def test_where_growing_fails_the_ban_is_refused_and_the_others_stand(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory for a larger set the old one goes on."""
    firewall = IpsetFirewall(maxelem=1024)
    firewall.apply(Plan(create=("a",)), 0)

    def no_room(*_: object) -> None:
        raise FirewallError("cannot create set: the kernel answers ENOMEM")

    monkeypatch.setattr(Sets, "create", no_room)
    ends = {f"10.0.{n >> 8}.{n & 255}": FOREVER for n in range(3000)}
    refused = {refusal.entry for refusal in firewall.apply(Plan(add={"a": ends}), 0)}
    held = firewall.read(["a"]).entries["a"].keys()
    assert len(held) >= 1024
    assert held | refused == ends.keys()


@pytest.mark.parametrize("way", ["apply", "remove"])
def test_what_an_interrupted_growth_left_is_cleared_away(host: Host, way: str) -> None:
    """A set half-built by an engine that was killed does not stay; that of one that runs does."""
    for name in (f"{PREFIX}999999999", f"{PREFIX}1"):
        host.run("ipset", "create", name, "hash:net", "timeout", "0")
    firewall = IpsetFirewall()
    if way == "apply":
        firewall.apply(Plan(create=("a",)), 0)
    else:
        firewall.remove([])
    assert f"{PREFIX}999999999" not in host.run("ipset", "list", "-n").split()
    assert f"{PREFIX}1" in host.run("ipset", "list", "-n").split()


def test_there_is_always_a_tenth_free_until_the_limit() -> None:
    """A set is doubled as often as it takes."""
    assert [fitting(1024, n, 4096) for n in (0, 922, 923, 4000, 99_999)] == [1024, 1024, 2048, 4096, 4096]
