"""How far each log was read, by node."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, select

from mcban.core.model import LONGEST_CURSOR, Position
from mcban.store.tables import POSITIONS
from mcban.store.upsert import upsert

_INODE = re.compile(r"[0-9]{1,20}")
_CURSOR = re.compile(rf"[!-~]{{0,{LONGEST_CURSOR}}}")
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2}))")


def _to_sql(path: str) -> str:
    """A path whose bytes are no UTF-8 holds lone surrogates, which SQL does not take: those are written `\\xNN`."""
    doubled = path.replace("\\", "\\\\")
    return "".join(f"\\x{ord(c) & 0xFF:02x}" if "\udc80" <= c <= "\udcff" else c for c in doubled)


def _from_sql(text: str) -> str:
    return _ESCAPED.sub(lambda m: chr(0xDC00 + int(m[1], 16)) if m[1] else "\\", text)


class PositionTable:
    """Reads and writes `mcban_position`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self, host: str) -> list[Position]:
        """The positions of one node, oldest first. A row with which nothing can be found again, from somebody's plain
        SQL, is passed over."""
        c = POSITIONS.c
        query = select(c.path, c.device, c.inode, c.head_length, c.head_hash, c.read_to, c.journal_cursor).where(
            c.host == host
        )
        rows = self._connection.execute(query.order_by(c.id))
        return [
            Position(
                _from_sql(row.path),
                row.device,
                int(row.inode),
                row.head_length,
                row.head_hash,
                row.read_to,
                row.journal_cursor,
            )
            for row in rows
            if _INODE.fullmatch(row.inode)
            and _CURSOR.fullmatch(row.journal_cursor)
            and all(isinstance(n, int) and n >= 0 for n in (row.device, row.head_length, row.read_to))
        ]

    def save(self, host: str, positions: Iterable[Position], batch: str = "") -> None:
        """Remember `positions`, each in place of the one of the same path, device and inode, as written by `batch`."""
        rows = [
            {
                "host": host,
                "path": _to_sql(p.path),
                "device": p.device,
                "inode": str(p.inode),
                "head_length": p.head_length,
                "head_hash": p.head_hash,
                "read_to": p.offset,
                "journal_cursor": p.cursor,
                "batch": batch,
            }
            for p in positions
        ]
        upsert(self._connection, POSITIONS, ["host", "path", "device", "inode"], rows)

    def written_by(self, host: str, batch: str) -> bool:
        """Whether the newest that `host` wrote is `batch`, which came with a position."""
        query = select(POSITIONS.c.id).where(POSITIONS.c.host == host, POSITIONS.c.batch == batch).limit(1)
        return self._connection.execute(query).first() is not None

    def delete(self, host: str, positions: Iterable[Position]) -> None:
        """Forget files that will not grow any more."""
        c = POSITIONS.c
        for p in positions:
            self._connection.execute(
                delete(POSITIONS).where(
                    c.host == host, c.path == _to_sql(p.path), c.device == p.device, c.inode == str(p.inode)
                )
            )

    def forget(self, hosts: Collection[str]) -> None:
        """Forget all logs of nodes that are gone."""
        if hosts:
            self._connection.execute(delete(POSITIONS).where(POSITIONS.c.host.in_(hosts)))
