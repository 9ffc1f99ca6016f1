"""Every question that the service asks, and every row that it looks for, on tables that have grown: by an index."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy import inspect as inspect_schema

from mcban.core.model import FOREVER, Hit, Position
from mcban.service import upkeep
from mcban.service.allow import allow, allowances, disallow
from mcban.service.bans import ban, blacklist_add, blacklist_remove, blacklisted, unban
from mcban.service.changes import ChangeFeed, look_up
from mcban.service.context import Context
from mcban.service.drift import DriftWatch
from mcban.service.jail_changes import change, enable
from mcban.service.record import record
from mcban.service.report import bans_in_force, overview, show
from mcban.service.sync import sync
from mcban.store import addresses, changes, database, events, hits, positions
from mcban.store.addresses import AddressRecord
from mcban.store.events import Event
from mcban.store.nodes import Claim
from tests.conftest import NOON, Machine, MakeContext
from tests.service.desk import IP, execute

GROWING = ("fail2ban_ips", "mcban_hit", "mcban_event", "mcban_change")
WHOLE = {
    "AddressTable.running": "a full sync puts every ban that runs into the kernel",
    "AddressTable.in_force": "`banned` lists every ban that runs",
    "AddressTable.page": "what lists every ban that runs, a part of them at a time",
    "AddressTable.counts": "`status` counts bans and sums up how many there ever were",
    "HitTable.kept": "`status` counts the hits that are kept",
}
"""What reads all of a table, and why it must."""
ROWS = 6_000
TABLES = (
    addresses.AddressTable,
    hits.HitTable,
    events.EventTable,
    changes.ChangeTable,
    positions.PositionTable,
)


class Listener:
    """Each statement that is executed, once, with values for it and the function of the store that asks."""

    def __init__(self) -> None:
        self.heard: dict[str, tuple[str, Any]] = {}

    def __call__(self, _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", statement):
            some = values[0] if many else values
            self.heard.setdefault(statement, (asker(), some))


def asker() -> str:
    """Class and method of the table that asks, or the function of the store."""
    frame: FrameType | None = sys._getframe()
    found = "?"
    while frame is not None:
        code = frame.f_code
        if Path(code.co_filename).parent == Path(inspect.getfile(database)).parent and "<" not in code.co_name:
            found = code.co_qualname
            if found.split(".")[0] in {table.__name__ for table in TABLES} and not code.co_name.startswith("_"):
                return found
        frame = frame.f_back
    return found


@contextmanager
def listening(context: Context) -> Iterator[Listener]:
    """Hear what is asked on the way."""
    listener = Listener()
    event.listen(context.database.engine, "before_cursor_execute", listener)
    yield listener
    event.remove(context.database.engine, "before_cursor_execute", listener)


def fill(context: Context) -> None:
    """Tables of some age: bans that run, that end, that ended; hits, decisions and changes to go with them."""
    rows = []
    for n in range(ROWS):
        until = (NOON + 100_000 + n, NOON - 100_000 + n % 90_000, FOREVER)[0 if n % 4 == 0 else 1 if n % 40 else 2]
        ip, jail = f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}", ("mc-exim-1d", "mc-exim-1w", "mc-ssh-1d")[n % 3]
        rows.append(AddressRecord(ip, jail, 1, active=until > NOON, since=NOON - 200_000, until=until, reason="x"))
    context.database.write(lambda t: t.addresses.save(rows))
    noted = [Event(NOON - n, "ban", row.ip, row.jail, row.until, "x", "here") for n, row in enumerate(rows)]
    context.database.write(lambda t: t.events.add(noted))
    record(context, [Hit(NOON - 4_000_000 + n * 300, f"12.{n >> 16}.{n >> 8 & 255}.{n & 255}", "mc-exim", "info")
                     for n in range(ROWS)])  # fmt: skip
    with context.database.engine.begin() as connection:
        # A server does so by itself; nobody does it to an embedded database.
        for table in GROWING if connection.dialect.name != "sqlite" else ():
            connection.exec_driver_sql(f"ANALYZE TABLE {table}")


def work(context: Context, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What engine and commands do."""
    for table in (hits, addresses, events):
        monkeypatch.setattr(table, "PURGE_STEP", 500)
    feed = context.database.glance(ChangeFeed)
    world, _ = upkeep.take_over(context)
    claim = Claim("owner", "token", ("192.0.2.1",), NOON)
    context.database.write(lambda t: t.nodes.claim("here", claim))
    context.database.read(lambda t: t.nodes.claimed("here"))
    upkeep.expire(context)
    watch = DriftWatch()
    watch.synced(context, sync(context), time.monotonic())
    position = Position("/var/log/x", 1, 2, 0, "", 7)
    several = [Hit(NOON, f"11.0.0.{n % 50}", "mc-exim", "bob") for n in range(1_500)]
    record(context, several, [position], [Position("/var/log/y", 1, 3, 0, "", 7)], batch="a")
    record(context, [Hit(NOON, "11.0.0.3", "mc-exim")] * 5)  # more than are kept
    context.database.read(lambda t: (t.positions.all("here"), t.positions.written_by("here", "a")))
    assert watch.drifted(context, time.monotonic() + 100)
    watch.look(context, time.monotonic())
    for entry in (IP, "198.51.100.0/24", "2001:db8::7"):
        for _ in range(2):
            ban(context, "mc-exim", [entry], None, force=False, yes=False)
        show(context, entry)
        unban(context, "mc-exim-1d", [entry])
        unban(context, None, [entry])
    blacklist_add(context, "mc-exim", [IP], force=False, yes=False)
    blacklisted(context, None)
    blacklist_remove(context, "mc-exim", [IP])
    allow(context, "mc-exim", [IP])
    allowances(context, None)
    disallow(context, "mc-exim", [IP])
    execute(
        context,
        "INSERT INTO fail2ban_ips (ip, jail) VALUES ('192.0.2.77/32', 'mc-exim-1d')",
        "UPDATE fail2ban_ips SET active = 0 WHERE ip = '11.0.0.8'",
    )
    news = context.database.glance(lambda t: feed.poll(t, time.monotonic()))
    assert news is not None
    look_up(context, world, news.changed)
    upkeep.take_over(context, world)
    change(context, "mc-exim", "max_count", "5", force=False)
    enable(context, "mc-exim", on=False)
    enable(context, "mc-exim", on=True)
    bans_in_force(context, None)
    bans_in_force(context, "mc-exim")
    overview(context)
    machine.now += 150_000
    upkeep.expire(context)
    monkeypatch.setattr(changes, "KEPT", 100)
    purge = upkeep.Purge()
    for _ in range(3):
        purge.step(context, world)
    context.database.read(lambda t: (t.addresses.page(100, NOON, ["mc-exim-1d"], 50), t.changes.last()))
    context.database.write(lambda t: t.changes.note())


