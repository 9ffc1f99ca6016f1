"""Database servers of a test's own that go wrong on demand, the way real ones do.

    with RoughMariaDB(folder, host) as server:
        node = Node(host, folder / "gate", database_url=server.url)
        with server.killed():
            ...  # nobody answers; at the end the same data is served again

Each fault is a context: it stands within. Clients come by TCP, as `plain`, who has no rights over the server.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from tests import mariadb, postgres
from tests.netns import Host
from tests.patience import PATIENCE, until

HOLD_TURN = "UPDATE mcban_turn SET taken = taken"


class RoughServer(ABC):
    """A server on `host`, its files in `folder`."""

    port: int

    def __init__(self, folder: Path, host: Host) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.host = folder, host
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        self.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    @abstractmethod
    def url(self) -> str:
        """For a node on the host: by TCP, as one without rights over the server."""

    @property
    @abstractmethod
    def direct_url(self) -> str:
        """For the test itself: by the socket, as the administrator."""

    @abstractmethod
    def serve(self, stack: ExitStack) -> None:
        """Run the server until the stack is closed."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the database and its user."""

    @abstractmethod
    def processes(self) -> list[int]:
        """The server's, the first one first."""

    @abstractmethod
    def throw_out(self, admin: Connection) -> None:
        """End the connections of `plain`."""

    @abstractmethod
    def waiting(self, admin: Connection) -> bool:
        """Whether one of `plain` waits for the turn."""

    def start(self) -> None:
        """Serve, what was there is there again."""
        with self.host.entered():
            self.serve(self._stack)

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """A connection of the administrator's, where each statement stands for itself."""
        engine = create_engine(self.direct_url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """`kill -9`; then the server is started again on what it left."""
        processes = self.processes()
        send(signal.SIGKILL, processes)
        until(lambda: not any(is_alive(number) for number in processes), "the end of the server")
        self._stack.close()
        yield
        self.start()

    @abstractmethod
    def be_forgetful(self) -> None:
        """From now on a server that is killed loses what it confirmed last: some are set so, for speed."""

    @contextmanager
    def shut_down(self) -> Iterator[None]:
        """Stopped as by an administrator, in the midst of a transaction of `plain`."""
        with ExitStack() as holding:
            holding.enter_context(self.turn_held())
            admin = holding.enter_context(self.admin())
            until(lambda: self.waiting(admin), "a writer that waits")
            self._stack.close()
            with suppress(Exception):  # those connections are ended, too
                holding.close()
        yield
        self.start()

    @contextmanager
    def turn_held(self) -> Iterator[None]:
        """Somebody's transaction, left open, has locked the row that every writer wants."""
        engine = create_engine(self.direct_url)
        try:
            with engine.connect() as connection:
                connection.execute(text(HOLD_TURN))
                yield
        finally:
            engine.dispose()

    def deadlock(self) -> None:
        """A transaction of `plain` is undone, since it and another wait for each other."""
        with self.admin() as admin:
            before, end = self.deadlocks(admin), time.monotonic() + PATIENCE
            while self.deadlocks(admin) == before:
                assert time.monotonic() < end, "nobody was undone"
                self._cross(admin)
                time.sleep(0.1)  # PostgreSQL counts a little later

    def _cross(self, admin: Connection) -> None:
        """Hold what a writer takes last, and want what it has."""
        engine = create_engine(self.direct_url)
        try:
            with engine.connect() as other, suppress(DBAPIError):
                self.be_spared(other)
                other.execute(text("SELECT * FROM mcban_position FOR UPDATE"))
                until(lambda: self.waiting(admin), "a writer that waits")
                other.execute(text(HOLD_TURN))
        finally:
            engine.dispose()

    @abstractmethod
    def be_spared(self, connection: Connection) -> None:
        """Of two transactions that wait for each other, the one of `connection` is not undone."""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there, and does nothing."""
        first = self.processes()[0]
        os.kill(first, signal.SIGSTOP)
        others = self.processes()[1:]
        send(signal.SIGSTOP, others)
        try:
            yield
        finally:
            send(signal.SIGCONT, others)
            os.kill(first, signal.SIGCONT)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Its port swallows every packet."""
        rule = ("-p", "tcp", "--dport", str(self.port), "-j", "DROP")
        for chain in ("OUTPUT", "INPUT"):
            self.host.run("iptables", "-I", chain, *rule)
        try:
            yield
        finally:
            for chain in ("OUTPUT", "INPUT"):
                self.host.run("iptables", "-D", chain, *rule)

    @contextmanager
    @abstractmethod
    def full(self) -> Iterator[None]:
        """Others have all its connections."""
        yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """It takes no writes."""
        with self.admin() as admin:
            self.take_writes(admin, False)
            try:
                yield
            finally:
                self.take_writes(admin, True)

    @abstractmethod
    def take_writes(self, admin: Connection, yes: bool) -> None:
        """Whether it takes writes from now on."""

    @abstractmethod
    def deadlocks(self, admin: Connection) -> int:
        """How many transactions it has undone for a deadlock."""


class RoughMariaDB(RoughServer):
    """`mariadbd`."""

    port = 3306

    @property
    def url(self) -> str:
        return f"mysql+pymysql://plain@127.0.0.1:{self.port}/mcban"

    @property
    def direct_url(self) -> str:
        return f"mysql+pymysql://root@localhost/mcban?unix_socket={self.folder / 's'}"

    def serve(self, stack: ExitStack) -> None:
        listen = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve")
        # What was committed outlives the process: as it does by default.
        stack.enter_context(mariadb.private_server(self.folder, *listen, "--innodb-flush-log-at-trx-commit=2"))

    def prepare(self) -> None:
        mariadb.sql(self.folder / "s", "CREATE DATABASE mcban; CREATE USER plain; GRANT ALL ON mcban.* TO plain")

    def processes(self) -> list[int]:
        return [int((self.folder / "pid").read_text())]

    def throw_out(self, admin: Connection) -> None:
        admin.exec_driver_sql("KILL USER plain")

    def waiting(self, admin: Connection) -> bool:
        return int(admin.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'").one()[1]) > 0

    def be_forgetful(self) -> None:
        with self.admin() as admin:
            admin.exec_driver_sql("SET GLOBAL innodb_flush_log_at_timeout = 2700, innodb_flush_log_at_trx_commit = 0")

    @contextmanager
    def full(self) -> Iterator[None]:
        with ExitStack() as stack:
            admin = stack.enter_context(self.admin())
            for _ in range(10):
                stack.enter_context(self.admin())
            admin.exec_driver_sql("SET GLOBAL max_connections = 10")
            self.throw_out(admin)
            try:
                yield
            finally:
                admin.exec_driver_sql("SET GLOBAL max_connections = 151")

    def take_writes(self, admin: Connection, yes: bool) -> None:
        admin.exec_driver_sql(f"SET GLOBAL read_only = {int(not yes)}")

    def be_spared(self, connection: Connection) -> None:
        # The one that changed less is undone.
        connection.exec_driver_sql("CREATE TEMPORARY TABLE many (n INT) ENGINE=InnoDB")
        connection.exec_driver_sql("INSERT INTO many SELECT seq FROM seq_1_to_1000")

    def deadlocks(self, admin: Connection) -> int:
        return int(admin.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").one()[1])


class RoughPostgreSQL(RoughServer):
    """`postgres`, whose programs are in `programs`."""

    port = 5432

    def __init__(self, folder: Path, host: Host, programs: Path) -> None:
        super().__init__(folder, host)
        self._programs = programs
        self._server: postgres.PostgreSQL

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://plain@127.0.0.1:{self.port}/mcban"

    @property
    def direct_url(self) -> str:
        return self._server.url("mcban")

    def serve(self, stack: ExitStack) -> None:
        listen = ("-c", "listen_addresses=127.0.0.1")
        self._server = stack.enter_context(postgres.private_server(self.folder, self._programs, *listen))

    def prepare(self) -> None:
        self._server.run("CREATE ROLE plain LOGIN", "postgres")
        self._server.run("CREATE DATABASE mcban OWNER plain", "postgres")

    def processes(self) -> list[int]:
        first = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text()
        return [first, *map(int, children.split())]

    def throw_out(self, admin: Connection) -> None:
        admin.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'")

    def waiting(self, admin: Connection) -> bool:
        ask = "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = 'plain' AND wait_event_type = 'Lock'"
        return bool(admin.exec_driver_sql(ask).scalar())

    def be_forgetful(self) -> None:
        with self.admin() as admin:
            for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'"):
                admin.exec_driver_sql(f"ALTER SYSTEM SET {setting}")
            admin.exec_driver_sql("SELECT pg_reload_conf()")

    @contextmanager
    def full(self) -> Iterator[None]:
        with self.admin() as admin:
            admin.exec_driver_sql("ALTER ROLE plain CONNECTION LIMIT 0")
            self.throw_out(admin)
            try:
                yield
            finally:
                admin.exec_driver_sql("ALTER ROLE plain CONNECTION LIMIT -1")

    def take_writes(self, admin: Connection, yes: bool) -> None:
        admin.exec_driver_sql(f"ALTER SYSTEM SET default_transaction_read_only = {'off' if yes else 'on'}")
        admin.exec_driver_sql("SELECT pg_reload_conf()")

    def be_spared(self, connection: Connection) -> None:
        # The one that looks first is undone.
        connection.exec_driver_sql("SET deadlock_timeout = '5s'")

    def deadlocks(self, admin: Connection) -> int:
        ask = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'mcban'"
        return int(admin.exec_driver_sql(ask).scalar_one())


def send(number: int, processes: list[int]) -> None:
    """Send a signal; some may end meanwhile by themselves, as PostgreSQL's do."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def is_alive(number: int) -> bool:
    """Whether the process runs; one that ended and that nobody asked for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
