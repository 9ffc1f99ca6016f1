"""What PostgreSQL's driver is to do otherwise than it would: times that no calendar has are no error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import DataError
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.pq import Format

from mcban.core.model import FOREVER

LAST_TIME = datetime.fromtimestamp(FOREVER, UTC)
"""What `infinity` reads as: for ever."""


def read_times_leniently(adapters: AdaptersMap) -> None:
    """`infinity` in a row that plain SQL made is for ever, and what Python's calendar does not reach is no time: a
    single row must not stop everything."""
    usual: Any = adapters.get_loader(adapters.types["timestamptz"].oid, Format.TEXT)

    class Lenient(Loader):
        """The usual one, asked first."""

        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Buffer) -> datetime | None:
            """Text to an aware datetime."""
            try:
                at: datetime | None = self._usual.load(data)
            except DataError:
                return LAST_TIME if bytes(data) == b"infinity" else None
            return at

    adapters.register_loader("timestamptz", Lenient)
