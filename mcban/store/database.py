"""The connection to SQL: transactions, done again where that helps, and the drivers' errors as ours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from mcban.errors import ConfigError, DatabaseError
from mcban.store.access import Access, host_of, shown, unusable_option
from mcban.store.addresses import AddressTable
from mcban.store.changes import ChangeTable
from mcban.store.clock import ServerClock
from mcban.store.embedded import Embedded, is_there
from mcban.store.events import EventTable
from mcban.store.faults import PASSING, Kind, kind_of, no_text, translated
from mcban.store.hits import HitTable
from mcban.store.jails import JailTable
from mcban.store.nodes import NodeTable
from mcban.store.positions import PositionTable
from mcban.store.servers import Servers
from mcban.store.tables import TURN

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds for which a transaction is tried again that met a deadlock, or a server that is going or coming."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5

_TAKE_TURN = update(TURN).values(taken=TURN.c.taken + 1)
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class UnsureError(DatabaseError):
    """The server went away while it committed: nobody knows whether it did."""


class Edition(NamedTuple):
    """The database as a writing transaction finds it: in two that are equal, nobody has written in between."""

    connection: object
    others: int
    """SQLite's own count of what came to this connection from others."""
    ours: int
    """Transactions that this process wrote, but for those that touched no address."""

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

    @property
    def is_first(self) -> bool:
        """Whether none before on this connection was told that it is not: what is known of the database may be of
        another, or of the same before it crashed."""
        return "mcban_met" not in self.connection.info

    def meet(self) -> None:
        """This is the database that is known: no transaction on this connection is the first any more."""
        self.connection.info["mcban_met"] = True


