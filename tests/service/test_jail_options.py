"""Options of a jail that say how it blocks and counts: its action's parameters, networks, logs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mcban.errors import DataError
from mcban.service import upkeep
from mcban.service.context import Context
from mcban.service.jail_changes import change, enable
from mcban.service.report import overview
from tests.service.jail_desk import alter, faults, insert, made, rows


def test_parameters_of_the_action_overrule_the_row(context: Context) -> None:
    """Ports, and how packets are refused, as fail2ban writes them in brackets; the settings name the chains."""
    insert(context, made(banaction='iptables-multiport[name=x, port="22, 2222", blocktype=DROP, chain=INPUT]'))
    insert(context, made("open", banaction="iptables-allports[blocktype='REJECT --reject-with tcp-reset']"))
    assert faults(context) == {}
    jails = upkeep.take_over(context)[0].book.jails
    assert [(str(jails[name].ports), jails[name].drop) for name in ("my-jail", "open", "mc-exim-1d")] == [
        ("22,2222", True),
        ("all", False),
        ("25,465,587", None),
    ]


def test_a_chain_that_the_settings_name_may_be_named_by_a_jail(make_context: Callable[..., Context]) -> None:
    """firewall.chains says where rules go; a jail's action may say the same, and nothing else."""
    context = make_context(firewall_chains=("INPUT", "DOCKER-USER"))
    alter(context, "mc-exim", "banaction", "iptables-multiport[chain=DOCKER-USER]")
    with pytest.raises(DataError, match=r"'FORWARD' is not among .* INPUT, DOCKER-USER"):
        alter(context, "mc-exim", "banaction", "iptables-multiport[chain=FORWARD]")


def test_tiers_that_disagree_on_how_to_refuse_are_reported(context: Context) -> None:
    """One says DROP, another REJECT: the group's rule can do only one of them. A disabled tier has no say."""
    alter(context, "mc-exim-1d", "banaction", "mc-custom[blocktype=DROP]")
    assert faults(context) == {}
    alter(context, "mc-exim-bl", "banaction", "mc-custom[blocktype=REJECT]")
    assert faults(context)["mc-exim"] == ("the tiers disagree: mc-exim-1d says blocktype DROP, mc-exim-bl REJECT")
    enable(context, "mc-exim-1d", on=False)
    assert faults(context) == {}


def test_tiers_that_count_by_different_networks_are_reported(context: Context) -> None:
    """The lowest enabled tier decides; a group's option sets them all, its blacklist with them."""
    alter(context, "mc-exim-1d", "v6_prefix", "64")
    assert faults(context)["mc-exim"].startswith("its tiers name different values of v6_prefix: that of mc-exim-1d")
    alter(context, "mc-exim", "v6_prefix", "64")
    assert faults(context) == {}
    assert {row.v6_prefix for name, row in rows(context).items() if name.startswith("mc-exim")} == {64}
    assert rows(context)["mc-ssh-1d"].v6_prefix == 128


@pytest.mark.parametrize("path", ["/var/log/" + "x" * 492, "/var/log/" + "/*" * 250, "/" + "\\" * 250])
def test_a_log_whose_position_cannot_be_kept_is_a_fault_by_name(context: Context, path: str) -> None:
    """Over 500 characters: no database is asked for ever to take it, and the other jails go on."""
    insert(context, made(logpath=path))
    (fault,) = overview(context).faults
    assert fault.what == "my-jail"
    assert "positions are kept of 500 at the most" in fault.why
    change(context, "my-jail", "logpath", "/" + "x" * 499, force=False)
    assert overview(context).faults == ()
