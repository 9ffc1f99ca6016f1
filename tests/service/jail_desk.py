"""What the tests of jails share: a row as somebody types it, a look at the rows and at what cannot be used."""

from __future__ import annotations

from typing import Any

from mcban.service import upkeep
from mcban.service.bans import Report
from mcban.service.context import Context
from mcban.service.jail_changes import change
from mcban.store.jails import JailRecord


def made(name: str = "my-jail", **other: Any) -> JailRecord:
    """A custom jail."""
    values: dict[str, Any] = {
        "name": name,
        "enabled": True,
        "maxretry": 3,
        "findtime": 600,
        "bantime": 3600,
        "port": "8080",
        "filter": "mc-exim-filter",
        "banaction": "mc-custom",
        "logpath": "/var/log/my.log",
        "max_count": 0,
    }
    return JailRecord(**{**values, **other})


def insert(context: Context, jail: JailRecord) -> None:
    """The row by plain SQL, unchecked."""
    context.database.write(lambda t: t.jails.insert(jail))


def rows(context: Context) -> dict[str, JailRecord]:
    """Every row by name."""
    return {record.name: record for record in context.database.read(lambda t: t.jails.all())}


def faults(context: Context) -> dict[str, str]:
    """What cannot be used, by name."""
    return {fault.what: fault.why for fault in upkeep.take_over(context)[0].book.faults}


def alter(context: Context, name: str, option: str, value: str, *, force: bool = False) -> Report:
    """`mcban jail change`."""
    return change(context, name, option, value, force=force)
