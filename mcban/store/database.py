"""The connection to SQL: engines, transactions, and the translation of the drivers' errors into ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from mcban.errors import ConfigError, DatabaseError, DataError, McbanError, NoPermissionError, printable
from mcban.store.addresses import AddressTable
from mcban.store.changes import ChangeTable
from mcban.store.events import EventTable
from mcban.store.hits import HitTable
from mcban.store.jails import JailTable
from mcban.store.nodes import NodeTable
from mcban.store.positions import PositionTable
from mcban.store.tables import TURN

T = TypeVar("T")

LOCK_WAIT = 30
"""Seconds that a SQLite writer waits for another process's transaction."""

ANSWER_WAIT = 20
"""Seconds that a server may take for an answer, its first greeting among them."""

# By number, never by text. Deadlock, lock wait time-out: the server undid the transaction and wants it again.
_MYSQL_AGAIN = {1205, 1213}
_MYSQL_NO_TABLE = {1146, 1054}
_MYSQL_REFUSED = {1044, 1045, 1142, 1227, 1370}
_MYSQL_NO_TRIGGERS = 1419
_TAKE_TURN = update(TURN).values(taken=TURN.c.taken + 1)
_SQLITE_DENIED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class Edition(NamedTuple):
    """The database as a writing transaction finds it: in two that are equal, nobody has written in between."""

    connection: object
    others: int
    """SQLite's own count of what came to this connection from others."""
    ours: int
    """Transactions that this process wrote."""

    @property
    def following(self) -> Edition:
        """What the next transaction finds when only this one wrote."""
        return self._replace(ours=self.ours + 1)


class Transaction:
    """The tables, inside one transaction. `edition` is None where nobody can tell; `link` says on which of its
    connections `Database.glance` stands."""

    def __init__(self, connection: Connection, edition: Edition | None = None, link: int = 0) -> None:
        self.edition, self.link = edition, link
        self.connection = connection
        self.jails = JailTable(connection)
        self.addresses = AddressTable(connection)
        self.hits = HitTable(connection)
        self.positions = PositionTable(connection)
        self.events = EventTable(connection)
        self.changes = ChangeTable(connection)
        self.nodes = NodeTable(connection)


