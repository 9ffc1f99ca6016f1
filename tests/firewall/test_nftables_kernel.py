"""The nftables backend and a real kernel: what it makes, what it mends, what it leaves alone."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Plan, Rule, Wanted, plan
from mcban.errors import ConfigError, FirewallError, NoPermissionError
from mcban.firewall import nft_wire as wire
from mcban.firewall.base import IncompleteError
from mcban.firewall.nft_link import Link, Refused, Request
from mcban.firewall.nftables import NftablesFirewall
from tests.firewall.test_ipset_kernel import now, wanted
from tests.netns import Host
from tests.patience import before_its_end, until


def left(firewall: NftablesFirewall) -> Plan:
    return plan(wanted(), firewall.read(list(wanted().entries)), now(), firewall.longest)


@pytest.fixture
def firewall(host: Host) -> Iterator[NftablesFirewall]:
    """A backend that has applied what is wanted."""
    firewall = NftablesFirewall()
    firewall.apply(left(firewall), now())
    yield firewall
    firewall.close()


def ruleset(host: Host) -> str:
    """What `nft list ruleset` shows, without what runs out."""
    return re.sub(r" expires \w+", "", host.run("nft", "list", "ruleset"))


def test_the_table_can_be_read_by_a_person(firewall: NftablesFirewall, host: Host) -> None:
    """One rule for each group, before the usual chains; sets carry the names of the jails."""
    text = ruleset(host)
    assert "type filter hook input priority filter - 10; policy accept;" in text
    assert "tcp dport @mc-exim/ports jump mc-exim\n" in text
    assert "elements = { 25, 465, 587 }" in text
    assert "ip saddr @mc-exim-1d goto act/reject\n" in text
    assert "ip6 saddr @mc-exim-1d-v6/ranges goto act/reject\n" in text
    assert re.search(r"192\.0\.2\.1 timeout (9m\d+s|10m)", text)


@pytest.mark.parametrize("name", ["tcp", "9a", "drop", "ip", "my-jail", "a.b_c-9", "auto-merge"])
def test_what_nft_lists_it_can_load_again(host: Host, name: str) -> None:
    """A ruleset saved while we run loads at boot, also with a jail named like a word of nft."""
    firewall = NftablesFirewall()
    aim = Wanted({name: Rule((name,), Ports(((1, 9),)))}, {name: {"192.0.2.1": FOREVER, "2001:db8::/32": FOREVER}})
    firewall.apply(plan(aim, firewall.read([name]), now(), firewall.longest), now())
    saved = ruleset(host)
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", text=saved)
    assert ruleset(host) == saved
    assert plan(aim, NftablesFirewall().read([name]), now(), firewall.longest).empty


DAMAGE = [
    "flush ruleset",
    "delete table inet mcban",
    "flush chain inet mcban hook/input",
    "flush chain inet mcban mc-exim",
    "flush table inet mcban",
    "insert rule inet mcban hook/input accept",
    "insert rule inet mcban mc-ssh ip saddr 192.0.2.0/24 return",
    "add rule inet mcban act/reject accept",
    "add table inet mcban { flags dormant; }",
    "add element inet mcban mc-exim/ports { 80 }",
    "delete element inet mcban mc-exim/ports { 25 }",
    "flush set inet mcban mc-exim/ports",
    "flush ruleset; add table inet mcban; add set inet mcban mc-exim-1d { type ipv6_addr; }",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_others_break_is_noticed_and_mended(firewall: NftablesFirewall, host: Host, damage: str) -> None:
    """Whoever flushes, deletes or alters: the next look says what is missing, the next sync puts it back."""
    before = ruleset(host)
    assert left(firewall).empty
    assert firewall.glance(()).whole
    host.run("nft", damage)
    assert not firewall.glance(()).whole
    actual = firewall.read(list(wanted().entries))
    assert actual.missing
    firewall.apply(plan(wanted(), actual, now(), firewall.longest), now())
    assert left(firewall).empty
    assert firewall.read(list(wanted().entries)).missing == ()
    assert firewall.glance(()).whole
    assert sorted(ruleset(host).split("\n")) == sorted(before.split("\n"))


def test_flushed_entries_are_counted_and_put_back(firewall: NftablesFirewall, host: Host) -> None:
    """A flushed set is drift like any other, and a glance shows it."""
    left(firewall)
    assert firewall.glance(()).counts["mc-exim-1d"] == 2
    host.run("nft", "flush", "set", "inet", "mcban", "mc-exim-1d")
    assert firewall.glance(()).counts["mc-exim-1d"] == 1
    firewall.apply(left(firewall), now())
    assert left(firewall).empty


@pytest.mark.parametrize("change", ["flush set", "add element", "delete element"])
def test_ranges_that_others_alter_are_worked_out_again(firewall: NftablesFirewall, host: Host, change: str) -> None:
    """No network is called banned whose addresses come through, and none stays closed that nobody wants."""
    left(firewall)
    name = ["inet", "mcban", "mc-exim-bl/ranges"]
    element = {"add element": ["{ 10.0.0.0/8 }"], "delete element": ["{ 198.51.100.0/24 }"]}.get(change, [])
    before = host.run("nft", "list", "set", *name)
    host.run("nft", *change.split(), *name, *element)
    assert not firewall.glance(()).whole
    firewall.apply(left(firewall), now())
    assert host.run("nft", "list", "set", *name) == before
    assert left(firewall).empty
    host.run("nft", "add", "element", "inet", "mcban", "mc-ssh-1d/ranges", "{ 10.0.0.0/8 }")
    firewall.apply(left(firewall), now())
    assert "elements" not in host.run("nft", "list", "set", "inet", "mcban", "mc-ssh-1d/ranges")
    assert left(firewall).empty


def test_a_glance_sees_what_ends_and_what_another_process_bans(firewall: NftablesFirewall) -> None:
    """The count is that of the kernel at that moment."""
    left(firewall)

    def banned_until(end: int) -> int:
        NftablesFirewall().apply(Plan(add={"mc-ssh-1d": {"192.0.2.5": end, "192.0.2.6": FOREVER}}), now())
        return firewall.glance(()).counts["mc-ssh-1d"]

    assert before_its_end(banned_until) == 2
    until(lambda: firewall.glance(()).counts["mc-ssh-1d"] == 1, "the end")


def test_rules_of_others_that_come_and_go_need_no_whole_look(firewall: NftablesFirewall, host: Host) -> None:
    """A glance sees through the bustle of other programs."""
    left(firewall)
    for command in ("iptables -A INPUT -j ACCEPT", "nft add table inet theirs", "nft delete table inet theirs"):
        host.run(*command.split())
        assert firewall.glance(()).whole


def test_what_others_do_elsewhere_costs_no_reading(
    firewall: NftablesFirewall, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known that others are busy, entries are read again only when our own table was touched, be it in the
    midst of their changes and of our bans; and then the count is right."""
    held = {f"192.0.2.{n}": FOREVER for n in range(10)}
    firewall.apply(Plan(add={"mc-ssh-1d": held}), now())
    left(firewall)
    base = firewall.glance(()).counts["mc-ssh-1d"]
    dumps: list[str] = []
    usual = Link.dump

    def noted(link: Link, what: str, command: int, *rest: Any) -> list[bytes] | None:
        if command == wire.GETSETELEM:
            dumps.append(what)
        return usual(link, what, command, *rest)

    monkeypatch.setattr(Link, "dump", noted)

    def glance() -> tuple[bool, int, bool]:
        dumps.clear()
        seen = firewall.glance(())
        return seen.whole, seen.counts["mc-ssh-1d"], bool(dumps)

    def bustle() -> None:
        host.run("nft", "add table inet theirs; add set inet theirs s { type ipv4_addr; }")
        host.run("nft", "add element inet theirs s { 192.0.2.1, 192.0.2.2 }; delete table inet theirs")

    bustle()
    assert glance() == (True, base, True)
    for number in range(5):
        bustle()
        assert glance() == (True, base + number, False)
        bustle()
        firewall.apply(Plan(add={"mc-ssh-1d": {f"198.51.100.{number}": FOREVER}}), now())
        bustle()
        assert glance() == (True, base + number + 1, False)
    bustle()
    host.run("nft", "delete element inet mcban mc-ssh-1d { 192.0.2.1 }")
    bustle()
    assert glance() == (True, base + 4, True)
    bustle()
    firewall.apply(Plan(remove={"mc-ssh-1d": {"192.0.2.2"}}), now())
    assert glance()[:2] == (True, base + 3)
    bustle()
    assert glance() == (True, base + 3, False)
    NftablesFirewall().apply(Plan(add={"mc-ssh-1d": {"203.0.113.1": FOREVER}}), now())
    assert glance() == (True, base + 4, True)
    many = {f"198.18.{n >> 8}.{n & 255}": FOREVER for n in range(20_000)}
    firewall.apply(Plan(add={"mc-ssh-1d": many}), now())
    assert glance()[:2] == (True, base + 20_004)
    host.run("nft", "flush", "ruleset")
    assert not firewall.glance(()).whole


