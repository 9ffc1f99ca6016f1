"""A private namespace for each test that speaks with the kernel, and the backends under one roof."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcban.firewall.base import Firewall
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.memory import MemoryFirewall
from mcban.firewall.nftables import NftablesFirewall
from tests.netns import Host, one_host, require_netns

VARIANTS = ("nft", "legacy")
PROGRAMS = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")

Make = Callable[[int], Firewall]
"""A new backend, given how many entries a set may hold."""


def choose_iptables(variant: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let `iptables` mean one of its two implementations, as Debian's alternatives do."""
    for program in PROGRAMS:
        (folder / program).symlink_to(f"/usr/sbin/xtables-{variant}-multi")
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}:/usr/sbin:/sbin")


SLACK = 60
"""What CLOCK_SLACK is here: a slow machine may take longer from a plan to the kernel than the engine allows for, which
then plans once more."""


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends in the kernel may be late, as on a machine that has much else to do."""
    for module in ("core.plan", "firewall.ipset_growth"):
        monkeypatch.setattr(f"mcban.{module}.CLOCK_SLACK", SLACK)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every backend that a test made gives its sockets back, also when the test forgot or failed."""
    made: list[Sets] = []
    init = Sets.__init__

    def remember(sets: Sets) -> None:
        made.append(sets)
        init(sets)

    monkeypatch.setattr(Sets, "__init__", remember)
    yield
    for sets in made:
        sets.close()


@pytest.fixture
def host() -> Iterator[Host]:
    """A namespace of its own, which the test is in."""
    require_netns()
    with one_host() as host, host.entered():
        yield host


@pytest.fixture(params=VARIANTS)
def kernel(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A namespace of its own, which the test is in, once for each implementation of iptables."""
    require_netns()
    choose_iptables(request.param, tmp_path, monkeypatch)
    with one_host() as host, host.entered():
        yield host


@pytest.fixture(params=["memory", "ipset-nft", "ipset-legacy", "nftables"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Every backend in turn: what makes one."""
    backend, _, variant = request.param.partition("-")
    if backend == "memory":
        yield lambda maxelem: MemoryFirewall(longest=IpsetFirewall.longest, maxelem=maxelem)
        return
    require_netns()
    if backend == "ipset":
        choose_iptables(variant, tmp_path, monkeypatch)
    with one_host() as host, host.entered():
        yield lambda most: IpsetFirewall(most, most=most) if backend == "ipset" else NftablesFirewall(most=most)


@pytest.fixture
def firewall(make: Make) -> Firewall:
    """Every backend in turn, with room."""
    return make(1_000_000)
