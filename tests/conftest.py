"""What every test may ask for: private servers of MariaDB and PostgreSQL, databases of each kind, a context."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection

from mcban.config import Config
from mcban.firewall.memory import MemoryFirewall
from mcban.service.context import Context, Host
from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.database import Database
from mcban.store.tables import METADATA
from tests import postgres
from tests.debian import MissingPackageError
from tests.fail2ban_package import unpack
from tests.mariadb import Server, shared_server
from tests.missing import skip_or_fail
from tests.once import folder_of_run
from tests.postgres import PostgreSQL

NOON = 1_790_000_000
"""When tests begin: 2026-09-21 UTC, in whole seconds."""


# A loaded machine is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

LONG = ("tests/test_readme.py", "tests/test_make.py", "tests/test_package.py", "tests/e2e/")
"""Whose tests take tens of seconds each: begun last, one of them would leave the other cores with nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; the order is the same for all workers, and otherwise as written."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private MariaDB server, started when a first test asks, and shared by all the workers of a run."""
    require_mariadb()
    with shared_server(folder_of_run(tmp_path_factory) / "mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of Debian's fail2ban package, unpacked once for all the workers of a run."""
    try:
        return unpack(folder_of_run(tmp_path_factory) / "fail2ban")
    except MissingPackageError as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[PostgreSQL]:
    """A private PostgreSQL server, as `mariadb` is one."""
    try:
        if find_spec("psycopg") is None:
            raise MissingPackageError("the driver is missing: pip install 'psycopg[binary]'")
        programs = postgres.programs(pytestconfig.cache.mkdir("postgresql"))
    except MissingPackageError as error:
        skip_or_fail(f"no PostgreSQL: {error}")
    with postgres.shared_server(folder_of_run(tmp_path_factory) / "postgresql", programs) as server:
        yield server


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter. They may not enter pytest's: each run closes those of all runs again."""
    with tempfile.TemporaryDirectory(prefix="mcban-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def require_mariadb() -> None:
    """Skip the test, saying why, where no MariaDB is; under CI that is a failure."""
    missing = [name for name in ("mariadbd", "mariadb-install-db", "mariadb") if not found(name)]
    if missing:
        skip_or_fail(f"{', '.join(missing)} missing: apt-get install mariadb-server-core mariadb-client-core")


def found(program: str) -> bool:
    """Whether `program` is there; servers live in /usr/sbin, which is not on every PATH."""
    return shutil.which(program) is not None or Path("/usr/sbin", program).exists()


@pytest.fixture
def empty_mariadb(mariadb: Server) -> Iterator[str]:
    """The URL of an empty database on the private server."""
    url = mariadb.new_database()
    yield url
    mariadb.drop_database(url)


@pytest.fixture
def empty_sqlite(tmp_path: Path) -> str:
    """The URL of a SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'mcban.sqlite'}"


@pytest.fixture
def empty_postgresql(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of an empty database on the private server."""
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "mariadb"])
def empty_database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once of each kind that the original knows or a user begins with."""
    url: str = request.getfixturevalue(f"empty_{request.param}")
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied: faster than making it for every test."""
    file = tmp_path_factory.mktemp("template") / "mcban.sqlite"
    database = Database(f"sqlite:///{file}")
    schema.upgrade(database)
    database.dispose()
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database with the shipped jails."""
    shutil.copy(sqlite_template, tmp_path / "mcban.sqlite")
    return f"sqlite:///{tmp_path / 'mcban.sqlite'}"


@pytest.fixture(scope="session")
def mariadb_schema(mariadb: Server) -> tuple[Database, dict[str, list[dict[str, Any]]]]:
    """A MariaDB database with the schema, one for each worker, and the rows that it has then."""
    return _with_schema(mariadb.new_database())


@pytest.fixture
def mariadb_url(mariadb_schema: tuple[Database, dict[str, list[dict[str, Any]]]]) -> str:
    """A MariaDB database with the shipped jails and nothing else. Emptied before each test: that is faster than
    making the schema, and leaves what a failed test wrote to be looked at."""
    return _emptied(*mariadb_schema)


@pytest.fixture(scope="session")
def postgresql_schema(postgresql: PostgreSQL) -> tuple[Database, dict[str, list[dict[str, Any]]]]:
    """A PostgreSQL database with the schema, one for each worker, and the rows that it has then."""
    return _with_schema(postgresql.new_database())


@pytest.fixture
def postgresql_url(postgresql_schema: tuple[Database, dict[str, list[dict[str, Any]]]]) -> str:
    """A PostgreSQL database with the shipped jails and nothing else."""
    return _emptied(*postgresql_schema)


def _with_schema(url: str) -> tuple[Database, dict[str, list[dict[str, Any]]]]:
    database = Database(url)
    schema.upgrade(database)
    with database.engine.connect() as connection:
        rows = {table.name: _rows(connection, table.name) for table in METADATA.sorted_tables}
    return database, rows


def _emptied(database: Database, rows: dict[str, list[dict[str, Any]]]) -> str:
    with database.engine.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
        for table in METADATA.sorted_tables:
            if rows[table.name] and table.name != "mcban_change":
                connection.execute(table.insert(), rows[table.name])
        connection.execute(METADATA.tables["mcban_change"].delete())
    return database.engine.url.render_as_string(hide_password=False)


def _rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(METADATA.tables[table].select()).mappings()]


@pytest.fixture(params=["sqlite", "mariadb", pytest.param("postgresql", marks=pytest.mark.soak)])
def any_database(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the shipped jails and nothing else, once of each kind. What stands above the tables
    meets PostgreSQL in `make soak` only, and in tests/e2e/test_postgresql.py: the tables themselves, always."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@dataclass
class Machine:
    """The machine as a test says it is."""

    now: float = NOON
    names: dict[str, list[str]] = field(default_factory=dict)
    protected: dict[str, str] = field(default_factory=dict)

    def host(self) -> Host:
        """What the service asks."""
        return Host(
            clock=lambda: self.now,
            lookup=lambda name: self.names.get(name, []),
            protected=lambda: self.protected,
            port_number=socket.getservbyname,
        )


@pytest.fixture
def machine() -> Machine:
    """A clock that stands until a test moves it, no DNS, nothing protected."""
    return Machine()


MakeContext = Callable[..., Context]


@pytest.fixture
def make_context(any_database: str, machine: Machine, tmp_path: Path) -> Iterator[MakeContext]:
    """Makes nodes on one database: `make_context(node="b", ignoreip=("192.0.2.7",))`."""
    made: list[Context] = []

    def make(**settings: Any) -> Context:
        filters = (shipped("etc") / "filter.d",)
        config = replace(Config(tmp_path, filters, node="here", database_url=any_database), **settings)
        made.append(Context(config, Database(any_database), MemoryFirewall(), machine.host()))
        return made[-1]

    yield make
    for context in made:
        context.database.dispose()


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    """Settings, a database of each kind in turn, the memory firewall, and `machine`."""
    return make_context()
