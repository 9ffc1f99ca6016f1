"""The machines that work on this database."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete, select

from mcban.core.address import parse_network
from mcban.store.tables import NODES, to_datetime
from mcban.store.upsert import upsert


class NodeTable:
    """Reads and writes `mcban_node`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def announce(self, host: str, addresses: Collection[str], now: int) -> None:
        """Say that `host` works here, and which addresses it has."""
        row = {"host": host, "addresses": " ".join(sorted(addresses)), "seen": to_datetime(now)}
        upsert(self._connection, NODES, ["host"], [row])

    def purge(self, before: int) -> list[str]:
        """Forget the nodes that were last seen before `before`; returns their names."""
        gone = NODES.c.seen < to_datetime(before)
        hosts = list(self._connection.execute(select(NODES.c.host).where(gone)).scalars())
        if hosts:
            self._connection.execute(delete(NODES).where(gone))
        return hosts

    def addresses(self) -> dict[str, list[str]]:
        """The addresses of every node, by its name; what is no address, from somebody's plain SQL, is passed over."""
        rows = self._connection.execute(select(NODES.c.host, NODES.c.addresses))
        return {host: _entries(text) for host, text in rows}


def _entries(text: Any) -> list[str]:
    found = []
    for word in text.split() if isinstance(text, str) else ():
        with suppress(ValueError):
            found.append(parse_network(word))
    return found
