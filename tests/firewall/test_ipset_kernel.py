"""The ipset backend and a real kernel: what it makes, what it mends, what it leaves alone."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from mcban.core.model import FOREVER, Ports
from mcban.core.plan import Actual, Plan, Rule, Wanted, plan
from mcban.firewall.base import IncompleteError
from mcban.firewall.ipset import IpsetFirewall
from tests.netns import Host
from tests.patience import until

EXIM = Ports(((25, 25), (465, 465), (587, 587)))


def now() -> int:
    return int(time.time())


def wanted() -> Wanted:
    return Wanted(
        {
            "mc-exim": Rule(("mc-exim-1d", "mc-exim-bl"), EXIM),
            "mc-ssh": Rule(("mc-ssh-1d",), Ports(((22, 22),))),
        },
        {
            "mc-exim-1d": {"192.0.2.1": now() + 600, "2001:db8::1": now() + 600},
            "mc-exim-bl": {"198.51.100.0/24": FOREVER},
            "mc-ssh-1d": {},
        },
    )


def look(firewall: IpsetFirewall) -> Actual:
    return firewall.read(list(wanted().entries))


def left(firewall: IpsetFirewall) -> Plan:
    return plan(wanted(), look(firewall), now(), firewall.longest)


@pytest.fixture
def firewall(kernel: Host) -> Iterator[IpsetFirewall]:
    """A backend that has applied what is wanted."""
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    yield firewall
    firewall.close()


def saved(host: Host) -> list[str]:
    """Rules and sets as text, without times, counters and the random start of a set's hash."""
    text = host.run("iptables-save") + host.run("ip6tables-save") + host.run("ipset", "save")
    text = re.sub(r"\[\d+:\d+\]", "", re.sub(r" initval \w+", "", text))
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_sets_and_lists_have_the_names_that_people_look_for(firewall: IpsetFirewall, kernel: Host) -> None:
    """`ipset list mc-exim-1d` shows who is banned there; the list of the group holds all of its sets."""
    names = kernel.run("ipset", "list", "-n").split()
    jails = ["mc-exim-1d", "mc-exim-bl", "mc-ssh-1d"]
    assert sorted(names) == sorted([*jails, *(f"{jail}-v6" for jail in jails), "mc-exim-all", "mc-ssh-all"])
    assert "192.0.2.1 timeout" in kernel.run("ipset", "list", "mc-exim-1d")
    assert "198.51.100.0/24 timeout 0" in kernel.run("ipset", "list", "mc-exim-bl")
    assert kernel.run("ipset", "save", "mc-exim-all").count("\nadd ") == 4


def test_rules_are_one_for_each_group_and_family_behind_one_jump(firewall: IpsetFirewall, kernel: Host) -> None:
    """However many tiers and entries there are, a packet passes as many rules as there are groups."""
    for program in ("iptables-save", "ip6tables-save"):
        lines = [line for line in kernel.run(program, "-t", "filter").splitlines() if line.startswith("-A")]
        line = "-A mcban -p tcp -m set --match-set {} src -m multiport --dports {} -j REJECT --reject-with tcp-reset"
        assert sorted(lines) == [
            "-A INPUT -j mcban",
            line.format("mc-exim-all", "25,465,587"),
            line.format("mc-ssh-all", "22"),
        ]


def eventually(host: Host, command: str) -> None:
    """Run a command by hand; nf_tables lets go of sets only a moment after their rules are gone."""
    until(lambda: host.process(*command.split()).returncode == 0, command)


