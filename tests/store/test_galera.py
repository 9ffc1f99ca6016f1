"""Three MariaDB servers as one Galera cluster: one schema, one writer at a time, no change unheard, no node needed."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from urllib.parse import unquote

import pytest
from alembic import command
from alembic.config import Config

from mcban.errors import DatabaseError
from mcban.service.changes import ChangeFeed
from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.access import Access
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database, Transaction, UnsureError
from tests.conftest import found
from tests.debian import MissingPackageError
from tests.e2e.node import Node as Gate
from tests.galera import Cluster, library, private_cluster
from tests.missing import skip_or_fail
from tests.netns import require_netns
from tests.patience import PATIENCE, until

IP = "203.0.113.7"
ROUNDS = 20
ROOM = 10
"""Rows for which there is room in the jail of the race below."""


@pytest.fixture
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Three nodes."""
    require_netns()
    try:
        if lacking := [program for program in ("mariadbd", "mariadb-install-db", "mariadb") if not found(program)]:
            raise MissingPackageError(f"{', '.join(lacking)} missing: apt-get install mariadb-server-core")
        provider = library(pytestconfig.cache.mkdir("galera"))
    except MissingPackageError as error:
        skip_or_fail(str(error))
    with tempfile.TemporaryDirectory(prefix="mcban-") as folder, private_cluster(Path(folder), provider) as made:
        yield made


def test_a_galera_cluster_is_one_database(cluster: Cluster, tmp_path: Path) -> None:
    """Everything that a cluster may do to us, one after the other, for it takes its time to start: what is expected of
    each is said where it is done."""
    name = cluster.new_database()
    first = Database(cluster.nodes[0].url(name))
    assert schema.upgrade(first) == (None, schema.HEAD)
    first.dispose()
    for node in cluster.nodes[1:]:
        until(partial(is_current, node.url(name)))
    the_schema_is_the_same_everywhere_and_each_table_can_be_certified(cluster, name)
    writers_on_three_nodes_are_one_after_the_other(cluster, name)
    a_node_that_is_cut_off_says_so_and_another_is_used(cluster, name)
    an_engine_whose_node_has_no_cluster_goes_on_banning(cluster, name, tmp_path)
    a_node_that_dies_is_replaced_by_the_next_and_comes_back(cluster, name)
    an_engine_goes_on_with_another_node(cluster, name, tmp_path)


def is_current(url: str) -> bool:
    """Whether the schema there is the newest."""
    database = Database(url)
    try:
        return schema.current(database) == schema.HEAD
    finally:
        database.dispose()


def the_schema_is_the_same_everywhere_and_each_table_can_be_certified(cluster: Cluster, name: str) -> None:
    """Made by one node; and a row without a primary key could not be told from another on the others."""
    database = Database(cluster.nodes[2].url(name))
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.check(config)
    database.dispose()
    without = cluster.nodes[2].sql(
        f"SELECT table_name FROM information_schema.tables t WHERE table_schema = '{name}' AND NOT EXISTS "
        "(SELECT 1 FROM information_schema.statistics s WHERE s.table_schema = t.table_schema "
        "AND s.table_name = t.table_name AND index_name = 'PRIMARY')"
    )
    assert without == ""
    assert schema.upgrade(Database(cluster.nodes[1].url(name))) == (schema.HEAD, schema.HEAD)


def _write_many(url: str, node: int, all_there: Barrier, met: Event, written: Synchronized[int]) -> None:
    database = Database(url)
    database.patience = PATIENCE
    database.read(lambda t: t.jails.all())
    all_there.wait(PATIENCE)
    for n in count():
        if n >= ROUNDS and met.is_set():
            break

        def work(transaction: Transaction, n: int = n) -> None:
            rows = transaction.addresses.get([IP], ["counted"])
            row = rows[0] if rows else AddressRecord(IP, "counted")
            row.count += 1
            taken = len(transaction.addresses.in_force(0, ["room"]))
            mine = [AddressRecord(f"10.0.{node}.{n}", "room", active=True)] if taken < ROOM else []
            transaction.addresses.save([row, *mine])

        database.write(work)
        with written:
            written.value += 1
    database.dispose()


