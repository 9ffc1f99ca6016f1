"""Our lines in other programs' text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.model import Ports
from mcban.core.plan import Rule
from mcban.firewall.base import group_fault, name_fault
from mcban.firewall.iptables import IPV4, IPV6, Family, installation, lines, parse, removal

port = st.integers(1, 65535)
ports = st.lists(st.tuples(port, port).map(lambda pair: (min(pair), max(pair))), max_size=40).map(
    lambda ranges: Ports(tuple(ranges))
)
rule = st.builds(Rule, st.just(()), ports, st.booleans())
rules = st.dictionaries(st.sampled_from(["mc-exim", "mc-ssh", "my-jail", "a.b_c"]), rule)
SAVED = "*filter\n:INPUT ACCEPT [0:0]\n:mcban - [0:0]\n-A INPUT -j mcban\n{}\nCOMMIT\n"


@given(rules, st.sampled_from([IPV4, IPV6]))
def test_what_we_write_is_what_we_recognise(rules: dict[str, Rule], family: Family) -> None:
    """Whatever ports a group has, its lines are read back as that rule."""
    table = parse(family, SAVED.format("\n".join(line for g, r in rules.items() for line in lines(family, g, r))))
    assert table.rules == rules
    assert not table.broken and not table.strange
    assert table.jump_stands("INPUT")


@given(ports)
def test_no_line_has_more_ports_than_multiport_takes(ports: Ports) -> None:
    """Fifteen, where a range counts as two."""
    for line in lines(IPV4, "g", Rule((), ports)):
        if "--dports" in line:
            listed = line.split("--dports ")[1].split()[0].split(",")
            assert sum(2 if ":" in one else 1 for one in listed) <= 15


@pytest.mark.parametrize(
    "change",
    [
        ("25,465", "25"),
        ("tcp-reset", "icmp-port-unreachable"),
        ("-j REJECT --reject-with tcp-reset", "-j ACCEPT"),
        (" src ", " dst "),
        ("-p tcp", "-p udp"),
        ("-p tcp", "-p tcp -s 192.0.2.1/32"),
        ("set --match-set", "set ! --match-set"),
    ],
)
def test_a_line_that_was_altered_is_not_ours(change: tuple[str, str]) -> None:
    """A rule counts as whole only when it does exactly what it should."""
    rule = Rule((), Ports(((25, 25), (465, 465), (80, 80))))
    good = lines(IPV4, "mc-exim", rule)[0]
    table = parse(IPV4, SAVED.format(good.replace(*change)))
    assert table.broken == {"mc-exim"} or not rule.does(table.rules.get("mc-exim"))


def test_the_order_of_words_that_a_version_prints_does_not_matter() -> None:
    """Another iptables may put the match modules in another order, and one port without multiport."""
    text = "-A mcban -m set --match-set mc-ssh-all src -p tcp -m tcp --dport 22 -j REJECT --reject-with tcp-reset"
    assert parse(IPV4, SAVED.format(text)).rules == {"mc-ssh": Rule((), Ports(((22, 22),)))}


def test_only_what_is_not_as_it_should_be_is_touched() -> None:
    """A jump that stands is left where it is; a displaced or doubled one is moved to the front."""
    stands = parse(IPV4, SAVED.format(""))
    assert "INPUT" not in installation(IPV4, stands, ["INPUT"], {})
    moved = parse(IPV4, SAVED.replace("-A INPUT", "-A INPUT -j ACCEPT\n-A INPUT").format("-A INPUT -j mcban"))
    text = installation(IPV4, moved, ["INPUT"], {})
    assert text.count("-D INPUT -j mcban") == 2
    assert text.index("-D INPUT") < text.index("-I INPUT 1 -j mcban")


def test_taking_away_spares_a_chain_that_others_lead_to() -> None:
    """It is emptied, since a chain with references cannot be deleted."""
    assert "-X mcban" in removal(parse(IPV4, SAVED.format("")))
    others = parse(IPV4, SAVED.format("-A FORWARD -i eth0 -j mcban"))
    assert "-X mcban" not in removal(others)
    assert others.conditional == ("-A FORWARD -i eth0 -j mcban",)


@pytest.mark.parametrize("name", ["mc-exim-1d", "a", "A.b_c-9", "a" * 28])
def test_names_that_the_kernel_takes(name: str) -> None:
    """Letters, digits, and a few signs, up to what leaves room for the suffix of IPv6."""
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "ä", "a" * 29, "a-v6", "a-all", "a/b", "a,b", "!a"])
def test_names_that_it_does_not(name: str) -> None:
    """They are refused with the reason, before a set is made."""
    assert name_fault(name)
    assert group_fault(name)


def test_a_group_has_room_for_its_own_suffix() -> None:
    """A custom jail is its own group, so it has one character less."""
    assert group_fault("a" * 27) is None
    assert group_fault("a" * 28)
