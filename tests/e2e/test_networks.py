"""Networks and single addresses beside each other, with packets; and the addresses that nobody may ban by mistake."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import warm
from tests.e2e.node import MCBAN, Node, WiredNode
from tests.netns import NO_ANSWER, Host
from tests.patience import PATIENCE, until

FAMILIES = {
    "IPv4": ("203.0.113.7", "203.0.113.0/24", "203.0.113.8", "198.51.100.7"),
    "IPv6": ("2001:db8:1:1::7", "2001:db8:1:1::/64", "2001:db8:1:1::8", "2001:db8:1:2::7"),
}
"""Family to an address, a network around it, a neighbour inside, and a stranger."""


@pytest.fixture(params=["ipset", "nftables"])
def gate(request: pytest.FixtureRequest, wire: tuple[Host, Host], tmp_path: Path) -> Iterator[WiredNode]:
    """A gateway without an engine, with each backend, and a client on its wire, who is `gate.client`."""
    node = WiredNode(wire, tmp_path / "gate", request.param)
    try:
        node.prepare()
        node.host.listen(25)
        yield node
    finally:
        node.end()


def connect(gate: WiredNode, source: str) -> str:
    """What a client at that address finds at port 25."""
    return gate.client.connect(gate.host.ipv6 if ":" in source else gate.host.ipv4, 25, source)


@pytest.mark.parametrize(
    ("gate", "family", "other"),
    [
        ("ipset", "IPv4", "mc-exim-1d"),
        ("ipset", "IPv6", "mc-exim-1w"),
        ("nftables", "IPv4", "mc-exim-1w"),
        ("nftables", "IPv6", "mc-exim-1d"),
    ],
    indirect=["gate"],
)
def test_a_lifted_network_does_not_free_an_address_banned_by_itself(gate: WiredNode, family: str, other: str) -> None:
    """Nor the other way round; in the same jail, or in another of the group while an engine runs, whichever came
    first."""
    address, network, neighbour, stranger = FAMILIES[family]
    gate.mcban("jail", "change", "-j", "mc-exim", "--option", "max_count", "-v", "0")
    if other != "mc-exim-1d":
        gate.start()
    for entries in ((address, network), (network, address)):
        for entry, jail in zip(entries, ("mc-exim-1d", other), strict=True):
            gate.mcban("ban", "-j", jail, "-i", entry)
        assert gate.entries("mc-exim-1d") | gate.entries(other) == {address, network}
        assert [connect(gate, ip) for ip in (address, neighbour, stranger)] == ["refused", "refused", "accepted"]
        gate.mcban("unban", "-i", network)
        assert [connect(gate, ip) for ip in (address, neighbour)] == ["refused", "accepted"]
        gate.mcban("ban", "-j", other, "-i", network)
        lifted = gate.process("unban", "-i", address)
        assert lifted.returncode == 1
        assert f"{address} is still refused by the ban of {network}" in lifted.stderr
        assert [connect(gate, ip) for ip in (address, neighbour)] == ["refused", "refused"]
        assert {ip for ip, _ in gate.banned()} == {network}
        assert gate.in_step()
        gate.mcban("unban", "-i", network)
        assert [connect(gate, ip) for ip in (address, neighbour)] == ["accepted", "accepted"]


def test_hits_from_one_ipv6_network_close_the_port_for_all_of_it(gate: WiredNode) -> None:
    """jail change and jail show say v6_prefix; a neighbour is refused, the next network is not, and unban of one
    address lets all of them in."""
    address, network, neighbour, stranger = FAMILIES["IPv6"]
    gate.mcban("jail", "change", "-j", "mc-exim", "--option", "v6_prefix", "-v", "64")
    assert {jail["v6_prefix"] for jail in gate.json("jail", "show", "-j", "mc-exim")} == {64}
    gate.start()
    for ip in (address, neighbour):
        gate.fail("mc-exim", ip, 3)
    until(lambda: gate.entries("mc-exim-1d") == {network}, "the network's ban")
    assert [connect(gate, ip) for ip in (address, neighbour, stranger)] == ["refused", "refused", "accepted"]
    assert f"banned as {network}" in gate.mcban("show", neighbour)
    gate.mcban("unban", "-i", address)
    assert [connect(gate, ip) for ip in (address, neighbour)] == ["accepted", "accepted"]
    custom = ("--filter", "mc-exim-filter", "--logpath", str(gate.folder / "x.log"), "--port", "2525")
    gate.mcban("jail", "add", "-j", "mine", *custom, "--v6-prefix", "56")
    assert gate.json("jail", "show", "-j", "mine")[0]["v6_prefix"] == 56


def test_an_address_that_this_host_is_given_is_protected_without_a_restart(node: Node) -> None:
    """Its ban leaves the kernel and its hits count no more; other bans stay; taken away, the ban is back."""
    node.start()
    for ip in ("203.0.113.7", "203.0.113.9", "203.0.112.0/24"):
        node.mcban("ban", "-j", "mc-exim-1d", "-i", ip)
    node.host.run("ip", "addr", "add", "203.0.113.7/32", "dev", "lo")
    until(lambda: node.entries("mc-exim-1d") == {"203.0.113.9", "203.0.112.0/24"}, "the protection")
    assert ("203.0.113.7", "mc-exim-1d") in node.banned()
    assert node.in_step()
    node.fail("mc-exim", "203.0.113.7", 20)
    node.fail("mc-exim", "203.0.113.8", 5)
    node.await_entry("203.0.113.8", what="a ban of another")
    assert {jail for ip, jail in node.banned() if ip == "203.0.113.7"} == {"mc-exim-1d"}
    assert node.process("ban", "-j", "mc-ssh", "-i", "203.0.113.7").returncode == 3
    node.host.run("ip", "addr", "del", "203.0.113.7/32", "dev", "lo")
    node.await_entry("203.0.113.7", what="the ban's return")


PEER = "203.0.113.7"
SESSIONS = {
    "in the session": {"SSH_CONNECTION": f"{PEER} 40112 192.0.2.1 22"},
    "with an older sshd": {"SSH_CLIENT": f"{PEER} 40112 22"},
    "mapped": {"SSH_CONNECTION": f"::ffff:{PEER} 40112 ::1 22"},
}
"""How somebody is logged in, as sshd's variables say it to each command."""
_AGAIN = '"$@"; exit $?'
SHELLS = {
    "after sudo": f"SSH_CONNECTION='{PEER} 4 192.0.2.1 22' sh -c 'env -u SSH_CONNECTION {_AGAIN}' sh {_AGAIN}",
    "after sudo and su": (
        f"SSH_CLIENT='{PEER} 4 22' sh -c 'env -u SSH_CLIENT sh -c \"$0\" sh {_AGAIN}' '{_AGAIN}' {_AGAIN}"
    ),
}
"""The same where only the shells above the command still know it, as a line that runs the command, its arguments."""