def conflicts(cluster: Cluster) -> int:
    """Transactions that the nodes undid because another node's came first."""
    ask = "SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name IN "
    names = "('WSREP_LOCAL_CERT_FAILURES', 'WSREP_LOCAL_BF_ABORTS')"
    return sum(int(node.sql(ask + names)) for node in cluster.nodes)


def writers_on_three_nodes_are_one_after_the_other(cluster: Cluster, name: str) -> None:
    """What a writer read stays true until it commits, also what it did not write: a count is right, one row is one
    row, and a limit that each looked at is kept. What a commit met elsewhere was done again; and an engine's feed on
    one node hears of every change, though each node numbers by itself."""
    watching = Database(cluster.nodes[2].url(name))
    feed = watching.glance(ChangeFeed)
    before = conflicts(cluster)
    spawn = multiprocessing.get_context("spawn")
    all_there, met, written = spawn.Barrier(len(cluster.nodes)), spawn.Event(), spawn.Value("i", 0)
    writers = [
        spawn.Process(target=_write_many, args=(node.url(name), node.number, all_there, met, written))
        for node in cluster.nodes
    ]
    for writer in writers:
        writer.start()
    heard: set[tuple[str, str]] = set()

    def listen() -> bool:
        news = watching.glance(lambda t: feed.poll(t, time.monotonic()))
        if news is not None:
            assert not news.missed
            heard.update(news.changed)
            feed.told(news)
        if not met.is_set() and conflicts(cluster) > before:
            met.set()
        return all(writer.exitcode is not None for writer in writers)

    until(listen)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    total = written.value
    assert total >= ROUNDS * len(writers)
    for node in cluster.nodes:
        database = Database(node.url(name))
        until(partial(has_counted, database, total))
        assert len(rows_of(database, "room")) == ROOM
        database.dispose()
    until(lambda: listen() and len(heard) > ROOM)
    assert heard == {(IP, "counted"), *((row.ip, "room") for row in rows_of(watching, "room"))}
    watching.dispose()


def rows_of(database: Database, jail: str) -> list[AddressRecord]:
    """The rows of a jail."""
    rows = database.read(lambda t: t.addresses.get([IP, *(f"10.0.{n}.{k}" for n in range(4) for k in range(ROUNDS))]))
    return [row for row in rows if row.jail == jail]


def has_counted(database: Database, total: int) -> bool:
    """Whether the row that all count in has arrived, whole."""
    return [row.count for row in rows_of(database, "counted")] == [total]


def a_node_that_is_cut_off_says_so_and_another_is_used(cluster: Cluster, name: str) -> None:
    """Alone it is one clear line, and over by itself; where others are named, the next takes its place at once."""
    alone, other = cluster.nodes[1], cluster.nodes[0]
    single = Database(alone.url(name))
    several = Database(Access((alone.url(name), other.url(name))))
    single.patience, several.patience = 0.0, PATIENCE
    for database in (single, several):
        database.read(lambda t: t.jails.all())
    assert str(alone.socket.parent.name) in several.shown_url
    alone.cut_off()
    try:
        until(lambda: "cut off from its Galera cluster" in complaint(single))
        several.write(lambda t: t.hits.add_totals({"meanwhile": 1}))
        assert several.shown_url != several.nodes[0]
    finally:
        alone.cut_off(cut=False)
    # Whoever waits gets his answer.
    single.patience = PATIENCE
    assert single.write(lambda t: t.hits.totals())["meanwhile"] == 1
    for database in (single, several):
        database.dispose()


