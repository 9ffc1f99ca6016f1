"""What changed in jails and bans, as the triggers noted it."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from mcban.store.tables import CHANGES

KEPT = 100_000
"""Changes remembered; an engine that was away for longer reads everything."""

_LAST = select(func.max(CHANGES.c.id))


class ChangeTable:
    """Reads `mcban_change`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def last(self) -> int:
        """The number of the newest change, 0 when there is none."""
        return self._connection.execute(_LAST).scalar() or 0

    def oldest(self) -> int:
        """The number of the oldest change remembered, 0 when there is none."""
        return self._connection.execute(select(func.min(CHANGES.c.id))).scalar() or 0

    def since(self, number: int) -> list[tuple[int, str, str]]:
        """The changes after `number` as (number, ip, jail), in order."""
        c = CHANGES.c
        query = select(c.id, c.ip, c.jail).where(c.id > number).order_by(c.id)
        return list(self._connection.execute(query))

    def purge(self) -> int:
        """Drop all but the newest; returns how many."""
        return self._connection.execute(delete(CHANGES).where(CHANGES.c.id <= self.last() - KEPT)).rowcount
