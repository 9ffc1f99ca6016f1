"""Whether the hits of several nodes add up, which each group says."""

from __future__ import annotations

import pytest

from mcban.errors import UsageError
from mcban.service import bans, upkeep
from mcban.service.claim import NodeName
from mcban.service.context import Context
from mcban.service.jail_changes import change
from mcban.service.report import show
from tests.conftest import NOON, Machine, MakeContext
from tests.service.desk import IP, execute, fail, in_force
from tests.service.jail_desk import alter, faults, rows

TIERS = ["mc-exim-1d", "mc-exim-1m", "mc-exim-1w", "mc-exim-1y"]


@pytest.fixture
def nodes(make_context: MakeContext) -> tuple[Context, Context]:
    """Two nodes on one database, `node1` with the longest name that there may be."""
    return make_context(node="n" * 150), make_context(node="node2")


def kept(context: Context) -> int:
    """The rows of hits in SQL."""
    with context.database.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM mcban_hit").scalar_one())


def test_hits_add_up_unless_a_group_says_otherwise(nodes: tuple[Context, Context]) -> None:
    """Three failures at one gateway and two at another are five."""
    here, there = nodes
    assert fail(here, 3).bans == ()
    assert [ban.jail for ban in fail(there, 2).bans] == ["mc-exim-1d"]


@pytest.mark.parametrize("how", ["command", "plain SQL"])
def test_where_hits_are_not_shared_each_node_counts_for_itself(nodes: tuple[Context, Context], how: str) -> None:
    """A ban wants five at one of them; it is everybody's all the same."""
    here, there = nodes
    if how == "command":
        alter(here, "mc-exim", "share_hits", "off")
    else:
        execute(here, "UPDATE fail2ban_jail SET share_hits = 0 WHERE name LIKE 'mc-exim-%'")
    assert fail(here, 4).bans == fail(there, 4).bans == ()
    assert [jail.hits for jail in show(there, IP).jails] == [4] * 4
    assert [ban.jail for ban in fail(there, 1).bans] == ["mc-exim-1d"]
    assert in_force(here) == ["mc-exim-1d"]
    assert fail(here, 1, group="mc-ssh").bans == () != fail(there, 2, group="mc-ssh").bans


def test_an_unban_forgets_the_hits_at_every_node(nodes: tuple[Context, Context]) -> None:
    """The next single failure bans nobody again, wherever it is."""
    here, there = nodes
    alter(here, "mc-exim", "share_hits", "off")
    fail(here, 4)
    fail(there, 5)
    bans.unban(here, "mc-exim", [IP])
    assert kept(here) == 0
    assert fail(here, 1).bans == fail(there, 1).bans == ()
    fail(here, 3)
    bans.unban(there, "mc-exim-1d", [IP])
    assert fail(here, 1).bans == ()


def test_old_hits_go_wherever_they_were_counted(nodes: tuple[Context, Context], machine: Machine) -> None:
    """By the look-back of their group, not by the longest that there is."""
    here, there = nodes
    NodeName(there, "machine").take()
    for tier in ("1w", "1m", "1y"):
        execute(here, f"DELETE FROM fail2ban_jail WHERE name = 'mc-exim-{tier}'")
    alter(here, "mc-exim", "share_hits", "off")
    fail(there, 3)
    assert kept(here) == 3
    machine.now = NOON + 3601
    upkeep.Purge().step(here, upkeep.take_over(here)[0])
    assert kept(here) == 0


def test_the_lowest_tier_speaks_for_its_group(context: Context) -> None:
    """Tiers that disagree are reported; the group's option sets them all, its blacklist with them."""
    alter(context, "mc-exim-1w", "share_hits", "off")
    assert "different values of share_hits: that of mc-exim-1d is used" in faults(context)["mc-exim"]
    report = change(context, "mc-exim", "share_hits", "No", force=False)
    assert "mc-exim-1d: share_hits on is now off" in report.done
    assert faults(context) == {}
    assert {row.share_hits for name, row in rows(context).items() if name.startswith("mc-exim")} == {False}
    for name, value, why in (("mc-exim", "maybe", "neither on nor off"), ("mc-exim-bl", "on", "is a blacklist")):
        with pytest.raises(UsageError, match=why):
            change(context, name, "share_hits", value, force=False)