def an_engine_whose_node_has_no_cluster_goes_on_banning(cluster: Cluster, name: str, folder: Path) -> None:
    """It knows no other: one line, a state in `status`, bans in the kernel all the same; each hit is counted once."""
    alone = cluster.nodes[1]
    gate = Gate(alone.host, folder / "alone", "ipset", alone.url(name))
    try:
        gate.prepare()
        gate.start()
        gate.fail("mc-exim", "203.0.113.1", 5)
        gate.await_entry("203.0.113.1")
        alone.cut_off()
        try:
            gate.fail("mc-exim", "203.0.113.2", 5)
            until(lambda: "cut off from its Galera cluster" in gate.mcban("status"), "the trouble in status")
            gate.fail("mc-exim", "203.0.113.3", 5)
            until(lambda: {"203.0.113.2", "203.0.113.3"} <= gate.entries("mc-exim-1d"), "the bans")
            assert "the engine has been without it for" in gate.mcban("status")
        finally:
            alone.cut_off(cut=False)
        until(lambda: " over: " in gate.engine_log and gate.all_read(), "the end of it")
        assert gate.database.read(lambda t: t.hits.totals())["mc-exim"] == 15
        until(gate.in_step, "the kernel to be like SQL")
        assert gate.engine_log.count(" ERROR ") == gate.engine_log.count(" over: ") == 1, gate.engine_log
        assert "Traceback" not in gate.engine_log
        assert gate.stop() == 0  # the next engine has its name
    finally:
        gate.end()


def complaint(database: Database) -> str:
    """What stops a writer now."""
    try:
        database.write(lambda t: t.hits.add_totals({"alone": 0}))
    except DatabaseError as error:
        return str(error)
    return ""


def a_node_that_dies_is_replaced_by_the_next_and_comes_back(cluster: Cluster, name: str) -> None:
    """Of two URLs one is killed while somebody writes: each transaction is done once, by whoever takes it, and the one
    whose answer was lost is said to be uncertain."""
    dying, other = cluster.nodes[2], cluster.nodes[0]
    database = Database(Access((dying.url(name), other.url(name))))
    database.patience = PATIENCE
    before = database.read(lambda t: t.hits.totals()).get("dying", 0)
    killer = threading.Timer(0.3, dying.kill)
    killer.start()
    done = unsure = 0
    while killer.is_alive() or str(other.socket.parent.name) not in database.shown_url:
        try:
            database.write(lambda t: t.hits.add_totals({"dying": 1}))
            done += 1
        except UnsureError:  # its answer to the commit was lost
            unsure += 1
    assert unsure <= 1
    written = database.read(lambda t: t.hits.totals())["dying"] - before
    assert done <= written <= done + unsure
    cluster.restart(dying)
    again = Database(dying.url(name))
    until(lambda: again.read(lambda t: t.hits.totals())["dying"] - before == written)
    for each in (again, database):
        each.dispose()


def an_engine_goes_on_with_another_node(cluster: Cluster, name: str, folder: Path) -> None:
    """The node that it uses is killed under it: what is logged then is counted and banned by way of the next, which
    `status` names, and each fault is a line."""
    dying, other = cluster.nodes[1], cluster.nodes[0]
    gate = Gate(other.host, folder / "gate", "memory", other.url(name))
    gate.env["MCBAN_DATABASE_URL"] = f"{dying.url(name)} {other.url(name)}"
    try:
        gate.prepare()
        gate.start()
        gate.fail("mc-exim", "198.51.100.1", 5)
        until(lambda: ("198.51.100.1", "mc-exim-1d") in gate.banned())
        assert f"/{dying.folder.name}/" in unquote(gate.json("status")["database"]["engine_uses"])
        dying.kill()
        gate.fail("mc-exim", "198.51.100.2", 5)
        until(lambda: ("198.51.100.2", "mc-exim-1d") in gate.banned())
        gate.settled()
        assert gate.database.read(lambda t: t.hits.totals())["mc-exim"] == 15 + 10
        status = gate.json("status")["database"]
        assert f"/{other.folder.name}/" in unquote(status["engine_uses"])
        assert len(status["nodes"]) == 2 and status["error"] is None
        assert "(of 2 nodes)" in gate.mcban("status")
        assert gate.stop() == 0
        assert "Traceback" not in gate.engine_log
    finally:
        gate.end()