def explain_sqlite(connection: Connection, statement: str, values: Any) -> tuple[set[str], set[str]]:
    """The growing tables of which every row is looked at, and the indexes that are used."""
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    steps = [detail for *_, detail in rows]
    bounded = " LIMIT " in statement and "WHERE" not in statement
    found = {step.split()[1] for step in steps if step.startswith("SCAN ") and not bounded}
    used = {match for step in steps for match in re.findall(r"USING (?:COVERING )?INDEX (\S+)", step)}
    if any("PRIMARY KEY" in step for step in steps):
        used.add("PRIMARY")
    return found & set(GROWING), used


def explain_mariadb(connection: Connection, statement: str, values: Any) -> tuple[set[str], set[str]]:
    """The same. A single statement is never explained without its table: MariaDB says so where it needs none."""
    rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values).mappings().all()
    bounded = "LIMIT" in statement and "WHERE" not in statement
    found = {row["table"] for row in rows if row["type"] == "ALL" or (row["type"] == "index" and not bounded)}
    used = {key for row in rows if row["key"] for key in row["key"].split(",")}
    return found & set(GROWING), used


EXPLAIN: dict[str, Callable[[Connection, str, Any], tuple[set[str], set[str]]]] = {
    "sqlite": explain_sqlite,
    "mysql": explain_mariadb,
}


@pytest.mark.parametrize("any_database", ["sqlite", "mariadb"], indirect=True)
def test_every_question_is_answered_by_an_index_and_every_index_answers_one(
    make_context: MakeContext, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever engine and commands do, no table that grows is read from end to end, but for what must be; and no index
    is kept up for nothing."""
    context = make_context()
    fill(context)
    with listening(context) as listener:
        work(context, machine, monkeypatch)
    scans, used = defaultdict(list), set()
    with context.database.engine.connect() as connection:
        explain = EXPLAIN[connection.dialect.name]
        for statement, (who, values) in listener.heard.items():
            if statement.lstrip().startswith("INSERT"):
                continue
            found, indexes = explain(connection, statement, values)
            used |= indexes
            for table in found:
                scans[who].append((table, statement))
        indexes = {
            str(index["name"])
            for table in GROWING
            for index in inspect_schema(connection).get_indexes(table)
            if not index["unique"]
        }
    asked = {who for who, _ in listener.heard.values()}
    assert {who: some for who, some in scans.items() if who not in WHOLE} == {}
    assert asked >= {"AddressTable.running", "HitTable.of", "EventTable.of", "ChangeTable.extent"}
    methods = {
        f"{table.__name__}.{name}"
        for table in TABLES
        for name, member in vars(table).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    # These ask by `get` and `last_number`; and no node was forgotten.
    assert methods - asked <= {"AddressTable.covering", "HitTable.first_free", "PositionTable.forget"}
    print(f"not asked for: {sorted(indexes - used)}")
    assert indexes <= used
