"""What PostgreSQL's driver is to do otherwise than it would: it does not wait for ever for a server that stands still,
and times that no calendar has are no error."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection, DataError, OperationalError, waiting
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.pq import Format

from mcban.core.model import FOREVER

LAST_TIME = datetime.fromtimestamp(FOREVER, UTC)
"""What `infinity` reads as: for ever."""


_LOOK = 0.1
"""Seconds between two looks whether it takes too long."""


class SilentServerError(OperationalError):
    """The server has sent nothing, and taken nothing, for as long as it may take. The connection is closed."""


def patient_connection(seconds: int) -> type[Connection[Any]]:
    """Connections that wait for a server for `seconds` and no longer, as with `read_timeout` for MariaDB. Neither
    `statement_timeout`, which the server itself looks after, nor TCP, which its kernel acknowledges, ends such a wait.
    """

    class Patient(Connection[Any]):
        """The usual one, with a limit."""

        def wait(self, gen: Any, *how: Any, **named: Any) -> Any:
            """Whatever the driver asks the server passes by here. After Ctrl-C the usual one would first ask the server
            to cancel, and wait five seconds for that and as long again for the answer."""
            if not how:
                named.setdefault("interval", _LOOK)
            try:
                return waiting.wait(_limited(gen, seconds), self.pgconn.socket, *how, **named)
            except (SilentServerError, KeyboardInterrupt):
                self.pgconn.finish()  # an answer that comes after all is nobody's
                raise

    return Patient


def _limited(work: Generator[Any, Any, Any], seconds: int) -> Generator[Any, Any, Any]:
    """As `work`, which yields what it waits for and is sent what is ready, or nothing, several times a second."""
    ready, since = None, time.monotonic()
    while True:
        try:
            wanted = work.send(ready)
        except StopIteration as done:
            return done.value
        ready = yield wanted
        if ready:
            since = time.monotonic()
        elif time.monotonic() - since > seconds:
            work.close()
            raise SilentServerError(f"no answer for {seconds} s")


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
