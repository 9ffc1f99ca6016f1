"""The banaction column: the original's names, fail2ban's with their parameters, and nothing ignored."""

from __future__ import annotations

import pytest

from mcban.core.banaction import ALL_PORT_ACTIONS, PORT_ACTIONS, BanAction, parse_banaction


@pytest.mark.parametrize("name", [*PORT_ACTIONS, *ALL_PORT_ACTIONS])
def test_every_name_is_understood_alone(name: str) -> None:
    """Each known action works without parameters; only those of all ports close all ports."""
    assert parse_banaction(f" {name} ") == BanAction(name, name.endswith("allports"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mc-custom[]", BanAction("mc-custom", False)),
        ('iptables-multiport[name=ssh, port="22,2222"]', BanAction("iptables-multiport", False, "22,2222")),
        ("iptables-multiport[port='25, 465', protocol=tcp]", BanAction("iptables-multiport", False, "25, 465")),
        ("iptables-allports[blocktype=DROP]", BanAction("iptables-allports", True, None, True)),
        (
            'nftables-multiport[blocktype="REJECT --reject-with tcp-reset",chain=INPUT]',
            BanAction("nftables-multiport", False, None, False, "INPUT"),
        ),
    ],
)
def test_parameters_in_brackets_are_understood(text: str, expected: BanAction) -> None:
    """Ports, protocol, blocktype, chain and name are taken as fail2ban writes them."""
    assert parse_banaction(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not known"),
        ("sendmail", "sendmail"),
        ("iptables-multiport[actname=x]", "actname"),
        ("iptables-multiport[protocol=udp]", "udp"),
        ("iptables-multiport[blocktype=ACCEPT]", "ACCEPT"),
        ("iptables-multiport[port]", "port"),
        ('iptables-multiport[port="22]', "22"),
        ("iptables-multiport[port=22", "not known"),
        ("iptables-allports[port=22]", "'22'"),
        ("mc-custom; reboot", "not known"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, named: str) -> None:
    """Nothing in an action is ignored: what cannot be had is named in one line."""
    with pytest.raises(ValueError, match="banaction") as error:
        parse_banaction(text)
    assert named in str(error.value) and "\n" not in str(error.value)
