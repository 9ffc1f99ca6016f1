"""A private MariaDB server on a temporary directory and socket, for tests: nothing that someone else started."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.once import once
from tests.patience import PATIENCE
from tests.shared import shared


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    socket: Path

    def new_database(self, user: str = "root") -> str:
        """Make an empty database with a name of its own and give its URL."""
        return new_database(self.socket, f"t{uuid.uuid4().hex[:12]}", user)

    def drop_database(self, url: str) -> None:
        """Take a database away that `new_database` made."""
        sql(self.socket, f"DROP DATABASE IF EXISTS `{name_of(url)}`")

    def sql(self, url: str, statement: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `statement` in the database of `url`, in the `mariadb` client, as an administrator would type it."""
        return sql(self.socket, statement, name_of(url), check=check)


def name_of(url: str) -> str:
    """The database's name in a URL."""
    return url.partition("@localhost/")[2].partition("?")[0]


@contextmanager
def shared_server(folder: Path, *options: str) -> Iterator[Server]:
    """A server that several processes share: see `tests/shared.py`."""

    @contextmanager
    def start(short: Path) -> Iterator[str]:
        with private_server(short, *options) as socket:
            yield str(socket)

    with shared(folder, start) as socket:
        yield Server(Path(socket))


@contextmanager
def private_server(folder: Path, *options: str) -> Iterator[Path]:
    """Run a `mariadbd` in `folder` and give its socket; the server is gone afterwards. Its data stays, so that the same
    folder again means the same server come back."""
    data, socket = folder / "data", folder / "s"
    user = ["--user=root"] if os.geteuid() == 0 else []
    if not data.exists():
        install(data)
    # setpriv: when we are killed, the server ends too.
    command = [
        *(["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []),
        shutil.which("mariadbd") or "/usr/sbin/mariadbd",
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket}",
        f"--pid-file={folder / 'pid'}",
        f"--tmpdir={folder}",  # a server that starts deletes what others have in a common one
        "--skip-networking",
        "--innodb-flush-log-at-trx-commit=0",
        *user,
        *options,
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        await_ready(server, socket, folder / "log")
        yield socket
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def install(data: Path) -> None:
    """Make a data directory: a copy of the one that the workers of a run have made once."""
    run = next((folder.parent for folder in data.parents if folder.name.startswith("popen-gw")), None)
    if run is None:
        _install(data)
    else:
        shutil.copytree(once(run / "mariadb", lambda folder: _install(folder / "data")) / "data", data)


def _install(data: Path) -> None:
    user = ["--user=root"] if os.geteuid() == 0 else []
    command = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
    data.mkdir(parents=True, exist_ok=True)
    command += [f"--datadir={data}", f"--tmpdir={data.parent}", *user]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        raise RuntimeError(f"mariadb-install-db: {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def await_ready(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Until the server answers; raises RuntimeError with its log when it does not."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        if sql(socket, "SELECT 1", check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"mariadbd did not start:\n{log.read_text(errors='replace')[-2000:]}")


def sql(socket: Path, statement: str, database: str = "", *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `statement` in the `mariadb` client, as an administrator would type it."""
    command = [
        "mariadb",
        "--no-defaults",
        f"--socket={socket}",
        "-uroot",
        "--batch",
        "-N",
        *([database] * bool(database)),
    ]
    return subprocess.run(command, input=statement, text=True, capture_output=True, check=check)


def new_database(socket: Path, name: str, user: str = "root") -> str:
    """Make an empty database and give its URL."""
    sql(socket, f"CREATE DATABASE `{name}`")
    return f"mysql+pymysql://{user}@localhost/{name}?unix_socket={socket}"
