"""What passes is waited for: a server's errors by their number, met with real servers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

from mcban.errors import DatabaseError
from mcban.store import schema, servers
from mcban.store.database import Database, Transaction, UnsureError
from tests.mariadb import Server, private_server, sql
from tests.patience import PATIENCE, until
from tests.postgres import PostgreSQL
from tests.proxy import proxy

SERVERS = pytest.mark.parametrize("any_database", ["mariadb", "postgresql"], indirect=True)
IDENTITY = {"mysql": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}
KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}


def by_hand(database: Database, statement: str) -> None:
    """Somebody's statement, on a connection of its own."""
    engine = create_engine(database.engine.url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


@SERVERS
def test_a_connection_that_is_killed_in_the_middle_is_made_again(any_database: str) -> None:
    """Nothing of the first try stays, and the second is whole."""
    database = Database(any_database)
    database.patience = PATIENCE
    kind = database.engine.dialect.name
    tries = []

    def work(transaction: Transaction) -> int:
        transaction.hits.add_totals({"g": 1})
        tries.append(transaction.connection.exec_driver_sql(IDENTITY[kind]).scalar_one())
        if len(tries) == 1:
            by_hand(database, KILL[kind].format(tries[0]))
        return transaction.hits.totals()["g"]

    assert database.write(work) == 1
    assert len(set(tries)) == 2
    database.patience = 0.0
    tries.clear()
    with pytest.raises(DatabaseError, match="cannot be used"):
        database.write(work)
    assert database.read(lambda t: t.hits.totals()) == {"g": 1}
    database.dispose()


@SERVERS
def test_a_lock_that_somebody_keeps_is_waited_for_and_then_said(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction left open in somebody's client: whoever waits gets his turn after it, or one line."""
    monkeypatch.setattr(servers, "_TURN_WAIT", 1)
    monkeypatch.setattr("mcban.store.database.PATIENCE", 1.5)
    database = Database(any_database)
    engine = create_engine(database.engine.url)
    with engine.connect() as other:
        other.execute(text("UPDATE mcban_turn SET taken = taken"))
        with pytest.raises(DatabaseError, match="another transaction kept it locked"):
            database.write(lambda t: t.hits.add_totals({"g": 1}))
        monkeypatch.setattr("mcban.store.database.PATIENCE", PATIENCE)
        leaving = threading.Timer(1.2, other.rollback)
        leaving.start()
        database.write(lambda t: t.hits.add_totals({"g": 1}))
        leaving.join()
    engine.dispose()
    assert database.read(lambda t: t.hits.totals()) == {"g": 1}
    database.dispose()


WAITING = {
    "mysql": "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    "postgresql": "SELECT COUNT(*) FROM pg_locks WHERE NOT granted",
}


def waiting(database: Database) -> bool:
    """Whether somebody waits for a lock."""
    engine = create_engine(database.engine.url)
    with engine.connect() as connection:
        count: int = connection.execute(text(WAITING[database.engine.dialect.name])).scalar_one()
    engine.dispose()
    return count > 0


@SERVERS
def test_transactions_that_lock_each_other_out_are_done_again(any_database: str) -> None:
    """The server chooses one and undoes it, whole; it is done again."""
    database = Database(any_database)
    database.write(lambda t: t.hits.add_totals({"a": 0, "b": 0}))
    engine = create_engine(database.engine.url)
    tries = []

    def work(transaction: Transaction) -> None:
        transaction.hits.add_totals({"a": 1})
        tries.append(1)
        if len(tries) == 1:
            other.execute(text("UPDATE mcban_total SET hits = hits WHERE jail_group = 'b'"))
            crossing = "UPDATE mcban_total SET hits = hits + 10 WHERE jail_group IN ('a', 'b')"

            def cross() -> None:
                other.execute(text(crossing))
                other.commit()

            heavy = threading.Thread(target=cross)
            heavy.start()
            threads.append(heavy)
            until(lambda: waiting(database), "its waiting")
        transaction.hits.add_totals({"b": 1})

    threads: list[threading.Thread] = []
    with engine.connect() as other:
        # MariaDB undoes the one that changed less, PostgreSQL whoever looks first.
        if database.engine.dialect.name == "postgresql":
            other.execute(text("SET deadlock_timeout = '1h'"))
        other.execute(text("UPDATE fail2ban_jail SET maxretry = maxretry + 1"))
        try:
            database.write(work)
        finally:
            for thread in threads:
                thread.join()
    engine.dispose()
    assert len(tries) == 2
    assert database.read(lambda t: t.hits.totals()) == {"a": 11, "b": 11}
    database.dispose()


@pytest.fixture
def small(tmp_path: Path, mariadb: Server) -> Iterator[Path]:
    """A server for few, and a user without rights over it."""
    with private_server(tmp_path, "--max-connections=10") as socket:
        sql(socket, "CREATE USER plain@localhost; CREATE DATABASE few; GRANT ALL ON few.* TO plain@localhost")
        database = Database(f"mysql+pymysql://plain@localhost/few?unix_socket={socket}")
        schema.upgrade(database)
        database.dispose()
        yield socket


def test_a_server_that_is_full_or_takes_no_writes_is_waited_for(small: Path) -> None:
    """For a few seconds; an engine, which has other things to do, is told at once."""
    it_is_full(small)
    it_takes_no_writes(small)


def it_is_full(small: Path) -> None:
    """Too many connections, until some end."""
    url = f"mysql+pymysql://plain@localhost/few?unix_socket={small}"
    database, crowd = Database(url), create_engine(url, pool_size=20)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(crowd.connect())
        database.patience = 0.0
        with pytest.raises(DatabaseError, match="Too many connections"):
            database.read(lambda t: t.jails.all())
        database.patience = PATIENCE
        leaving = threading.Timer(0.5, crowd_leaves, (small,))
        leaving.start()
        assert len(database.read(lambda t: t.jails.all())) == 15
        leaving.join()
    crowd.dispose()
    database.dispose()


def crowd_leaves(socket: Path) -> None:
    """More may come."""
    sql(socket, "SET GLOBAL max_connections = 50")


def it_takes_no_writes(small: Path) -> None:
    """As while a replica is made the master; reading goes on."""
    database = Database(f"mysql+pymysql://plain@localhost/few?unix_socket={small}")
    sql(small, "SET GLOBAL read_only = 1")
    try:
        database.patience = 0.0
        with pytest.raises(DatabaseError, match="takes no writes, being a replica or set read-only"):
            database.write(lambda t: t.hits.add_totals({"g": 1}))
        assert len(database.read(lambda t: t.jails.all())) == 15
        database.patience = PATIENCE
        leaving = threading.Timer(0.5, sql, (small, "SET GLOBAL read_only = 0"))
        leaving.start()
        database.write(lambda t: t.hits.add_totals({"g": 1}))
        leaving.join()
    finally:
        sql(small, "SET GLOBAL read_only = 0")
    assert database.read(lambda t: t.hits.totals()) == {"g": 1}
    database.dispose()


def test_a_postgresql_that_takes_no_writes_is_said(postgresql: PostgreSQL, postgresql_url: str) -> None:
    """As a standby is."""
    database = Database(f"{postgresql_url}&options=-c%20default_transaction_read_only%3Don")
    database.patience = 0.0
    with pytest.raises(DatabaseError, match="takes no writes, being a replica or set read-only"):
        database.write(lambda t: t.hits.add_totals({"g": 1}))
    database.dispose()


def test_a_postgresql_that_stands_still_is_given_up(postgresql_url: str) -> None:
    """After as long as it may take for an answer, in a question as in a commit; the next finds another connection."""
    database = Database(f"{postgresql_url}&read_timeout=2")
    database.patience = 0
    assert database.longest_wait == 2
    stopped: list[int] = []

    def stop(transaction: Transaction) -> None:
        stopped.append(int(transaction.connection.exec_driver_sql(IDENTITY["postgresql"]).scalar_one()))
        os.kill(stopped[-1], signal.SIGSTOP)

    def ask(transaction: Transaction) -> None:
        stop(transaction)
        transaction.connection.exec_driver_sql("SELECT 1")

    try:
        with pytest.raises(DatabaseError, match="it answered nothing for 2 s"):
            database.read(ask)
        with pytest.raises(UnsureError, match="look whether it was done"):
            database.write(stop)
        assert database.read(lambda t: t.connection.exec_driver_sql("SELECT 1").scalar_one()) == 1
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        database.dispose()


def test_the_wait_for_a_postgresql_that_stands_still_can_be_ended(postgresql_url: str) -> None:
    """Ctrl-C is heard at once: the server, which answers nothing, is not asked to cancel what it was told."""
    database = Database(f"{postgresql_url}&read_timeout=600")
    stopped: list[int] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def ask(transaction: Transaction) -> None:
        stopped.append(int(transaction.connection.exec_driver_sql(IDENTITY["postgresql"]).scalar_one()))
        os.kill(stopped[-1], signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        transaction.connection.exec_driver_sql("SELECT 1")

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            database.read(ask)
        assert database.read(lambda t: t.connection.exec_driver_sql("SELECT 1").scalar_one()) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        database.dispose()


def test_a_commit_without_an_answer_is_not_done_twice(mariadb: Server, mariadb_url: str, tmp_path: Path) -> None:
    """Nobody knows whether it was done: that is said, and who asked looks."""
    short = tmp_path / "p"
    with proxy(short, mariadb.socket) as between:
        database = Database(mariadb_url.replace(quote(str(mariadb.socket), safe=""), quote(str(short), safe="")))
        between.table, between.lose = b"mcban_total", 1
        with pytest.raises(UnsureError, match="went away during a commit: look whether it was done"):
            database.write(lambda t: t.hits.add_totals({"g": 1}))
        assert database.read(lambda t: t.hits.totals()) == {"g": 1}
        database.dispose()
