"""The clock that all nodes have in common: the database server's.

Machines' clocks differ, by minutes where nobody looks after them. What a node writes into SQL, and what it compares
with what others wrote, goes by the server's. Between two looks at that this machine's own steady clock tells what it
says: whoever sets this machine's time by years ends no ban of all nodes with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

SAME_TIME = 2.0
"""Seconds by which clocks may differ and count as the same."""

_NOW = {
    "mysql": "SELECT UNIX_TIMESTAMP(NOW(6))",
    "mariadb": "SELECT UNIX_TIMESTAMP(NOW(6))",
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
}


class ServerClock:
    """How far a server's clock is ahead of this machine's; looked at whenever a connection is made."""

    def __init__(self, engine: Engine) -> None:
        self._question = _NOW[engine.dialect.name]
        self._ahead = 0
        self._lead: float | None = None
        """Seconds by which the server's clock is ahead of our steady one."""
        event.listen(engine, "connect", self._connected)

    @property
    def ahead(self) -> int:
        """Seconds; 0 where the two agree within SAME_TIME."""
        if self._lead is not None:
            ahead = self._lead + _steady() - time.time()
            if abs(ahead - self._ahead) >= SAME_TIME:  # what is nearly as before stays, lest times jump to and fro
                self._ahead = round(ahead) if abs(ahead) >= SAME_TIME else 0
        return self._ahead

    def look(self, connection: Connection) -> None:
        """Look again: clocks are set."""
        self._compare(lambda: connection.exec_driver_sql(self._question).scalar_one())

    def _connected(self, connection: Any, _: Any) -> None:
        cursor = connection.cursor()

        def ask() -> Any:
            cursor.execute(self._question)
            return cursor.fetchone()[0]

        self._compare(ask)
        cursor.close()
        connection.rollback()  # the question has begun a transaction

    def _compare(self, ask: Callable[[], Any]) -> None:
        before = _steady()
        server, after = float(ask()), _steady()
        if after - before < SAME_TIME:  # an answer that took long says little
            self._lead = server - (before + after) / 2


def _steady() -> float:
    """Seconds since the machine was started, also those in which it slept; nobody sets that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
