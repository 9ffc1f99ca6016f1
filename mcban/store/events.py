"""What was decided about addresses: the log that explains every ban."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from mcban.store.addresses import to_seconds
from mcban.store.tables import EVENTS, to_datetime
from mcban.store.upsert import insert_rows

_WORDS = 250
KEPT = 100
"""Decisions about one address that are remembered: who is banned for a minute, every minute, fills no disk."""
PURGE_STEP = 5_000
"""Decisions that are looked at in one step for what may go: a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Event:
    """One decision; times in seconds since the epoch. `what` is ban, blacklist, lift, allow or disallow."""

    at: int
    what: str
    ip: str
    jail: str
    until: int | None
    reason: str
    host: str


class EventTable:
    """Reads and writes `mcban_event`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, events: Sequence[Event]) -> None:
        """Note what was decided."""
        columns = ("at", "what", "ip", "jail", "until", "reason", "host")
        rows = [(e.at, e.what, e.ip, e.jail, e.until, e.reason[:_WORDS], e.host) for e in events]
        insert_rows(self._connection, EVENTS, columns, rows)

    def of(self, ip: str, limit: int) -> list[Event]:
        """The last `limit` decisions about `ip`, oldest first."""
        c = EVENTS.c
        query = select(c.at, c.what, c.jail, c.until, c.reason, c.host).where(c.ip == ip)
        rows = self._connection.execute(query.order_by(c.id.desc()).limit(limit)).all()
        return [
            Event(to_seconds(at) or 0, what, ip, jail, to_seconds(until), reason, host)
            for at, what, jail, until, reason, host in reversed(rows)
        ]

    def purge(self, before: int, after: int = 0, rows: int = PURGE_STEP) -> int:
        """Drop, among the next `rows` decisions behind the number `after`, what was decided before `before`, and where
        many are about one address, all but the newest KEPT. Returns the number it came to, 0 at the end of all."""
        c = EVENTS.c
        end = self._connection.execute(
            select(c.id).where(c.id > after).order_by(c.id).offset(rows - 1).limit(1)
        ).scalar()
        slice_ = (c.id > after,) if end is None else (c.id > after, c.id <= end)
        self._connection.execute(delete(EVENTS).where(*slice_, c.at < to_datetime(before)))
        # Counted here: asked to, SQLite would rather walk through the whole index of addresses.
        decisions = Counter(self._connection.execute(select(c.ip).where(*slice_)).scalars())
        for ip in (ip for ip, number in decisions.items() if number > KEPT // 10):
            newest = select(c.id).where(c.ip == ip).order_by(c.id.desc())
            oldest = self._connection.execute(newest.offset(KEPT - 1).limit(1)).scalar()
            if oldest is not None:
                self._connection.execute(delete(EVENTS).where(c.ip == ip, c.id < oldest, *slice_))
        return end or 0
