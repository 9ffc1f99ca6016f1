"""The clock that all nodes have in common: the database server's.

Machines' clocks differ, by minutes where nobody looks after them. What a node writes into SQL, and what it compares
with what others wrote, goes by the server's.
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
        self.ahead = 0
        """Seconds; 0 where the two agree within SAME_TIME."""
        event.listen(engine, "connect", self._connected)

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
        before = time.time()
        server, after = float(ask()), time.time()
        ahead = server - (before + after) / 2
        # An answer that took long says little; and what is nearly as before stays, lest times jump to and fro.
        if after - before < SAME_TIME <= abs(ahead - self.ahead):
            self.ahead = round(ahead) if abs(ahead) >= SAME_TIME else 0