def test_a_new_process_finds_the_state_whole(firewall: NftablesFirewall) -> None:
    """A restart has nothing to do."""
    other = NftablesFirewall()
    assert left(other).empty
    assert other.glance(()).whole
    other.close()


def test_rules_and_sets_of_others_are_left_alone(host: Host) -> None:
    """What others made before is byte for byte the same while we run beside it and after we are gone."""
    theirs = (
        "add table inet f2b; add set inet f2b addr-set-sshd { type ipv4_addr; flags interval; auto-merge; };"
        "add element inet f2b addr-set-sshd { 192.0.2.0/24 }; add table ip mcban;"
        "add chain inet f2b in { type filter hook input priority -1; };"
        "add rule inet f2b in ip saddr @addr-set-sshd counter reject"
    )
    host.run("nft", theirs)
    host.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    host.run("ipset", "create", "mc-exim-1d", "hash:ip")

    def saved() -> list[str]:
        text = ruleset(host) + host.run("iptables-save") + host.run("ip6tables-save") + host.run("ipset", "save")
        return [line for line in re.sub(r"\[\d+:\d+\]", "", text).splitlines() if not line.startswith("#")]

    before = saved()
    firewall = NftablesFirewall(chains=("INPUT", "FORWARD"))
    firewall.apply(left(firewall), now())
    assert set(before) <= set(saved())
    firewall.remove(list(wanted().entries))
    assert saved() == before