RULES = [
    ["iptables -F"],
    ["ip6tables -F"],
    ["iptables -F", "iptables -X", "ip6tables -F", "ip6tables -X"],
    ["iptables -D INPUT -j mcban"],
    ["ip6tables -D INPUT -j mcban"],
    ["iptables -I INPUT -p tcp -j ACCEPT"],
    ["iptables -I INPUT -j mcban"],
    ["iptables -F mcban"],
    ["iptables -D mcban 1"],
    ["iptables -I mcban -s 192.0.2.0/24 -j RETURN"],
    ["iptables -A mcban -m set --match-set mc-exim-all src -j ACCEPT"],
]
SETS = [
    ["ipset del mc-exim-all mc-exim-bl-v6"],
    ["ipset flush mc-exim-all"],
    ["ipset del mc-exim-all mc-exim-bl", "ipset del mc-exim-all mc-exim-bl-v6", "ipset destroy mc-exim-bl"],
    ["iptables -F", "ip6tables -F", "ipset flush", "ipset destroy"],
]
UNSEEN = [["iptables -I INPUT -j mcban"]]


@pytest.mark.parametrize("damage", [*RULES, *SETS], ids=", ".join)
def test_what_others_break_is_noticed_and_mended(firewall: IpsetFirewall, kernel: Host, damage: list[str]) -> None:
    """Whoever flushes, destroys or reorders: the next read says what is missing, the next sync puts it back."""
    before = saved(kernel)
    assert look(firewall).missing == ()
    assert firewall.glance(()).whole
    for command in damage:
        eventually(kernel, command)
    assert firewall.glance(()).whole == (damage in UNSEEN)
    actual = look(firewall)
    if damage not in UNSEEN:  # a second jump in front does no harm, and goes at the next occasion
        assert actual.missing
        assert not plan(wanted(), actual, now(), firewall.longest).empty
    firewall.apply(plan(wanted(), actual, now(), firewall.longest), now())
    assert left(firewall).empty
    assert look(firewall).missing == ()
    assert firewall.glance(()).whole
    after = saved(kernel)
    others = {"-A INPUT -p tcp -j ACCEPT"}
    assert {re.sub(r"timeout \d+", "", x) for x in after} - others >= {re.sub(r"timeout \d+", "", x) for x in before}


def test_rules_of_others_that_come_and_go_need_no_whole_look(firewall: IpsetFirewall, kernel: Host) -> None:
    """A glance sees through the bustle of other programs, and sees in it what concerns us."""
    look(firewall)
    for command in ("iptables -A INPUT -j ACCEPT", "nft add table inet theirs", "ip6tables -P FORWARD DROP"):
        kernel.run(*command.split())
        assert firewall.glance(()).whole
    kernel.run("ip6tables", "-I", "INPUT", "-j", "ACCEPT")
    assert not firewall.glance(()).whole
    kernel.run("ip6tables", "-D", "INPUT", "1")
    assert firewall.glance(()).whole


def test_nft_flush_ruleset_is_mended(host: Host) -> None:
    """A firewall that reloads its whole rule set takes ours away for one round only."""
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    host.run("nft", "flush", "ruleset")
    assert look(firewall).rules == {}
    assert any("chain mcban is gone" in one.said for one in look(firewall).missing)
    firewall.apply(left(firewall), now())
    assert left(firewall).empty


def test_flushed_entries_are_put_back(firewall: IpsetFirewall, kernel: Host) -> None:
    """`ipset flush` is drift like any other."""
    kernel.run("ipset", "flush")
    firewall.apply(left(firewall), now())
    assert left(firewall).empty
    assert "192.0.2.1" in kernel.run("ipset", "list", "mc-exim-1d")


def test_a_new_process_finds_the_state_whole(firewall: IpsetFirewall) -> None:
    """A restart has nothing to do, and sees half a jail without having made it."""
    other = IpsetFirewall()
    assert left(other).empty
    assert look(other).missing == ()
    other.close()


