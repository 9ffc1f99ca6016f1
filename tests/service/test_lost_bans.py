"""SQL has lost bans: nobody is let in for it; what somebody asks for is done, however many it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcban.core.model import FOREVER
from mcban.service import allow, bans, jail_changes
from mcban.service.context import Context
from mcban.service.sync import MANY, sync
from mcban.store.addresses import AddressRecord
from tests.conftest import MakeContext
from tests.service.desk import NOON, execute, fill, firewall_of


def test_a_database_that_came_back_empty_lifts_nobody_and_the_rest_is_mended(context: Context) -> None:
    """When SQL knows nothing of more than half of over 100 bans they stand until sync is forced; what is missing in
    the kernel is put back all the same, and a new ban is enforced."""
    ips = fill(context, MANY + 20)
    execute(context, "DELETE FROM fail2ban_ips")
    firewall_of(context).rules.clear()
    for _ in range(2):
        assert "--force" in sync(context).withheld
        assert set(firewall_of(context).entries["mc-exim-1y"]) == set(ips)
        assert "mc-exim" in firewall_of(context).rules
    bans.ban(context, "mc-exim-1y", ["203.0.113.5"], None, force=False, yes=False)
    assert "203.0.113.5" in firewall_of(context).entries["mc-exim-1y"]
    bans.unban(context, None, ips[:1])
    assert ips[0] not in firewall_of(context).entries["mc-exim-1y"], "who is let in by hand is in"
    assert not sync(context, force=True).withheld
    assert set(firewall_of(context).entries["mc-exim-1y"]) == {"203.0.113.5"}


def test_lost_jails_count_like_lost_bans(context: Context) -> None:
    """Empty tables lift nobody; a disabled jail does what was asked for."""
    ips = fill(context, MANY + 20)
    execute(context, "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-exim-1y'")
    assert not sync(context).withheld
    execute(context, "UPDATE fail2ban_jail SET enabled = 1 WHERE name = 'mc-exim-1y'")
    sync(context)
    execute(context, "DELETE FROM fail2ban_ips", "DELETE FROM fail2ban_jail")
    assert sync(context).withheld
    assert set(firewall_of(context).entries["mc-exim-1y"]) == set(ips)
    assert "mc-exim" in firewall_of(context).rules


@pytest.mark.parametrize(("number", "lost", "stay"), [(100, 100, 0), (101, 50, 51), (101, 51, 101), (300, 300, 300)])
def test_more_than_half_of_over_a_hundred_is_the_bound(context: Context, number: int, lost: int, stay: int) -> None:
    """A small list, or half of a large one, follows SQL like any change."""
    ips = fill(context, number)
    execute(context, *(f"DELETE FROM fail2ban_ips WHERE ip = '{ip}'" for ip in ips[:lost]))
    assert bool(sync(context).withheld) == (stay == number)
    assert len(firewall_of(context).entries["mc-exim-1y"]) == stay


def test_a_command_for_one_group_lifts_no_lost_bans_of_it(context: Context) -> None:
    """Also where that group alone holds too few to tell: the kernel as a whole shows that the database lost them."""
    fill(context, MANY + 20)
    bans.ban(context, "mc-ssh", ["203.0.113.1", "203.0.113.2", "203.0.113.3"], None, force=False, yes=False)
    execute(context, "DELETE FROM fail2ban_ips")
    bans.ban(context, "mc-ssh-1d", ["203.0.113.9"], None, force=False, yes=False)
    assert set(firewall_of(context).entries["mc-ssh-1d"]) == {f"203.0.113.{n}" for n in (1, 2, 3, 9)}


def test_removing_a_jail_lifts_its_bans_and_no_lost_ones_of_others(context: Context) -> None:
    """What a command is asked for is no force for all the rest; when it lifts less than it says, that is told."""
    ips = fill(context, MANY + 20)
    jail_changes.remove(context, "mc-exim-bl", yes=True)
    execute(context, "DELETE FROM fail2ban_ips")
    said = jail_changes.remove(context, "mc-ssh", yes=True)
    assert ["SQL knows nothing of" in line for line in said.failed] == [True]
    assert set(firewall_of(context).entries["mc-exim-1y"]) == set(ips)
    assert "mc-ssh-1d" not in firewall_of(context).entries


MASS_LIFTS: dict[str, Callable[[Context, list[str]], object]] = {
    "jail disable": lambda context, _: jail_changes.enable(context, "mc-exim-1y", on=False),
    "general disable": lambda context, _: jail_changes.enable(context, None, on=False),
    "unban": lambda context, ips: bans.unban(context, None, ips),
    "whitelist": lambda context, _: allow.allow(context, None, ["198.51.0.0/16"]),
    "jail remove": lambda context, _: jail_changes.remove(context, "mc-exim", yes=True),
}


@pytest.mark.parametrize("lost", [False, True], ids=["SQL knows them", "SQL lost them"])
@pytest.mark.parametrize("way", MASS_LIFTS)
def test_what_a_command_lifts_by_the_hundred_is_lifted(context: Context, way: str, lost: bool) -> None:
    """However many bans a command ends, nobody needs to force it; only a jail that is removed while SQL has lost its
    bans keeps them, and that is said."""
    ips = fill(context, MANY + 20)
    if lost:
        execute(context, "DELETE FROM fail2ban_ips")
    MASS_LIFTS[way](context, ips)
    left = firewall_of(context).entries.get("mc-exim-1y", {})
    assert set(left) == (set(ips) if lost and way == "jail remove" else set())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fail2ban_ips SET active = 0",
        "DELETE FROM fail2ban_jail WHERE name LIKE 'mc-exim%'",
        "UPDATE fail2ban_ips SET until = '2020-01-01 00:00:00'",
    ],
)
def test_what_sql_says_of_many_bans_is_done(context: Context, statement: str) -> None:
    """Bans that SQL knows and has ended, or whose jail it has removed, are lifted however many they are."""
    fill(context, MANY + 20)
    execute(context, statement)
    assert not sync(context).withheld
    assert not firewall_of(context).entries.get("mc-exim-1y")


def test_lifting_many_by_hand_is_what_was_asked_for(context: Context, make_context: MakeContext) -> None:
    """unban, whitelist add and an ignoreip that cover most bans lift them without being forced."""
    ips = fill(context, MANY + 20)
    bans.unban(context, "mc-exim", ips[:70])
    allow.allow(context, None, ["198.51.0.0/16"])
    assert not firewall_of(context).entries["mc-exim-1y"]
    other = make_context(ignoreip=("198.52.0.0/16",))
    rows: list[Any] = [
        AddressRecord(f"198.52.0.{n}", "mc-exim-1y", 1, True, since=NOON, until=FOREVER) for n in range(150)
    ]
    other.database.write(lambda t: t.addresses.save(rows))
    firewall_of(other).entries["mc-exim-1y"] = {row.ip: FOREVER for row in rows}
    assert not sync(other).withheld
    assert not firewall_of(other).entries["mc-exim-1y"]