def test_old_kernels_do_as_well(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be added twice, renewals and overlaps take the long way and end the same."""
    commit = Link.commit

    def strict(link: Link, requests: list[Request], generation: int | None = None) -> None:
        if any(flags & 0x200 for _, flags, _ in requests):
            raise Refused(errno.EEXIST)
        commit(link, requests, generation)

    monkeypatch.setattr(Link, "commit", strict)
    firewall = NftablesFirewall()
    firewall.apply(left(firewall), now())
    assert left(firewall).empty


def test_two_processes_that_ban_overlapping_networks_lose_none(host: Host) -> None:
    """Each works the ranges out from what the other has done."""
    first, second = NftablesFirewall(), NftablesFirewall()
    first.apply(Plan(create=("a",)), now())
    networks = [f"10.{n}.0.0/16" for n in range(20)] + [f"10.{n}.{n}.0/24" for n in range(20)] + ["10.0.0.0/9"]
    for at, network in enumerate(networks):
        (first, second)[at % 2].apply(Plan(add={"a": {network: FOREVER}}), now())
    for network in networks[:40:3]:
        second.apply(Plan(remove={"a": {network}}), now())
    held = first.read(["a"]).entries["a"].keys()
    assert held == set(networks) - set(networks[:40:3])
    assert "elements = { 10.0.0.0/9 }" in host.run("nft", "list", "set", "inet", "mcban", "_a/ranges")


def test_one_capability_is_enough(host: Host) -> None:
    """CAP_NET_ADMIN and nothing else; without it the error names it and how a container gets it."""
    script = (
        "from tests.firewall.test_nftables_kernel import *\n"
        "firewall = NftablesFirewall()\nfirewall.apply(left(firewall), now())\nprint(left(firewall).empty)\n"
    )
    only = ("--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")
    assert host.run("setpriv", *only, sys.executable, "-c", script).strip() == "True"

    def unprivileged(method: str) -> None:
        os.setgroups([])
        os.setuid(65534)
        arguments = {"apply": [Plan(("a",)), 0], "stands": []}.get(method, [["a"]])
        getattr(NftablesFirewall(), method)(*arguments)

    for method in ("stands", "read", "apply", "remove", "glance"):
        with pytest.raises(NoPermissionError, match=r"CAP_NET_ADMIN is missing; .*--cap-add=NET_ADMIN"):
            host.call(unprivileged, method)


def test_what_is_no_entry_at_all_is_refused_by_name(host: Host) -> None:
    """A row that someone typed by hand does not keep the others out."""
    firewall = NftablesFirewall()
    bad = dict.fromkeys(("no address", "192.0.2.1/99", "0.0.0.0/0", "::/0", "192.0.2.1/24", "::1/x"), FOREVER)
    good = {f"192.0.2.{number}": FOREVER for number in range(100)} | {"2001:db8::1": FOREVER, "255.0.0.0/8": FOREVER}
    refused = firewall.apply(Plan(create=("a",), add={"a": bad | good}), now())
    assert {refusal.entry for refusal in refused} == bad.keys()
    assert firewall.read(["a"]).entries["a"] == good


def test_a_set_that_vanishes_is_an_error_worth_a_retry(firewall: NftablesFirewall, host: Host) -> None:
    """The next round mends it."""
    host.run("nft", "flush", "ruleset")
    with pytest.raises(FirewallError, match="vanished meanwhile; the next sync puts it back"):
        firewall.apply(Plan(add={"mc-ssh-1d": {"192.0.2.1": FOREVER}}), now())
    assert not firewall.glance(()).whole
    firewall.apply(left(firewall), now())
    assert left(firewall).empty


def test_a_set_that_vanishes_keeps_no_other_from_its_bans(host: Host) -> None:
    """What is for other sets is there at once."""
    firewall = NftablesFirewall()
    firewall.apply(Plan(create=("a", "b")), now())
    for name in re.findall(r"set (_a\S*) {", host.run("nft", "list", "table", "inet", "mcban")):
        host.run("nft", "delete", "set", "inet", "mcban", name)
    some = {"192.0.2.1": FOREVER, "2001:db8::/32": FOREVER}
    with pytest.raises(IncompleteError, match="vanished meanwhile; the next sync puts it back"):
        firewall.apply(Plan(add={"a": some, "b": some}), now())
    assert firewall.read(["a", "b"]).entries == {"b": some}


def test_names_and_chains_that_cannot_be_are_named(host: Host) -> None:
    """One bad row does not keep the other jails out of the kernel."""
    with pytest.raises(ConfigError, match="knows no chain 'OUTPUT', but INPUT, FORWARD, DOCKER-USER"):
        NftablesFirewall(chains=("OUTPUT",))
    firewall = NftablesFirewall()
    rules = {"x/y": Rule(("a",), Ports(()))}
    with suppress(IncompleteError), pytest.raises(IncompleteError, match="a name begins"):
        firewall.apply(Plan(("x/y", "a"), {"x/y": {"192.0.2.1": FOREVER}, "a": {"192.0.2.1": FOREVER}}, rules), now())
    assert firewall.read(["a"]).entries == {"a": {"192.0.2.1": FOREVER}}