def test_rules_and_sets_of_others_are_left_alone(kernel: Host) -> None:
    """What others made before is byte for byte the same while we run beside it and after we are gone."""
    kernel.run("ipset", "create", "theirs", "hash:net", "timeout", "0", "comment", "counters")
    kernel.run("ipset", "add", "theirs", "192.0.2.0/24", "comment", "of others")
    kernel.run("ipset", "create", "theirs-all", "list:set")
    kernel.run("ipset", "add", "theirs-all", "theirs")
    for family in ("iptables", "ip6tables"):
        kernel.run(family, "-N", "f2b-sshd")
        kernel.run(family, "-A", "INPUT", "-p", "tcp", "-m", "multiport", "--dports", "22", "-j", "f2b-sshd")
        kernel.run(family, "-A", "f2b-sshd", "-m", "set", "--match-set", "theirs-all", "src", "-j", "DROP")
        kernel.run(family, "-A", "FORWARD", "-m", "comment", "--comment", "to mcban -j mcban", "-j", "ACCEPT")
        kernel.run(family, "-P", "FORWARD", "DROP")
    before = saved(kernel)
    firewall = IpsetFirewall(chains=("INPUT", "FORWARD"))
    firewall.apply(left(firewall), now())
    assert set(before) <= set(saved(kernel))
    assert "theirs" not in look(firewall).entries
    firewall.remove(list(wanted().entries))
    assert saved(kernel) == before


@pytest.mark.parametrize("named", [True, False])
def test_remove_leaves_nothing_even_when_the_rules_went_before(kernel: Host, named: bool) -> None:
    """After somebody flushed the rules, `stop` still finds our sets by the jails' names."""
    before = saved(kernel)
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    if named:
        kernel.run("iptables", "-F")
        kernel.run("ip6tables", "-F")
    firewall.remove(list(wanted().entries) if named else [])
    assert kernel.run("ipset", "save") == ""
    assert "mcban" not in "".join(saved(kernel))
    assert [line for line in before if "mcban" in line] == []


def test_a_rule_of_others_that_leads_to_our_chain_is_named(firewall: IpsetFirewall, kernel: Host) -> None:
    """Their rule stays, our chain stays empty for it, and the error says which rule it is."""
    kernel.run("iptables", "-A", "FORWARD", "-p", "tcp", "-j", "mcban")
    with pytest.raises(IncompleteError, match="-A FORWARD -p tcp -j mcban"):
        firewall.remove([])
    assert kernel.run("ipset", "save") == ""
    assert kernel.run("iptables", "-S", "mcban").split() == ["-N", "mcban"]


@pytest.mark.parametrize(
    ("kind", "said"), [(["hash:ip", "timeout", "0"], "hash:ip"), (["hash:net"], "hash:net without timeouts")]
)
def test_a_set_of_others_under_our_name_is_named_and_kept(kernel: Host, kind: list[str], said: str) -> None:
    """It is neither filled nor destroyed; the error names it and what to do, and every other jail is in force."""
    kernel.run("ipset", "create", "mc-exim-1d", *kind)
    kernel.run("ipset", "add", "mc-exim-1d", "203.0.113.1")
    before = kernel.run("ipset", "save", "mc-exim-1d")
    firewall = IpsetFirewall()
    with pytest.raises(IncompleteError, match=f"set mc-exim-1d is there, .*{said}.*ipset rename") as caught:
        firewall.apply(left(firewall), now())
    assert {(r.entry, r.why) for r in caught.value.refused} == {("192.0.2.1", "set mc-exim-1d is not ours")}
    assert "set mc-exim-1d is of others" in [one.said for one in look(firewall).missing]
    assert look(firewall).entries.keys() == {"mc-exim-bl", "mc-ssh-1d"}
    assert "mc-ssh" in look(firewall).rules
    firewall.remove(list(wanted().entries))
    assert kernel.run("ipset", "save", "mc-exim-1d") == before


def test_a_jail_that_others_use_is_not_torn_away(firewall: IpsetFirewall, kernel: Host) -> None:
    """A set of ours in a rule of others cannot be destroyed: that is said, and the rest is done."""
    kernel.run("iptables", "-A", "FORWARD", "-m", "set", "--match-set", "mc-exim-1d", "src", "-j", "DROP")
    with pytest.raises(IncompleteError, match="cannot destroy set mc-exim-1d: a rule or list of others uses it"):
        firewall.remove([])
    assert kernel.run("ipset", "list", "-n").split() == ["mc-exim-1d"]


