"""Somebody exchanges entries by hand: as many as before, but not the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_NETLINK, SOCK_RAW, inet_pton, socket

import pytest

from mcban.core.model import FOREVER
from mcban.firewall import nft_wire as wire
from mcban.firewall.netlink import HEADER, NETLINK_NETFILTER, NLM_F_ACK, NLMSG_ERROR
from mcban.service.drift import LOOK_EVERY
from mcban.store.addresses import AddressRecord
from tests.e2e.node import Node
from tests.netns import one_host, require_netns
from tests.patience import PATIENCE, until

BANNED, STRANGER = "203.0.113.7", "198.51.100.9"
BANNED6, STRANGER6 = "2001:db8::7", "2001:db8::9"


@pytest.fixture(params=["ipset", "nftables"])
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A gateway with each backend, no engine yet."""
    require_netns()
    with one_host() as host:
        node = Node(host, tmp_path / "gate", firewall=request.param)
        try:
            node.prepare()
            yield node
        finally:
            node.end()


def exchange(gate: Node, family: str, gone: str, come: str) -> None:
    """Take one entry of mc-exim-1d out and put another in."""
    if gate.env["MCBAN_FIREWALL"] == "ipset":
        gate.host.run("ipset", "restore", text=f"del mc-exim-1d{family} {gone}\nadd mc-exim-1d{family} {come}\n")
        return
    table = f"inet mcban mc-exim-1d{family}"
    gate.host.run("nft", f"delete element {table} {{ {gone} }}; add element {table} {{ {come} }}")


def held(gate: Node, ip: str) -> bool:
    """Whether the kernel has it in mc-exim-1d."""
    name = "mc-exim-1d-v6" if ":" in ip else "mc-exim-1d"
    if gate.env["MCBAN_FIREWALL"] == "ipset":
        return gate.host.process("ipset", "test", name, ip).returncode == 0
    return bool(gate.host.call(_nftables_holds, name, ip))


def _nftables_holds(name: str, ip: str) -> bool:
    """As `nft get element` asks, which reads the whole set before: of a million entries that is half a minute."""
    key = inet_pton(AF_INET6 if ":" in ip else AF_INET, ip)
    [element] = wire.elements(name, len(key), key, None)
    with socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) as line:
        line.settimeout(PATIENCE)
        line.send(wire.request(wire.GETSETELEM, NLM_F_ACK, 1, element))
        _, kind, *_ = HEADER.unpack_from(line.recv(1 << 16))
    return bool(kind != NLMSG_ERROR)


def await_mending(gate: Node, gone: str, come: str) -> None:
    """Until the entry that went is back, the one that came is gone, and the log has said both."""
    until(lambda: held(gate, gone) and not held(gate, come), "the mending")
    until(lambda: f"mended: 1 entry gone from mc-exim-1d: {gone}" in gate.engine_log, "the line")
    until(lambda: f"mended: 1 entry without a ban in mc-exim-1d: {come}" in gate.engine_log, "the other line")


def test_an_entry_exchanged_by_hand_is_mended(gate: Node) -> None:
    """Whoever is banned is refused again, whoever was put there by a stranger is not, and the log names both."""
    gate.mcban("ban", "-j", "mc-exim-1d", "-i", BANNED, "-i", BANNED6)
    gate.start()
    for family, gone, come in (("", BANNED, STRANGER), ("-v6", BANNED6, STRANGER6), ("", BANNED, STRANGER)):
        exchange(gate, family, gone, come)
        assert held(gate, come) and not held(gate, gone)
        await_mending(gate, gone, come)
    assert gate.in_step()
    assert "ERROR" not in gate.engine_log


@pytest.mark.soak
def test_an_entry_that_is_merely_gone_is_told_once(gate: Node) -> None:
    """It is found by counting, and put back; the next looks at the list find nothing."""
    gate.mcban("ban", "-j", "mc-exim-1d", "-i", BANNED)
    gate.start()
    time.sleep(1.5 * LOOK_EVERY)
    if gate.env["MCBAN_FIREWALL"] == "ipset":
        gate.host.run("ipset", "del", "mc-exim-1d", BANNED)
    else:
        gate.host.run("nft", f"delete element inet mcban mc-exim-1d {{ {BANNED} }}")
    until(lambda: held(gate, BANNED) and "mended: " in gate.engine_log, "the mending")
    time.sleep(2.5 * LOOK_EVERY)
    assert gate.engine_log.count("mended: ") == 1
    assert held(gate, BANNED)


@pytest.mark.parametrize(
    "many", [30_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])]
)
def test_one_entry_among_many_is_mended(gate: Node, many: int) -> None:
    """Also in a list that is too long to be looked at every time; a ban made meanwhile is nobody's meddling."""
    bans = [f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(many)]
    rows = [AddressRecord(ip, "mc-exim-1d", 1, True, since=1, until=FOREVER, reason="test") for ip in bans]
    gate.database.write(lambda t: t.addresses.save(rows))
    gate.start()
    gate.mcban("ban", "-j", "mc-exim-1d", "-i", BANNED)
    exchange(gate, "", bans[many // 3], STRANGER)
    # ipset: a million are read in turns, at a third of a per cent of a core, in a minute and a half. nftables: the
    # command and the engine read all of them once, half a minute each on an idle machine, of which the kernel, which
    # finds its place in a set anew for each page that it gives out, takes most.
    patience = PATIENCE * max(1, many // 100_000)
    until(lambda: held(gate, bans[many // 3]) and not held(gate, STRANGER), "the mending", patience)
    until(lambda: gate.engine_log.count("mended: ") == 2, "two lines")


def test_what_was_flushed_is_named_in_the_log(gate: Node) -> None:
    """Entries that are merely gone are found by counting, and the line says from which list how many were gone."""
    gate.mcban("ban", "-j", "mc-exim-1d", "-i", BANNED, "-i", "203.0.113.8", "-i", "203.0.113.9", "-i", "203.0.113.10")
    gate.start()
    if gate.env["MCBAN_FIREWALL"] == "ipset":
        gate.host.run("ipset", "flush", "mc-exim-1d")
    else:
        gate.host.run("nft", "flush", "set", "inet", "mcban", "mc-exim-1d")
    until(lambda: held(gate, BANNED), "the mending")
    line = "mended: 4 entries gone from mc-exim-1d: 203.0.113.10, 203.0.113.7, 203.0.113.8, …"
    until(lambda: line in gate.engine_log, "the line")
