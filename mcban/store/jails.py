"""The rows of `fail2ban_jail`, as they stand there: what they mean is the service's business."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from mcban.store.tables import JAILS

_COLUMNS = (
    JAILS.c.name,
    JAILS.c.enabled,
    JAILS.c.maxretry,
    JAILS.c.findtime,
    JAILS.c.bantime,
    JAILS.c.port,
    JAILS.c.filter,
    JAILS.c.banaction,
    JAILS.c.logpath,
    JAILS.c.max_count,
    JAILS.c.escalate,
    JAILS.c.v6_prefix,
    JAILS.c.share_hits,
    JAILS.c.logtimezone,
)


@dataclass(frozen=True, slots=True)
class JailRecord:
    """One row, unchecked. Durations in seconds."""

    name: str
    enabled: bool
    maxretry: int
    findtime: int
    bantime: int
    port: str
    filter: str
    banaction: str
    logpath: str
    max_count: int
    escalate: bool = False
    v6_prefix: int = 128
    share_hits: bool = True
    logtimezone: str = ""

    def values(self) -> dict[str, Any]:
        """Column to value."""
        return {column.key: getattr(self, column.key) for column in _COLUMNS}


def _text(value: Any) -> Any:
    """SQLite takes bytes for text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _texts(values: Iterable[Any]) -> list[Any]:
    return [_text(value) for value in values]


class JailTable:
    """Reads and writes `fail2ban_jail`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[JailRecord]:
        """Every row, in the order in which they were made."""
        rows = self._connection.execute(select(*_COLUMNS).order_by(JAILS.c.id))
        # NULL in `enabled` is what the original's table allows and treats as on; in `logtimezone` it is no text.
        return [
            JailRecord(_text(name), enabled is None or enabled, *_texts([*rest, zone or ""]))
            for name, enabled, *rest, zone in rows
        ]

    def insert(self, jail: JailRecord) -> None:
        """Add a row."""
        self._connection.execute(insert(JAILS), jail.values())

    def update(self, name: str, values: Mapping[str, Any]) -> None:
        """Change columns of one row."""
        self._connection.execute(update(JAILS).where(JAILS.c.name == name).values(dict(values)))

    def delete(self, name: str) -> None:
        """Remove one row."""
        self._connection.execute(delete(JAILS).where(JAILS.c.name == name))
