"""What the kernel remembers of connections, and whose it forgets."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from mcban.errors import FirewallError, NoPermissionError
from mcban.firewall import conntrack
from mcban.firewall.conntrack import forget_connections
from tests.netns import Host, require_netns, two_hosts

SOURCES = ("203.0.113.9", "203.0.113.10", "198.51.100.7", "2001:db8:1::9", "2001:db8:1:5::1")


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """A server that tracks its connections, and a client."""
    require_netns()
    with two_hosts() as (server, client):
        for program in ("iptables", "ip6tables"):
            server.run(program, "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")
        # The last packets of connections that were forgotten are to begin no new ones.
        server.run("sh", "-c", "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose")
        server.listen(25)
        yield server, client


def tracked(server: Host) -> set[str]:
    """The test's sources that the kernel tracks connections of."""
    text = server.run("conntrack", "-L", "-f", "ipv4") + server.run("conntrack", "-L", "-f", "ipv6")
    return {
        source
        for source in SOURCES
        if f"src={source} dst={server.ipv4}" in text or f"src={source} dst={server.ipv6}" in text
    }


@pytest.mark.parametrize(
    ("entries", "gone"),
    [
        (["203.0.113.9"], {"203.0.113.9"}),
        (["203.0.113.0/24", "198.51.100.8"], {"203.0.113.9", "203.0.113.10"}),
        (["2001:db8:1:5::/64"], {"2001:db8:1:5::1"}),
        (["2001:db8:1::9", "198.51.100.7"], {"2001:db8:1::9", "198.51.100.7"}),
        (["192.0.2.99", "2001:db8:ffff::/48"], set()),
        ([], set()),
        ([f"10.0.{n >> 8}.{n & 255}" for n in range(20_000)] + ["203.0.113.10"], {"203.0.113.10"}),
    ],
)
def test_connections_of_the_banned_are_forgotten_and_no_others(
    hosts: tuple[Host, Host], entries: list[str], gone: set[str]
) -> None:
    """Addresses and networks of both families, few or many at once; nothing to delete is fine."""
    server, client = hosts
    server.run("conntrack", "-F")
    open_now = [client.connection(server.ipv6 if ":" in s else server.ipv4, 25, s) for s in SOURCES]
    try:
        assert tracked(server) == set(SOURCES)
        with server.entered():
            assert forget_connections(entries) == len(gone)
        assert tracked(server) == set(SOURCES) - gone
    finally:
        for sock in open_now:
            sock.close()


def test_without_the_capability_it_says_so(hosts: tuple[Host, Host]) -> None:
    """One line that names CAP_NET_ADMIN."""

    def unprivileged() -> None:
        os.setgroups([])
        os.setuid(65534)
        forget_connections(["203.0.113.9"])

    with pytest.raises(NoPermissionError, match="cannot end open connections: CAP_NET_ADMIN is missing"):
        hosts[0].call(unprivileged)


@pytest.mark.parametrize(("code", "said"), [(errno.EINVAL, "module nf_conntrack_netlink"), (errno.EIO, "EIO")])
def test_a_kernel_that_cannot_is_named(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    """One error, with what is missing."""

    def broken(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(conntrack, "_found", broken)
    with pytest.raises(FirewallError, match=said):
        forget_connections(["203.0.113.9"])