def test_a_set_that_vanishes_keeps_nobody_banned_in_others(kernel: Host) -> None:
    """Who is let in everywhere is let in there at once."""
    firewall, entry = IpsetFirewall(), {"192.0.2.1": FOREVER, "2001:db8::1": FOREVER}
    firewall.apply(Plan(create=("a", "b"), add={"a": entry, "b": entry}), now())
    kernel.run("ipset", "destroy", "a")
    assert firewall.apply(Plan(remove={"a": entry.keys(), "b": entry.keys()}), now()) == []
    assert firewall.read(["a", "b"]).entries == {"b": {}}


def test_a_set_that_vanishes_between_read_and_apply_is_an_error_worth_a_retry(kernel: Host) -> None:
    """The next round mends it; what is for other sets is there at once."""
    firewall = IpsetFirewall()
    firewall.apply(Plan(create=("a", "b")), now())
    kernel.run("ipset", "destroy", "a")
    for number, said in ((1, "a: a set vanished meanwhile"), (2, "a is gone")):
        entry = {f"192.0.2.{number}": FOREVER}
        with pytest.raises(IncompleteError, match=f"set {said}; the next sync puts it back"):
            firewall.apply(Plan(add={"a": entry, "b": entry}), now())
        assert f"192.0.2.{number}" in kernel.run("ipset", "list", "b").split()
    only = Wanted({}, {"a": {"192.0.2.1": FOREVER}})
    firewall.apply(plan(only, firewall.read(["a"]), now(), firewall.longest), now())
    assert firewall.read(["a"]).entries == only.entries


def test_more_ports_than_a_rule_takes_are_spread_over_rules(kernel: Host) -> None:
    """Fifteen ports fit a rule, a range counts as two; all of them are there, in order."""
    ports = Ports((*((port, port) for port in range(1, 15)), (100, 200), (300, 300), (400, 500)))
    firewall = IpsetFirewall()
    only = Wanted({"g": Rule(("a",), ports)}, {"a": {}})
    firewall.apply(plan(only, firewall.read(["a"]), now(), firewall.longest), now())
    lines = re.findall(r"--dports (\S+)", kernel.run("iptables-save"))
    assert lines == ["1,2,3,4,5,6,7,8,9,10,11,12,13,14", "100:200,300,400:500"]
    assert plan(only, firewall.read(["a"]), now(), firewall.longest).empty
    kernel.run("iptables", "-D", "mcban", "2")
    assert firewall.read(["a"]).rules == {}


def test_it_works_after_fork_and_under_signals(host: Host) -> None:
    """A child gets sockets of its own, and a signal that arrives in the middle disturbs no request."""
    firewall = IpsetFirewall()
    firewall.apply(left(firewall), now())
    assert host.call(lambda: left(firewall).empty)
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(10):
            assert left(firewall).empty
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) > 10


def test_sets_of_our_shape_with_extras_are_read_as_well(host: Host) -> None:
    """A set that was made before with counters and comments serves; `nomatch` entries are no bans."""
    host.run("ipset", "create", "a", "hash:net", "timeout", "300", "counters", "comment")
    for entry in ("192.0.2.1", "192.0.2.0/24", "198.51.100.1 nomatch"):
        host.run("ipset", "add", "a", *entry.split(), "timeout", "0", "comment", "by hand")
    firewall = IpsetFirewall()
    firewall.apply(Plan(create=("a",), add={"a": {"203.0.113.1": FOREVER}}), now())
    assert firewall.read(["a"]).entries["a"] == dict.fromkeys(("192.0.2.1", "192.0.2.0/24", "203.0.113.1"), FOREVER)