def typed(node: Node, session: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command typed in a session."""
    env = {key: value for key, value in node.env.items() if not key.startswith("SSH_")}
    if session in SESSIONS:
        return warm.run(*arguments, env=env | SESSIONS[session], namespace=node.host.name)
    return node.host.process("sh", "-c", SHELLS[session], "sh", MCBAN, *arguments, env=env)


def is_refused(done: subprocess.CompletedProcess[str], entry: str) -> bool:
    """Whether a command was refused for who typed it, by the address itself or by a network that holds it."""
    inside = "" if entry == PEER else f", and lies in {entry}"
    words = f"mcban: {PEER} is the address from which you are logged in{inside}: --force bans it all the same\n"
    return (done.returncode, done.stdout, done.stderr) == (3, "", words)


@pytest.mark.parametrize("session", SESSIONS)
def test_nobody_bans_the_address_from_which_he_is_logged_in(node: Node, session: str) -> None:
    """Neither by itself nor in a network, for a while or for ever, unless he says --force; nothing else is held up."""
    for command in ("ban -j mc-exim", "ban -j mc-ssh-1d --yes", "blacklist add -j mc-exim"):
        for entry in (PEER, "203.0.113.0/24"):
            assert is_refused(typed(node, session, *command.split(), "-i", "198.51.100.1", "-i", entry), entry)
    assert node.banned() == set()
    assert typed(node, session, "ban", "-j", "mc-exim-1d", "-i", "203.0.113.8").returncode == 0
    assert typed(node, session, "ban", "-j", "mc-exim-1d", "-i", PEER, "--force").returncode == 0
    assert node.entries("mc-exim-1d") == {PEER, "203.0.113.8"}
    assert typed(node, session, "sync").returncode == 0
    assert typed(node, session, "unban", "-i", "203.0.113.8").returncode == 0
    assert node.entries("mc-exim-1d") == {PEER}


@pytest.mark.parametrize("session", SHELLS)
def test_nor_does_sudo_make_him_forget_it(node: Node, session: str) -> None:
    """Where sudo and su dropped what sshd had set, it is found in the shells that led to the command."""
    for command, entry in (("ban -j mc-exim", PEER), ("blacklist add -j mc-exim", "203.0.113.0/24")):
        assert is_refused(typed(node, session, *command.split(), "-i", "198.51.100.1", "-i", entry), entry)
    assert node.banned() == set()
    assert typed(node, session, "ban", "-j", "mc-exim-1d", "-i", PEER, "--force").returncode == 0
    assert node.entries("mc-exim-1d") == {PEER}


def test_a_session_protects_its_address_from_its_own_commands_only(node: Node) -> None:
    """Another's command bans it, and its bans that stand are not held back."""
    node.mcban("ban", "-j", "mc-exim-1d", "-i", PEER)
    assert typed(node, "in the session", "sync").returncode == 0
    assert "not enforced" not in typed(node, "in the session", "banned").stdout
    assert node.entries("mc-exim-1d") == {PEER}


@pytest.mark.parametrize("value", ["UNKNOWN 65535 UNKNOWN 65535", "", " ", "fe80::1%eth0 4 fe80::2 22", "garbage"])
def test_a_session_of_unknown_origin_stops_no_command(node: Node, value: str) -> None:
    """What is no address protects nothing; a zone is passed over."""
    env = {**node.env, "SSH_CONNECTION": value}
    done = warm.run("ban", "-j", "mc-exim-1d", "-i", PEER, env=env, namespace=node.host.name)
    assert (done.returncode, done.stderr) == (0, "")
    if value.startswith("fe80"):
        refused = warm.run("ban", "-j", "mc-exim-1d", "-i", "fe80::1", env=env, namespace=node.host.name)
        assert refused.returncode == 3


def test_an_action_closes_the_ports_and_refuses_as_it_says(gate: WiredNode) -> None:
    """Ports in brackets instead of the row's, all ports, DROP without a word, REJECT at once: with packets."""
    address, _, neighbour, _ = FAMILIES["IPv4"]
    gate.host.listen(80)

    def found(*expected: str) -> list[str]:
        patience = [NO_ANSWER if one == "timeout" else PATIENCE for one in expected]
        ports = zip((25, 80), patience, strict=True)
        return [gate.client.connect(gate.host.ipv4, port, address, seconds) for port, seconds in ports]

    gate.mcban("ban", "-j", "mc-exim", "-i", address)
    assert found("refused", "accepted") == ["refused", "accepted"]
    for action, result in (
        ('iptables-multiport[name=x, port="80,8080", blocktype=DROP]', ["accepted", "timeout"]),
        ("nftables-allports[blocktype=REJECT]", ["refused", "refused"]),
        ("mc-custom", ["refused", "accepted"]),
    ):
        gate.mcban("jail", "change", "-j", "mc-exim", "--option", "banaction", "-v", action)
        assert found(*result) == result
        assert connect(gate, neighbour) == "accepted"
    refused = gate.process("jail", "change", "-j", "mc-exim", "--option", "banaction", "-v", "mc-custom[chain=FORWARD]")
    assert refused.returncode == 65
    assert "'FORWARD' is not among the setting firewall.chains" in refused.stderr
