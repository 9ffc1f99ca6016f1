"""What the tests of the service share: hits, a look at SQL and at the kernel, plain SQL, a dump of everything."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from mcban.core.model import FOREVER, Hit
from mcban.firewall.memory import MemoryFirewall
from mcban.service.context import Context
from mcban.service.record import Recorded, record
from mcban.service.sync import enforce, sync
from mcban.store.addresses import AddressRecord
from mcban.store.tables import METADATA
from tests.conftest import NOON

IP = "203.0.113.7"
TIERS = tuple(f"mc-exim-{suffix}" for suffix in ("1d", "1w", "1m", "1y"))


def fail(context: Context, times: int = 1, ip: str = IP, group: str = "mc-exim", at: int | None = None) -> Recorded:
    """`times` hits of `ip` at the same second, recorded and enforced as the engine does."""
    when = context.now if at is None else at
    done = record(context, [Hit(when, ip, group)] * times)
    enforce(context, done.world, done.records)
    return done


def row(context: Context, jail: str, ip: str = IP) -> AddressRecord | None:
    """What SQL knows of an address in a jail."""
    rows = context.database.read(lambda t: t.addresses.get([ip], [jail]))
    return rows[0] if rows else None


def known(context: Context, jail: str, ip: str = IP) -> AddressRecord:
    """The same, where there must be something."""
    found = row(context, jail, ip)
    assert found is not None
    return found


def held(context: Context, ip: str = IP) -> list[str]:
    """The jails in which the kernel holds an address."""
    firewall = context.firewall
    assert isinstance(firewall, MemoryFirewall)
    return sorted(jail for jail, entries in firewall.entries.items() if ip in entries)


def in_force(context: Context, ip: str = IP) -> list[str]:
    """The jails in which SQL has a ban of an address running."""
    return sorted(r.jail for r in context.database.read(lambda t: t.addresses.in_force(context.now)) if r.ip == ip)


def execute(context: Context, *statements: str) -> None:
    """Plain SQL, as somebody types it."""
    with context.database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def dump(context: Context) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, but for whose turn it is to write."""
    with context.database.engine.connect() as connection:
        return {
            table.name: [dict(r) for r in connection.execute(table.select().order_by(*table.primary_key)).mappings()]
            for table in METADATA.sorted_tables
            if table.name != "mcban_turn"
        }


def sql_time(at: int) -> str:
    """A time as plain SQL writes it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


__all__ = ["IP", "NOON", "TIERS", "dump", "execute", "fail", "held", "in_force", "known", "row", "sql_time"]


def firewall_of(context: Context) -> MemoryFirewall:
    """The memory that stands for the kernel."""
    assert isinstance(context.firewall, MemoryFirewall)
    return context.firewall


def fill(context: Context, number: int) -> list[str]:
    """`number` bans that run for ever, in SQL and in the kernel."""
    ips = [f"198.51.{n // 250}.{n % 250 + 1}" for n in range(number)]
    rows = [AddressRecord(ip, "mc-exim-1y", 1, True, since=NOON, until=FOREVER) for ip in ips]
    context.database.write(lambda t: t.addresses.save(rows))
    sync(context)
    return ips
