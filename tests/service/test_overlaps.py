"""Bans of networks and of addresses inside them stand beside each other: each ends by itself."""

from __future__ import annotations

import pytest

from mcban.service import upkeep
from mcban.service.allow import allow
from mcban.service.bans import ban, unban
from mcban.service.context import Context
from mcban.service.report import show
from mcban.service.sync import sync
from tests.conftest import Machine
from tests.service.desk import NOON, fail, held, in_force

NESTS = [
    ("203.0.113.7", "203.0.113.0/24", "203.0.0.0/16"),
    ("2001:db8:0:1::7", "2001:db8:0:1::/64", "2001:db8::/48"),
]
"""An address, and two networks around it."""


def put(context: Context, entry: str, duration: int | None = None) -> None:
    """`mcban ban -j mc-exim-1d`."""
    ban(context, "mc-exim-1d", [entry], duration, force=False, yes=False)


def standing(context: Context, nest: tuple[str, ...]) -> list[str]:
    """Those of `nest` that are banned, in SQL and in the kernel alike."""
    sync(context)
    found = [entry for entry in nest if in_force(context, entry)]
    assert found == [entry for entry in nest if held(context, entry)]
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("nest", NESTS, ids=["IPv4", "IPv6"])
def test_each_is_lifted_by_itself(context: Context, nest: tuple[str, ...], order: tuple[int, ...]) -> None:
    """Whatever was banned first, and whatever is lifted first."""
    for place in order:
        put(context, nest[place])
    left = list(nest)
    for place in order[1:]:
        unban(context, None, [nest[place]])
        left.remove(nest[place])
        assert standing(context, nest) == left


@pytest.mark.parametrize("nest", NESTS, ids=["IPv4", "IPv6"])
def test_each_ends_by_its_own_time(context: Context, machine: Machine, nest: tuple[str, ...]) -> None:
    """The one inside before the one around it, and the other way round."""
    for entry, length in zip(nest, (60, 30, 90), strict=True):
        put(context, entry, length)
    for now, left in ((30, [nest[0], nest[2]]), (60, [nest[2]]), (90, [])):
        machine.now = NOON + now
        upkeep.expire(context)
        assert standing(context, nest) == left


def test_hits_ban_an_address_inside_a_banned_network(context: Context) -> None:
    """Its ban is its own: lifting the network leaves it, and `show` names what refuses it."""
    put(context, "203.0.113.0/24")
    fail(context, 5)
    unban(context, None, ["203.0.113.0/24"])
    assert held(context) == ["mc-exim-1d"]
    put(context, "203.0.113.0/24")
    (view,) = [view for view in show(context, "203.0.113.8").jails if view.banned]
    assert (view.jail, view.entry) == ("mc-exim-1d", "203.0.113.0/24")


def test_an_allowance_lifts_what_it_covers_and_no_more(context: Context) -> None:
    """A /24 allowed lets its addresses in; a /16 around it stays in SQL but out of the kernel."""
    nest = NESTS[0]
    for entry in nest:
        put(context, entry)
    allow(context, None, [nest[1]])
    assert [in_force(context, entry) for entry in nest] == [[], [], ["mc-exim-1d"]]
    assert [held(context, entry) for entry in nest] == [[], [], []]