class Database:
    """Transactions on one URL. Raises ConfigError at once for a URL that cannot be used; nothing is opened yet."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._written = 0
        self.conduct: Callable[[Callable[[], Any]], Any] = lambda transaction: transaction()
        """Runs each transaction. Whoever cannot wait for an answer that may take long sets another."""
        self._glance: tuple[Connection, Transaction] | None = None
        self._links = 0
        self.shown_url = self.engine.url.render_as_string(hide_password=True)

    @property
    def sqlite_file(self) -> str | None:
        """The file of an embedded database, None for a server."""
        return self.engine.url.database if self.engine.dialect.name == "sqlite" else None

    @property
    def server(self) -> str | None:
        """The name or address of the database server, None for an embedded database or a socket."""
        url = self.engine.url
        return url.host if self.sqlite_file is None and "unix_socket" not in url.query else None

    def read(self, work: Callable[[Transaction], T]) -> T:
        """`work` on one snapshot. Raises DatabaseError, NoPermissionError, ConfigError for a missing schema."""
        done: T = self.conduct(lambda: self._read(work))
        return done

    def _read(self, work: Callable[[Transaction], T]) -> T:
        with self.translating(), self.engine.connect() as connection, connection.begin():
            if self.sqlite_file is None:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return work(Transaction(connection))

    def glance(self, work: Callable[[Transaction], T]) -> T:
        """`work` on a connection that is kept for it, each of its questions in a snapshot of its own: a single round
        trip, for what is asked several times a second. When the connection was lost another is made and `work` done
        again, which sees that by `Transaction.link`. Raises as `read` does."""
        done: T = self.conduct(lambda: self._look(work))
        return done

    def _look(self, work: Callable[[Transaction], T]) -> T:
        with self.translating():
            if self._glance is not None:
                try:
                    return work(self._glance[1])
                except DBAPIError:
                    self._end_glance()
            try:
                return work(self._open_glance())
            except BaseException:
                self._end_glance()
                raise

    def _open_glance(self) -> Transaction:
        connection = self.engine.connect()
        if self.sqlite_file is None:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        else:
            connection = connection.execution_options(mcban_glance=True)
        self._links += 1
        self._glance = connection, Transaction(connection, link=self._links)
        return self._glance[1]

    def _end_glance(self) -> None:
        if self._glance is not None:
            connection, self._glance = self._glance[0], None
            with suppress(SQLAlchemyError):
                connection.invalidate()
            connection.close()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """`work` in a transaction that no other writer crosses; done again, whole, when the server undid it for a
        deadlock. Raises as `read` does."""
        done: T = self.conduct(lambda: self._write(work))
        return done

    def _write(self, work: Callable[[Transaction], T]) -> T:
        for attempt in range(6):
            try:
                return self._write_once(work)
            except UnicodeEncodeError as error:
                raise _no_text(error) from None
            except SQLAlchemyError as error:
                if _code(error) not in _MYSQL_AGAIN or attempt == 5:
                    raise self._translated(error) from error
                time.sleep(0.01 * 2**attempt)
        raise AssertionError("unreachable")

    def _write_once(self, work: Callable[[Transaction], T]) -> T:
        with self.engine.connect().execution_options(mcban_write=True) as connection, connection.begin():
            if self.sqlite_file is None:
                connection.execute(_TAKE_TURN)
            done = work(Transaction(connection, self._edition(connection)))
            self._written += 1  # before the commit, lest one that fails half-way looks as if nothing had been
        return done

    def _edition(self, connection: Connection) -> Edition | None:
        if self.sqlite_file is None:
            return None
        others = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return Edition(connection.connection.dbapi_connection, others, self._written)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Driver errors leave as ours."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise _no_text(error) from None
        except SQLAlchemyError as error:
            raise self._translated(error) from error

    def _translated(self, error: SQLAlchemyError) -> McbanError:
        code = _code(error)
        said = printable(str(error.orig if isinstance(error, DBAPIError) else error), 200)
        if code in _SQLITE_DENIED:
            return NoPermissionError(f"no permission to write {self.shown_url}: run as root, or as the file's owner")
        if code == sqlite3.SQLITE_CANTOPEN:
            return DatabaseError(f"{self.shown_url} cannot be opened: does the folder exist, and may you write there?")
        if code in _MYSQL_NO_TABLE or (code == sqlite3.SQLITE_ERROR and "no such" in said):
            return ConfigError(f"{self.shown_url} lacks a table or column ({said}): run `mcban db upgrade`")
        if code == _MYSQL_NO_TRIGGERS:
            return NoPermissionError(
                f"{self.shown_url} keeps a binary log and lets only an administrator make triggers: run "
                "`mcban db upgrade` once with an administrator's URL, or SET GLOBAL log_bin_trust_function_creators=1"
            )
        if code in _MYSQL_REFUSED:
            return DatabaseError(f"{self.shown_url} refuses us ({said}): check user, password and grants")
        return DatabaseError(f"{self.shown_url} cannot be used: {said}")

    def dispose(self) -> None:
        """Close every connection."""
        self._end_glance()
        self.engine.dispose()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in {"mysql", "mariadb"}:
            parsed = parsed.set(drivername=f"{parsed.drivername}+pymysql")
        return _server_engine(parsed) if parsed.get_backend_name() != "sqlite" else _sqlite_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            "database.url is no usable SQLAlchemy URL: write sqlite:////PATH or mysql+pymysql://USER:PASSWORD@HOST/DB "
            f"({type(error).__name__})"
        ) from error


def _server_engine(url: URL) -> Engine:
    if url.get_backend_name() not in {"mysql", "mariadb"}:
        raise ConfigError(f"database.url: {printable(url.get_backend_name())} is not supported: use SQLite or MariaDB")
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "read_timeout": ANSWER_WAIT,
            "write_timeout": ANSWER_WAIT,
            "charset": "utf8mb4",
        },
    )

    @event.listens_for(engine, "connect")
    def _session(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            # TIMESTAMP columns are shown in the session's zone: ours is UTC.
            cursor.execute("SET time_zone = '+00:00'")

    return engine


def _sqlite_engine(url: URL) -> Engine:
    if url.database in {None, "", ":memory:"}:
        raise ConfigError(
            "database.url: a database in memory is lost at the end of each command: write sqlite:////PATH"
        )
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        # We begin transactions ourselves, below: the driver would do it only before the first change.
        connection.isolation_level = None
        connection.text_factory = _sqlite_text
        # The log of changes is folded into the file when it has 16 MB, not 4: pages that change again and again are
        # written once, and what a flood of bans leaves is cut back.
        larger_log = ("wal_autocheckpoint=4000", "journal_size_limit=16777216")
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", *larger_log):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock at once: what it reads before it writes stays true until it commits.
        options = connection.get_execution_options()
        if not options.get("mcban_glance"):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("mcban_write") else "BEGIN")

    return engine


def _sqlite_text(raw: bytes) -> str | bytes:
    """SQLite takes for text what is no UTF-8, if somebody casts it: that reads as the bytes that it is."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _no_text(error: UnicodeEncodeError) -> DataError:
    """Bytes that are no UTF-8 reach us as lone surrogates, which no database takes."""
    shown = printable(error.object[max(0, error.start - 30) : error.end + 30])
    return DataError(f"{shown} is no valid UTF-8: the database cannot hold it")


def _code(error: BaseException) -> int | None:
    """The driver's number for an error."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(original, sqlite3.Error):
        full: int | None = getattr(original, "sqlite_errorcode", None)
        return None if full is None else full & 0xFF  # the extended codes refine the low byte
    arguments = getattr(original, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
