"""Real packets between two hosts: who is refused, where, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Plan, Rule, Wanted, plan
from mcban.firewall.base import Firewall
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.nftables import NftablesFirewall
from tests.firewall.conftest import VARIANTS, choose_iptables
from tests.netns import NO_ANSWER, Host, require_netns, two_hosts
from tests.patience import PATIENCE, before_its_end, until

EXIM = Ports(((25, 25), (465, 465)))
BANNED = ("203.0.113.9", "2001:db8:1::9")
OTHER = ("203.0.113.10", "2001:db8:1::10")


class Wire:
    """A server with a firewall, and a client with many addresses."""

    def __init__(self, server: Host, client: Host, firewall: Firewall) -> None:
        self.server = server
        self.client = client
        self.firewall = firewall

    def apply(self, plan: Plan) -> None:
        with self.server.entered():
            assert self.firewall.apply(plan, int(time.time())) == []

    def rule(self, ports: Ports, drop: bool = False) -> None:
        """A group of one jail, with the banned addresses in it."""
        ends = dict.fromkeys(BANNED, FOREVER)
        self.apply(Plan(("mc-exim-1d",), {"mc-exim-1d": ends}, {"mc-exim": Rule(("mc-exim-1d",), ports, drop)}))

    def connect(self, source: str, port: int, patience: float = PATIENCE) -> str:
        return self.client.connect(self.server.ipv6 if ":" in source else self.server.ipv4, port, source, patience)


@pytest.fixture(scope="module", params=[*(f"ipset-{variant}" for variant in VARIANTS), "nftables"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host, str]]:
    """Two hosts for each backend, and for ipset with each implementation of iptables."""
    require_netns()
    backend, _, variant = request.param.partition("-")
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("iptables")
        choose_iptables(variant or "nft", folder, patch)
        with two_hosts() as (server, client):
            server.listen(25, 80, 465)
            yield server, client, backend


@pytest.fixture
def wire(hosts: tuple[Host, Host, str]) -> Iterator[Wire]:
    """The two hosts with no rules of ours."""
    server, client, backend = hosts
    wire = Wire(server, client, IpsetFirewall() if backend == "ipset" else NftablesFirewall())
    yield wire
    with wire.server.entered():
        wire.firewall.remove([])
    wire.firewall.close()


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_banned_is_refused_on_the_ports_of_the_group_and_nowhere_else(wire: Wire, family: int) -> None:
    """Port 25 is closed to the banned and open to all others; port 80 is open to everyone."""
    wire.rule(EXIM)
    assert [wire.connect(BANNED[family], port) for port in (25, 465, 80)] == ["refused", "refused", "accepted"]
    assert [wire.connect(OTHER[family], port) for port in (25, 465, 80)] == ["accepted"] * 3


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_lifted_is_accepted_at_once(wire: Wire, family: int) -> None:
    """After `unban` the next connection comes through."""
    wire.rule(EXIM)
    assert wire.connect(BANNED[family], 25) == "refused"
    wire.apply(Plan(remove={"mc-exim-1d": {BANNED[family]}}))
    assert wire.connect(BANNED[family], 25) == "accepted"
    assert wire.connect(BANNED[1 - family], 25) == "refused"


def test_a_ban_ends_by_itself(wire: Wire) -> None:
    """The kernel ends it, also when no engine runs."""
    wire.rule(EXIM)

    def banned_until(end: int) -> str:
        wire.apply(Plan(add={"mc-exim-1d": {OTHER[0]: end}}))
        return wire.connect(OTHER[0], 25)

    assert before_its_end(banned_until) == "refused"
    until(lambda: wire.connect(OTHER[0], 25) == "accepted", "the end")
    assert wire.connect(BANNED[0], 25) == "refused"


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("203.0.113.64/28", "203.0.113.79", "203.0.113.80"),
        ("2001:db8:1:5::/64", "2001:db8:1:5:1234::1", "2001:db8:1:6::1"),
    ],
)
def test_a_network_is_banned_with_all_its_addresses(wire: Wire, network: str, inside: str, outside: str) -> None:
    """Every address of it is refused, its neighbours are not, and one banned by itself outlasts its lifting."""
    wire.rule(EXIM)
    wire.apply(Plan(add={"mc-exim-1d": {network: FOREVER, inside: FOREVER}}))
    assert [wire.connect(source, 25) for source in (inside, outside)] == ["refused", "accepted"]
    wire.apply(Plan(remove={"mc-exim-1d": {inside}}))
    assert wire.connect(inside, 25) == "refused"
    wire.apply(Plan(add={"mc-exim-1d": {inside: FOREVER}}))
    wire.apply(Plan(remove={"mc-exim-1d": {network}}))
    assert wire.connect(inside, 25) == "refused"
    wire.apply(Plan(remove={"mc-exim-1d": {inside}}))
    assert wire.connect(inside, 25) == "accepted"


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_all_ports_means_every_port_and_protocol(wire: Wire, family: int) -> None:
    """TCP is reset, UDP gets the answer that nobody is there."""
    wire.rule(Ports(()))
    assert [wire.connect(BANNED[family], port) for port in (25, 80)] == ["refused", "refused"]
    assert [wire.connect(OTHER[family], port) for port in (25, 80)] == ["accepted", "accepted"]
    with wire.server.entered():
        import socket

        udp = socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM)
        udp.bind((("0.0.0.0", "::")[family], 5353))
    with udp:
        address = (wire.server.ipv4, wire.server.ipv6)[family]
        assert wire.client.send_udp(address, 5353, BANNED[family]) == "refused"
        assert wire.client.send_udp(address, 5353, OTHER[family], NO_ANSWER) == "silence"


@pytest.mark.parametrize("ports", [EXIM, Ports(())], ids=["ports", "all"])
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_drop_gives_no_answer(wire: Wire, ports: Ports, family: int) -> None:
    """With DROP the banned waits in vain; others do not."""
    wire.rule(ports, drop=True)
    assert wire.connect(BANNED[family], 25, NO_ANSWER) == "timeout"
    assert wire.connect(OTHER[family], 25) == "accepted"


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_an_open_connection_ends_with_the_ban(wire: Wire, family: int) -> None:
    """Who is banned while connected is served no further, even where established connections are let through."""
    for program in ("iptables", "ip6tables"):
        wire.server.run(program, "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")
    address = (wire.server.ipv4, wire.server.ipv6)[family]
    try:
        with (
            wire.client.connection(address, 25, BANNED[family]) as banned,
            wire.client.connection(address, 25, OTHER[family]) as other,
        ):
            for sock in (banned, other):
                sock.sendall(b"one")
                assert sock.recv(10) == b"one"
            wire.rule(EXIM)
            with pytest.raises(ConnectionResetError):
                for _ in range(2):
                    banned.sendall(b"two")
                    banned.recv(10)
            other.sendall(b"two")
            assert other.recv(10) == b"two"
    finally:
        for program in ("iptables", "ip6tables"):
            wire.server.run(program, "-D", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")


def test_a_network_that_ends_leaves_the_one_inside_it_banned(wire: Wire) -> None:
    """Each ban has its own end, also where one lies inside another."""
    wire.rule(EXIM)
    endless = dict.fromkeys(("203.0.113.64/28", "203.0.113.128/25"), FOREVER)
    sources = ("203.0.113.20", "203.0.113.70", "203.0.113.201")

    def banned_until(end: int) -> list[str]:
        wire.apply(Plan(add={"mc-exim-1d": {**endless, "203.0.113.200/29": end, "203.0.113.0/25": end}}))
        return [wire.connect(source, 25) for source in sources]

    assert before_its_end(banned_until) == ["refused"] * 3
    until(lambda: wire.connect(sources[0], 25) == "accepted", "the end")
    assert [wire.connect(source, 25) for source in sources] == ["accepted", "refused", "refused"]


def test_who_is_taken_out_by_the_allow_list_gets_in(wire: Wire) -> None:
    """The service plans no ban for the allowed: once such a plan is applied, the address connects again."""
    wire.rule(Ports(()))
    wanted = Wanted({"mc-exim": Rule(("mc-exim-1d",), Ports(()))}, {"mc-exim-1d": {BANNED[1]: FOREVER}})
    with wire.server.entered():
        todo = plan(wanted, wire.firewall.read(["mc-exim-1d"]), int(time.time()), wire.firewall.longest)
    wire.apply(todo)
    assert [wire.connect(source, 25) for source in BANNED] == ["accepted", "refused"]


def test_after_remove_everybody_is_let_in(wire: Wire) -> None:
    """`stop` opens all doors."""
    wire.rule(Ports(()))
    assert wire.connect(BANNED[0], 25) == "refused"
    with wire.server.entered():
        wire.firewall.remove([])
    assert [wire.connect(source, 25) for source in BANNED] == ["accepted", "accepted"]
