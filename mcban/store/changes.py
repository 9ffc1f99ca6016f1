"""What changed in jails and bans, as the triggers noted it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from mcban.store.tables import CHANGES

KEPT = 100_000
"""Changes remembered; an engine that was away for longer reads everything."""
PURGE_STEP = 20_000
"""Changes that are dropped in one transaction: some milliseconds."""

_C = CHANGES.c
_LAST = select(func.max(_C.id))
_SINCE = select(_C.id, _C.ip, _C.jail).where(_C.id > bindparam("number")).order_by(_C.id)
_BETWEEN = select(func.count()).where(_C.id > bindparam("low"), _C.id <= bindparam("high"))
# One statement, hence one snapshot and one round trip; each part is answered by the primary key alone.
_EXTENT = select(
    select(func.min(_C.id)).scalar_subquery(), _LAST.scalar_subquery(), _BETWEEN.select_from(CHANGES).scalar_subquery()
)
_NEWEST = select(_C.id).order_by(_C.id.desc()).limit(bindparam("most"))


class Extent(NamedTuple):
    """The oldest and the newest number, 0 when there is none, and how many numbers lie in a stretch between them."""

    oldest: int
    newest: int
    between: int


class ChangeTable:
    """Reads `mcban_change`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def last(self) -> int:
        """The number of the newest change, 0 when there is none."""
        return self._connection.execute(_LAST).scalar() or 0

    def extent(self, low: int, high: int) -> Extent:
        """What numbers there are, and how many of them are above `low` and not above `high`: the cheap question."""
        oldest, newest, between = self._connection.execute(_EXTENT, {"low": low, "high": high}).one()
        return Extent(oldest or 0, newest or 0, between)

    def since(self, number: int) -> list[tuple[int, str, str]]:
        """The changes after `number` as (number, ip, jail), in order."""
        return [tuple(row) for row in self._connection.execute(_SINCE, {"number": number})]

    def newest(self, most: int) -> list[int]:
        """The highest numbers, `most` of them at the most."""
        return list(self._connection.execute(_NEWEST, {"most": most}).scalars())

    def note(self) -> None:
        """Have every node look at jails and allowances again."""
        self._connection.execute(insert(CHANGES).values(ip="", jail=""))

    def purge(self) -> int:
        """Drop all but the newest, PURGE_STEP of them at the most; returns how many."""
        oldest, newest, _ = self._connection.execute(_EXTENT, {"low": 0, "high": 0}).one()
        before = min((newest or 0) - KEPT, (oldest or 0) + PURGE_STEP - 1)
        return self._connection.execute(delete(CHANGES).where(_C.id <= before)).rowcount
