"""The machines that work on this database."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Table, select

from mcban.store.addresses import to_datetime
from mcban.store.tables import NodeRow
from mcban.store.upsert import upsert

_NODES: Table = NodeRow.__table__  # type: ignore[assignment]  # declared as FromClause, is a Table


class NodeTable:
    """Reads and writes `mcban_node`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def announce(self, host: str, addresses: Collection[str], now: int) -> None:
        """Say that `host` works here, and which addresses it has."""
        row = {"host": host, "addresses": " ".join(sorted(addresses)), "seen": to_datetime(now)}
        upsert(self._connection, _NODES, ["host"], [row])

    def addresses(self) -> dict[str, list[str]]:
        """The addresses of every node, by its name."""
        query = select(_NODES.c.host, _NODES.c.addresses)
        return {host: text.split() for host, text in self._connection.execute(query)}
