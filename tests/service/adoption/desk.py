"""What the tests of adoption share: what stands in a database before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from mcban.service.context import Context
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database
from tests.conftest import NOON
from tests.service.desk import sql_time

DAY = 86_400
IP = "203.0.113.7"
RECENT = sql_time(NOON - 3600)
Make = Callable[[str], Context]


def rows(context: Context, ip: str = IP) -> dict[str, AddressRecord]:
    """What is known of an address, by jail."""
    return {row.jail: row for row in context.database.read(lambda t: t.addresses.get([ip]))}


def raw(url: str, table: str) -> list[dict[str, Any]]:
    """The rows of any table."""
    database = Database(url)
    with database.engine.connect() as connection:
        found = [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
    database.dispose()
    return found
