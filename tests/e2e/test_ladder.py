"""From real log lines to refused connections, through a running engine, for every shipped group."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import GROUPS, WiredNode
from tests.netns import Host
from tests.patience import until

TIERS = ("1d", "1w", "1m", "1y")


@pytest.fixture
def gate(wire: tuple[Host, Host], tmp_path: Path) -> Iterator[WiredNode]:
    """A running gateway with a client on its wire, who is `gate.client`."""
    node = WiredNode(wire, tmp_path / "gate")
    try:
        node.prepare()
        node.host.listen(22, 25, 80, 443, 465, 587)
        node.start()
        yield node
    finally:
        node.end()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("attacker", ["203.0.113.7", "2001:db8:1::7"])
def test_each_tier_fires_at_its_hits_and_not_one_earlier(gate: WiredNode, group: str, attacker: str) -> None:
    """Each tier bans at its number of hits, in SQL and in the kernel, and its ports alone are closed."""
    server = gate.host.ipv6 if ":" in attacker else gate.host.ipv4
    hits, _, ports, other = GROUPS[group]
    held: set[str] = set()
    for number in range(1, 4 * hits + 1):
        if number % hits == 0:
            gate.settled()
            assert {jail for _, jail in gate.banned()} == held, f"before hit {number}"
            assert all(gate.entries(f"{group}-{tier}") == set() for tier in TIERS if f"{group}-{tier}" not in held)
        gate.fail(group, attacker)
        if number % hits == 0:
            tier = f"{group}-{TIERS[number // hits - 1]}"
            held.add(tier)
            gate.await_entry(attacker, tier)
            assert {jail for _, jail in gate.banned()} == held
            assert {gate.client.connect(server, port, source=attacker) for port in ports} == {"refused"}
            assert gate.client.connect(server, other, source=attacker) == "accepted"
            stranger = "2001:db8:1::8" if ":" in attacker else "203.0.113.8"
            assert gate.client.connect(server, ports[0], source=stranger) == "accepted"


def test_the_fourth_ban_is_for_ever_and_outlives_stop_and_kill(gate: WiredNode) -> None:
    """With max_count 3 the fourth ban goes to the blacklist; a stop, a start and kill -9 change nothing."""
    attacker = "203.0.113.7"
    for turn in range(1, 5):
        jail = "mc-exim-1d" if turn < 4 else "mc-exim-bl"
        gate.fail("mc-exim", attacker, 5)
        gate.await_entry(attacker, jail, f"ban {turn}")
        if turn < 4:
            gate.mcban("unban", "-j", "mc-exim", "-i", attacker)
            assert gate.client.connect(gate.host.ipv4, 25, source=attacker) == "accepted"
    gate.fail("mc-exim", "203.0.113.9", 4)
    gate.settled()
    [row] = gate.json("banned")
    assert (row["ip"], row["jail"], row["until"]) == (attacker, "mc-exim-bl", None)
    for way in (signal.SIGTERM, signal.SIGKILL):
        gate.stop(way)
        if way == signal.SIGKILL:
            # The kernel holds bans by itself.
            assert gate.client.connect(gate.host.ipv4, 25, source=attacker) == "refused"
        gate.start()
        assert gate.json("banned") == [row]
        assert gate.entries("mc-exim-bl") == {attacker}
        assert gate.client.connect(gate.host.ipv4, 25, source=attacker) == "refused"
        assert gate.client.connect(gate.host.ipv4, 80, source=attacker) == "accepted"
    gate.fail("mc-exim", "203.0.113.9", 1)
    gate.await_entry("203.0.113.9", what="the fifth hit, counted over two starts")


def test_one_burst_of_twenty_bans_once_in_each_tier(gate: WiredNode) -> None:
    """Twenty failures at once lead to one ban in each tier."""
    gate.fail("mc-exim", "203.0.113.7", 20)
    until(lambda: gate.entries("mc-exim-1y") == {"203.0.113.7"}, "the highest tier")
    assert {(row["jail"], row["count"]) for row in gate.json("banned")} == {(f"mc-exim-{tier}", 1) for tier in TIERS}


def test_unban_empties_every_list_of_the_group(gate: WiredNode) -> None:
    """`unban -j mc-exim` takes an address out of all the group's lists in SQL and kernel, and it may connect."""
    gate.fail("mc-exim", "203.0.113.7", 20)
    until(lambda: gate.entries("mc-exim-1y") == {"203.0.113.7"}, "the highest tier")
    gate.mcban("blacklist", "add", "-j", "mc-exim", "-i", "203.0.113.7")
    gate.mcban("unban", "-j", "mc-exim", "-i", "203.0.113.7")
    assert gate.banned() == set()
    assert all(gate.entries(f"mc-exim-{tier}") == set() for tier in (*TIERS, "bl"))
    assert gate.client.connect(gate.host.ipv4, 25, source="203.0.113.7") == "accepted"
    gate.fail("mc-exim", "203.0.113.7")
    gate.settled()
    assert gate.banned() == set(), "a single failure afterwards bans nobody"


def test_whitelisting_lifts_and_protects(gate: WiredNode) -> None:
    """`whitelist add` lifts the ban at once; later hits of the address change nothing."""
    gate.fail("mc-exim", "203.0.113.7", 5)
    until(lambda: gate.entries("mc-exim-1d") == {"203.0.113.7"}, "the ban")
    gate.mcban("whitelist", "add", "-j", "mc-exim", "-i", "203.0.113.0/28")
    assert gate.entries("mc-exim-1d") == set()
    assert gate.client.connect(gate.host.ipv4, 25, source="203.0.113.7") == "accepted"
    before = gate.json("show", "203.0.113.7")
    gate.fail("mc-exim", "203.0.113.7", 20)
    gate.settled()
    assert gate.json("show", "203.0.113.7") == before
    assert before["allowed"] is True
    assert gate.banned() == set()
