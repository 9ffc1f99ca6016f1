"""A private MariaDB server on a temporary directory and socket, for tests: nothing that someone else started."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_LIMIT = 60


@contextmanager
def private_server(folder: Path, *options: str) -> Iterator[Path]:
    """Run a `mariadbd` in `folder` and give its socket; the server is gone afterwards."""
    data, socket = folder / "data", folder / "s"
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--datadir={data}",
            *user,
        ],
        check=True,
        capture_output=True,
    )
    command = [
        shutil.which("mariadbd") or "/usr/sbin/mariadbd",
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket}",
        f"--pid-file={folder / 'pid'}",
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
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def await_ready(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Until the server answers; raises RuntimeError with its log when it does not."""
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and server.poll() is None:
        if sql(socket, "SELECT 1", check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"mariadbd did not start:\n{log.read_text(errors='replace')[-2000:]}")


def sql(socket: Path, statement: str, database: str = "", *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `statement` in the `mariadb` client, as an administrator would type it."""
    command = ["mariadb", "--no-defaults", f"--socket={socket}", "-uroot", "--batch", "-N", *([database] * bool(database))]
    return subprocess.run(command, input=statement, text=True, capture_output=True, check=check)


def new_database(socket: Path, name: str) -> str:
    """Make an empty database and give its URL."""
    sql(socket, f"CREATE DATABASE `{name}`")
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={socket}"