class Database:
    """Transactions on one URL, or on the nodes of one cluster. Raises ConfigError at once for a URL that cannot be
    used; nothing is opened yet."""

    def __init__(self, access: str | Access) -> None:
        if isinstance(access, str):
            access = Access((access,))
        urls = access.parsed()
        self._urls = urls
        try:
            embedded = urls[0].get_backend_name() == "sqlite"
            self._place: Embedded | Servers = Embedded(urls[0]) if embedded else Servers(access, urls)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise ConfigError(
                f"{access.named}: {urls[0].drivername} wants a package that is not installed ({error}): "
                "for PostgreSQL it is pip install 'mcban[postgresql]'"
            ) from None
        except (TypeError, ValueError) as error:  # a word, or two numbers, where one is wanted
            raise unusable_option(access.named, urls[0], error) from None
        self._written = 0
        self.patience = PATIENCE
        """Seconds for which what passes is waited for; an engine, which has other things to do, sets it to 0."""
        self.conduct: Callable[[Callable[[], Any]], Any] = lambda transaction: transaction()
        """Runs each transaction. Whoever cannot wait for an answer that may take long sets another."""
        self.watch: AbstractContextManager[object] = nullcontext()
        """Entered around whatever asks the database, and again inside of it: for those who want to know how long that
        takes."""
        self._glance: tuple[Connection, Transaction] | None = None
        self._links = 0
        self._clock = ServerClock(self.engine) if isinstance(self._place, Servers) else None

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's."""
        return self._place.engine

    @property
    def shown_url(self) -> str:
        """The URL in use, of several nodes that of the one that answered last; its password is hidden."""
        return shown(self._place.url)

    @property
    def nodes(self) -> list[str]:
        """The URLs of all nodes; their passwords are hidden."""
        return [shown(url) for url in self._urls]

    @property
    def longest_wait(self) -> int:
        """Seconds after which a question is given up that is not answered."""
        return self._place.answer_wait * len(self._urls)

    @property
    def sqlite_file(self) -> str | None:
        """The file of an embedded database, None for a server."""
        return self._place.url.database if isinstance(self._place, Embedded) else None

    def has_file(self, *, writable: bool = True) -> bool:
        """Whether an embedded database's file is there; True for a server. Raises NoPermissionError or
        UnavailableError when it may not be used, DataError when it is something else."""
        file = self.sqlite_file
        return file is None or is_there(Path(file), writable=writable)

    @property
    def servers(self) -> list[str]:
        """The names or addresses of the database servers; none for an embedded database or a socket."""
        return list(dict.fromkeys(host for url in self._urls if (host := host_of(url))))

    def read(self, work: Callable[[Transaction], T]) -> T:
        """`work` on one snapshot. Raises DatabaseError, NoPermissionError, ConfigError for a missing schema."""
        return self.attempt(lambda: self._read_once(work))

    def glance(self, work: Callable[[Transaction], T]) -> T:
        """`work` on a connection that is kept for it, each of its questions in a snapshot of its own: a single round
        trip, for what is asked several times a second. When the connection was lost another is made and `work` done
        again, which sees that by `Transaction.link`. Raises as `read` does."""
        done: T = self.conduct(lambda: self._look(work))
        return done

    def _look(self, work: Callable[[Transaction], T]) -> T:
        with self.translating():
            if isinstance(self._place, Embedded) and not self._place.is_current():
                self._end_glance()  # whoever opens it next is told why
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

    @property
    def ahead(self) -> int:
        """Seconds by which the server's clock, the one that all nodes have in common, is ahead of this machine's."""
        return self._clock.ahead if self._clock else 0

    def look_at_clock(self) -> None:
        """Find out again how far the server's clock is ahead. Raises as `read` does."""
        clock = self._clock
        if clock is not None:
            self.glance(lambda transaction: clock.look(transaction.connection))

    def _end_glance(self) -> None:
        if self._glance is not None:
            connection, self._glance = self._glance[0], None
            with suppress(SQLAlchemyError):
                connection.invalidate()
            connection.close()

    def write(self, work: Callable[[Transaction], T], *, touches: bool = True) -> T:
        """`work` in a transaction that no other writer crosses; done again, whole, when the server undid it for a
        deadlock. Without `touches` it changes no hit and nothing that is said of an address, so that what is
        remembered of them stays true. Raises as `read` does, and UnsureError."""
        return self.attempt(lambda: self._write_once(work, touches=touches))

    def attempt(self, work: Callable[[], T]) -> T:
        """`work`, a whole transaction of this database's engine: done again for a while if what stopped it passes, and
        the drivers' errors leave as ours."""
        done: T = self.conduct(lambda: self._attempt(work))
        return done

    def _attempt(self, work: Callable[[], T]) -> T:
        end = time.monotonic() + PATIENCE
        soon = end - PATIENCE + self.patience
        pause = _SHORTEST_PAUSE
        while True:
            try:
                with self.translating():
                    return work()
            except DatabaseError as error:
                kind = kind_of(error.__cause__) if error.__cause__ else Kind.OTHER
                limit = end if kind is Kind.AGAIN else soon if kind in PASSING else 0.0
                if isinstance(error, UnsureError) or time.monotonic() + pause > limit:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # lest two that met meet again
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read_once(self, work: Callable[[Transaction], T]) -> T:
        with self.engine.connect() as connection, connection.begin():
            if self.sqlite_file is None:
                connection.exec_driver_sql(_SNAPSHOT)
            return work(Transaction(connection))

    def _write_once(self, work: Callable[[Transaction], T], *, touches: bool) -> T:
        with (
            self.engine.connect().execution_options(mcban_write=True) as connection,
            connection.begin() as transaction,
        ):
            if self.sqlite_file is None:
                connection.execute(_TAKE_TURN)
            done = work(Transaction(connection, self._edition(connection)))
            self._written += touches  # before the commit, lest one that fails half-way looks as if nothing had been
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                if kind_of(error) in PASSING:
                    raise UnsureError(
                        f"{self.shown_url} went away during a commit: look whether it was done ({type(error).__name__})"
                    ) from error
                raise
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
            with self.watch:
                yield
        except UnicodeEncodeError as error:
            raise no_text(error) from None
        except SQLAlchemyError as error:
            nodes = len(self._urls)
            shown_url = self.shown_url if nodes == 1 else f"{self.shown_url} (of {nodes} nodes)"
            raise translated(error, shown_url, self.sqlite_file, self._place.answer_wait) from error

    def dispose(self) -> None:
        """Close every connection."""
        self._end_glance()
        self.engine.dispose()
