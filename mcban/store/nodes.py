"""The machines that work on this database."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from mcban.core.address import parse_network
from mcban.store.addresses import to_seconds
from mcban.store.tables import NODES, to_datetime
from mcban.store.upsert import upsert


@dataclass(frozen=True, slots=True)
class Claim:
    """That an engine works under the name of a node: `owner` is one and the same for a machine and its state
    directory, `token` for one run of the engine, empty when that ended well. `seen` is when it last said so, in seconds
    since the epoch."""

    owner: str
    token: str
    addresses: tuple[str, ...]
    seen: int

    def columns(self) -> dict[str, Any]:
        """As SQL has it."""
        addresses = " ".join(sorted(self.addresses))
        return {"addresses": addresses, "seen": to_datetime(self.seen), "owner": self.owner, "token": self.token}


class NodeTable:
    """Reads and writes `mcban_node`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, host: str, claim: Claim) -> None:
        """Be `host`, whoever was it before."""
        upsert(self._connection, NODES, ["host"], [{"host": host, **claim.columns()}])

    def release(self, host: str, token: str) -> None:
        """Be `host` no longer, if one is."""
        mine = update(NODES).where(NODES.c.host == host, NODES.c.token == token)
        self._connection.execute(mine.values(token=""))

    def claimed(self, host: str) -> Claim | None:
        """Who is, or was, `host`; None when nobody ever was."""
        columns = NODES.c.owner, NODES.c.token, NODES.c.addresses, NODES.c.seen
        row = self._connection.execute(select(*columns).where(NODES.c.host == host)).first()
        return row and Claim(row.owner, row.token, tuple(_entries(row.addresses)), to_seconds(row.seen) or 0)

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
