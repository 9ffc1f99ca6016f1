"""A private PostgreSQL server on a temporary directory and socket, for tests: nothing that someone else started.

Debian's package starts a service on the machine of whoever installs it: unless it is there, its files are fetched and
unpacked. It does not run as root, so that for root it runs as `nobody`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.debian import unpacked
from tests.patience import PATIENCE
from tests.shared import shared

PORT = 5432
"""Of the socket's name alone: it listens on no address unless it is told to."""


@dataclass(frozen=True)
class PostgreSQL:
    """A server that runs."""

    socket: Path
    """The folder of its socket."""
    programs: Path
    port: int = PORT

    def url(self, name: str, user: str = "root") -> str:
        """The URL of a database."""
        return f"postgresql+psycopg://{user}@/{name}?host={self.socket}"

    def new_database(self) -> str:
        """Make an empty database with a name of its own and give its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.run(f'CREATE DATABASE "{name}"', "postgres")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Take a database away that `new_database` made."""
        self.run(f'DROP DATABASE IF EXISTS "{name_of(url)}" WITH (FORCE)', "postgres")

    def sql(self, url: str, statement: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `statement` in the database of `url`, in `psql`, as an administrator would type it."""
        return self.run(statement, name_of(url), check=check)

    def run(self, statement: str, database: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The same by the database's name."""
        command = [str(self.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket)]
        command += ["-p", str(self.port), "-U", "root", "-d", database]
        return subprocess.run(command, input=statement, text=True, capture_output=True, check=check)


def name_of(url: str) -> str:
    """The database's name in a URL."""
    return url.rpartition("/?")[0].rpartition("/")[2] or url.partition("@/")[2].partition("?")[0]


def programs(cache: Path) -> Path:
    """The folder of `postgres`, `initdb` and `psql`: the newest installed, else unpacked into `cache`. Raises
    MissingPackageError."""
    for root in (Path("/"), cache / "root"):
        found = sorted(root.glob("usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if found and (found[-1].parent / "psql").exists():
            return found[-1].parent
    # Debian's `postgresql` depends on the release that it stands for.
    known = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=False).stdout
    release = next((word for word in known.split() if re.fullmatch(r"postgresql-\d+", word)), "postgresql-15")
    root = unpacked(cache, release, release.replace("-", "-client-"), "libpq5")
    return next(root.glob("usr/lib/postgresql/*/bin"))


@contextmanager
def shared_server(folder: Path, bin_folder: Path) -> Iterator[PostgreSQL]:
    """A server that several processes share: see `tests/shared.py`."""

    @contextmanager
    def start(short: Path) -> Iterator[str]:
        with private_server(short, bin_folder) as server:
            yield str(server.socket)

    with shared(folder, start) as socket:
        yield PostgreSQL(Path(socket), bin_folder)


@contextmanager
def private_server(folder: Path, bin_folder: Path, *options: str, port: int = PORT) -> Iterator[PostgreSQL]:
    """Run a server in `folder`; it is gone afterwards. Its data stays, so that the same folder again means the same
    server come back. `options` are settings: `-c`, `ssl=on`."""
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    data = folder / "data"
    if nobody and not bin_folder.is_relative_to("/usr"):
        # What was unpacked lies where nobody else may look.
        there = folder / "root"
        if not there.exists():
            shutil.copytree(bin_folder.parents[4], there, symlinks=True)
        bin_folder = there / bin_folder.relative_to(bin_folder.parents[4])
    libraries = next(iter((bin_folder.parents[4] / "usr/lib").glob("*-linux-gnu*")), None)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "Asia/Kathmandu"}
    if libraries and bin_folder.parents[4] != Path("/"):
        environment["LD_LIBRARY_PATH"] = str(libraries)
    if nobody:
        shutil.chown(folder, 65534)
        folder.chmod(0o755)
    if not data.exists():
        data.mkdir(mode=0o700)
        if nobody:
            shutil.chown(data, 65534, 65534)
        first = ["initdb", "-A", "trust", "-U", "root", "--no-sync", "-E", "UTF8", "--locale=C", "-D", str(data)]
        subprocess.run(
            [*nobody, str(bin_folder / first[0]), *first[1:]], check=True, capture_output=True, env=environment
        )
    command = [*nobody, "--pdeathsig", "INT"] if nobody else ["setpriv", "--pdeathsig", "INT"]
    command += [str(bin_folder / "postgres"), "-D", str(data), "-k", str(folder), "-p", str(port)]
    command += ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "timezone=Asia/Kathmandu", *options]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        found = PostgreSQL(folder, bin_folder, port)
        await_ready(server, found, folder / "log")
        yield found
    finally:
        server.send_signal(2)  # "fast": clients are sent away
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def await_ready(server: subprocess.Popen[bytes], found: PostgreSQL, log: Path) -> None:
    """Until the server answers; raises RuntimeError with its log when it does not."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        if found.run("SELECT 1", "postgres", check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"postgres did not start:\n{log.read_text(errors='replace')[-2000:]}")
