"""The ipset backend where something is in its way: what it says, and what it does all the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Plan, Rule
from mcban.errors import ConfigError, FirewallError, NoPermissionError
from mcban.firewall import ipset as backend
from mcban.firewall import iptables
from mcban.firewall.base import IncompleteError
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.ipset_sets import Sets
from tests.firewall.test_ipset_kernel import EXIM, left, look, now
from tests.netns import Host


def test_without_the_capability_the_error_says_what_is_missing(host: Host) -> None:
    """Exit status 77, naming CAP_NET_ADMIN and how a container gets it."""

    def unprivileged(method: str) -> None:
        os.setgroups([])
        os.setuid(65534)
        firewall = IpsetFirewall()
        arguments = {"apply": [Plan(("a",)), 0], "stands": []}.get(method, [["a"]])
        getattr(firewall, method)(*arguments)

    for method in ("stands", "read", "apply", "remove"):
        with pytest.raises(NoPermissionError, match=r"CAP_NET_ADMIN is missing; .*--cap-add=NET_ADMIN") as caught:
            host.call(unprivileged, method)
        assert caught.value.exit_status == 77


@pytest.mark.parametrize("capabilities", ["+net_admin", "+net_admin,+net_raw"])
def test_two_capabilities_are_enough(kernel: Host, capabilities: str) -> None:
    """CAP_NET_ADMIN and CAP_NET_RAW and nothing else; without the second, the error names it."""
    script = (
        "from tests.firewall.test_ipset_faults import *\n"
        "firewall = IpsetFirewall()\n"
        "try:\n    firewall.apply(left(firewall), now())\n"
        "except NoPermissionError as error:\n    print(error)\n"
        "else:\n    print(left(firewall).empty)\n"
    )
    only = (f"--bounding-set=-all,{capabilities}", f"--inh-caps=-all,{capabilities}")
    said = kernel.run("setpriv", *only, sys.executable, "-c", script).strip()
    assert said == ("True" if "net_raw" in capabilities else iptables.NO_RAW_SOCKETS)


@pytest.mark.parametrize(
    ("name", "said"),
    [("a" * 29, "the kernel takes 28"), ("a jail", "a name begins"), ("x-v6", "'-v6' are kept"), ("", "a name begins")],
)
def test_a_name_that_cannot_be_a_set_is_refused_and_the_others_go_on(kernel: Host, name: str, said: str) -> None:
    """One bad row does not keep the other jails out of the kernel."""
    firewall = IpsetFirewall()
    bad = Plan((name, "a"), {name: {"192.0.2.1": FOREVER}, "a": {"192.0.2.1": FOREVER}}, {name: Rule((name,), EXIM)})
    with pytest.raises(IncompleteError, match=said) as caught:
        firewall.apply(bad, now())
    assert [refusal.jail for refusal in caught.value.refused] == [name]
    assert firewall.read([name, "a"]).entries == {"a": {"192.0.2.1": FOREVER}}


def test_a_chain_of_an_impossible_name_is_a_fault_of_the_configuration() -> None:
    """It is found before anything is changed."""
    with pytest.raises(ConfigError, match="is no name of an iptables chain"):
        IpsetFirewall(chains=("INPUT\n-F",))


def test_programs_that_are_not_there_are_named_with_their_package() -> None:
    """The message is what to install."""
    with pytest.raises(FirewallError, match="no-iptables-save not found; install Debian's package iptables"):
        iptables.read(iptables.Family("IPv4", "no-iptables", ""))


def test_ip6tables_that_does_not_work_leaves_ipv4_enforced(
    kernel: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPv4 is in force, the error and `missing` say that IPv6 is not, and it can be mended later."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for program in ("ip6tables-save", "ip6tables-restore"):
        (broken / program).write_text("#!/bin/sh\necho no IPv6 here >&2\nexit 3\n")
        (broken / program).chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{broken}:{path}")
    firewall = IpsetFirewall()
    with pytest.raises(
        IncompleteError, match="IPv6 bans are not enforced: ip6tables-save failed with status 3: no IPv6"
    ):
        firewall.apply(left(firewall), now())
    assert "--match-set mc-exim-all" in kernel.run("iptables-save")
    assert any("no IPv6 here" in one.said for one in look(firewall).missing)
    monkeypatch.setenv("PATH", path)
    firewall.apply(left(firewall), now())
    assert left(firewall).empty


def test_control_c_in_the_instant_in_which_a_program_starts_leaves_no_half(
    kernel: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses it twice has the rules taken down all the same."""
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    hit = tmp_path / "hit"
    hit.mkdir()
    real = which("iptables-restore", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    program = hit / "iptables-restore"
    program.write_text(f'#!/bin/sh\nmkdir {hit}/once && kill -INT $$\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hit}:{os.environ['PATH']}")
    firewall.remove(["mc-exim-1d"])
    assert (hit / "once").is_dir() and "mcban" not in kernel.run("iptables-save")


def test_a_kernel_without_ipv6_needs_no_rules_for_it(kernel: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet can come that way, so nothing is missing."""
    monkeypatch.setattr(backend, "families", lambda: (iptables.IPV4,))
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    assert left(firewall).empty
    assert "mcban" not in kernel.run("ip6tables-save")


def test_a_chain_that_does_not_exist_yet_is_named_and_used_when_it_comes(kernel: Host) -> None:
    """DOCKER-USER may be named before Docker has made it."""
    firewall = IpsetFirewall(chains=("INPUT", "DOCKER-USER"))
    firewall.apply(left(firewall), now())
    assert look(firewall).absent == ("DOCKER-USER",)
    assert look(firewall).missing == ()
    assert left(firewall).empty
    kernel.run("iptables", "-N", "DOCKER-USER")
    kernel.run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    firewall.apply(left(firewall), now())
    assert kernel.run("iptables", "-S", "DOCKER-USER").splitlines()[1] == "-A DOCKER-USER -j mcban"
    assert look(firewall).absent == ()  # no packet comes by a chain that its family does not have


def test_many_refused_entries_are_each_named(host: Host) -> None:
    """A set that is full by far loses no name."""
    firewall = IpsetFirewall(maxelem=2000, most=2000)
    ends = {f"10.0.{n >> 8}.{n & 255}": FOREVER for n in range(5000)}
    refused = firewall.apply(Plan(create=("a",), add={"a": ends}), now())
    held = firewall.read(["a"]).entries["a"]
    assert 2000 <= len(held) < 2100  # the kernel counts by regions of the hash, and is generous at its limit
    assert held.keys() | {refusal.entry for refusal in refused} == ends.keys()


def test_what_is_no_entry_at_all_is_refused_by_name(host: Host) -> None:
    """A row that someone typed by hand does not keep the others out."""
    firewall = IpsetFirewall()
    bad = {"no address": FOREVER, "192.0.2.1/99": FOREVER, "0.0.0.0/0": FOREVER, "::/0": FOREVER}
    good = {f"192.0.2.{number}": FOREVER for number in range(100)} | {"2001:db8::1": FOREVER}
    refused = firewall.apply(Plan(create=("a",), add={"a": bad | good}), now())
    assert {refusal.entry for refusal in refused} == bad.keys()
    assert firewall.read(["a"]).entries["a"] == good


def test_a_set_that_somebody_else_makes_at_the_same_moment_is_taken(
    kernel: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command and the engine may both find that a jail has no set yet."""
    firewall = IpsetFirewall()
    create = Sets.create

    def create_late(sets: Sets, *arguments: Any) -> None:
        create(Sets(), *arguments)
        create(sets, *arguments)

    monkeypatch.setattr(Sets, "create", create_late)
    assert firewall.apply(Plan(("a",), {"a": {"192.0.2.1": FOREVER}}), now()) == []
    assert firewall.read(["a"]).entries["a"] == {"192.0.2.1": FOREVER}


def test_a_list_that_somebody_else_makes_at_the_same_moment_is_taken(
    kernel: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`jail add` and the engine that notices it both find that a group has no list yet; what has the list's name and is
    none is said."""
    create_list, rules = Sets.create_list, {"a": Rule(("a",), Ports(((25, 25),)))}

    def create_late(sets: Sets, name: str) -> None:
        create_list(Sets(), name)
        create_list(sets, name)

    monkeypatch.setattr(Sets, "create_list", create_late)
    assert IpsetFirewall().apply(Plan(("a",), {"a": {"192.0.2.1": FOREVER}}, rules), now()) == []
    assert "a-all" in kernel.run("ipset", "list", "-n").split()
    kernel.run("ipset", "create", "b-all", "hash:ip")
    with pytest.raises(FirewallError, match="b-all: a set of this name, but of another kind, is there"):
        create_list(Sets(), "b-all")


def test_a_set_that_is_gone_has_left_its_list(kernel: Host) -> None:
    """A command and the engine may both take a jail's set away."""
    sets = Sets()
    sets.create_list("some-all")
    sets.leave("some-all", "no-such-set")
    sets.leave("no-such-list", "no-such-set")
    sets.close()
