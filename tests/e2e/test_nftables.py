"""The engine with the nftables backend: the same, from log line to refused connection."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.netns import Host
from tests.patience import until

STRANGERS_RULES = "table inet theirs { set s { type ipv4_addr; }; chain c { type filter hook input priority 0; }; }"


@pytest.mark.parametrize("attacker", ["203.0.113.7", "2001:db8:1::7"])
def test_bans_are_enforced_mended_and_lifted_with_nftables(
    wire: tuple[Host, Host], tmp_path: Path, attacker: str
) -> None:
    """Failures close the group's ports and no others, `nft flush ruleset` is mended, unban lets back in, and at the
    end the table of others stands alone."""
    server, client = wire
    address = server.ipv6 if ":" in attacker else server.ipv4
    server.listen(25, 80)
    server.run("nft", "-f", "-", text=STRANGERS_RULES)
    node = Node(server, tmp_path / "gate", firewall="nftables")
    try:
        node.prepare()
        node.start()
        node.fail("mc-exim", attacker, 5)
        until(lambda: client.connect(address, 25, source=attacker) == "refused", "the ban")
        assert client.connect(address, 80, source=attacker) == "accepted"
        [jail] = [view for view in node.json("show", attacker)["jails"] if view["banned"]]
        assert (jail["jail"], jail["enforced"]) == ("mc-exim-1d", True)
        server.run("nft", "flush", "ruleset")
        until(lambda: client.connect(address, 25, source=attacker) == "refused", "the mending")
        until(lambda: node.process("sync", "--check").stdout == "the kernel holds what SQL says\n", "peace")
        node.mcban("unban", "-j", "mc-exim", "-i", attacker)
        assert client.connect(address, 25, source=attacker) == "accepted"
        server.run("nft", "-f", "-", text=STRANGERS_RULES)
        theirs = server.run("nft", "list", "table", "inet", "theirs")
        node.stop()
        assert server.run("nft", "list", "ruleset") == theirs
    finally:
        node.end()


@pytest.mark.parametrize(("first", "then"), [("ipset", "nftables"), ("nftables", "ipset")])
def test_another_backend_takes_over(wire: tuple[Host, Host], tmp_path: Path, first: str, then: str) -> None:
    """A restart with another `firewall.backend`: what the old one left holds until the new one does, and nobody whom
    `unban` lets in is kept out by it."""
    server, client = wire
    server.listen(25)
    server.run("nft", "-f", "-", text=STRANGERS_RULES)
    server.run("iptables", "-A", "INPUT", "-s", "192.0.2.99", "-j", "DROP")
    node = Node(server, tmp_path / "gate", firewall=first)
    address, attacker = server.ipv4, "203.0.113.7"
    try:
        node.prepare()
        node.start()
        node.mcban("ban", "-j", "mc-exim-1d", "-i", attacker)
        node.stop(signal.SIGUSR1)
        assert client.connect(address, 25, source=attacker) == "refused"
        node.env["MCBAN_FIREWALL"] = then
        node.start()
        assert client.connect(address, 25, source=attacker) == "refused"
        left = server.run("nft", "list", "tables") if first == "nftables" else server.run("iptables-save")
        assert "mcban" not in left
        node.mcban("unban", "-i", attacker)
        assert client.connect(address, 25, source=attacker) == "accepted"
        assert f"what an engine with firewall.backend {first} left in the kernel is taken out" in node.engine_log
        assert "table inet theirs" in server.run("nft", "list", "tables")
        assert "192.0.2.99" in server.run("iptables-save")
    finally:
        node.end()
