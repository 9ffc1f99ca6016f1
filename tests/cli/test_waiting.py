"""Commands and a server that is there and does nothing: what they say while they wait, and in the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.terminal import MCBAN, Terminal
from tests.conftest import require_mariadb
from tests.mariadb import new_database, private_server
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that nobody else uses."""
    require_mariadb()
    folder = tmp_path_factory.mktemp("db")
    with private_server(folder) as socket:
        new_database(socket, "mcban")
        yield folder


@contextmanager
def stopped(server: Path) -> Iterator[None]:
    """It does not go on before the end of this."""
    process = int((server / "pid").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def use(terminal: Terminal, server: Path, wait: int) -> str:
    """Name that server in the settings, and how long it may take for an answer; its URL as it is shown."""
    url = f"mysql+pymysql://root@localhost/mcban?read_timeout={wait}&unix_socket={quote(str(server / 's'), safe='')}"
    terminal.env["MCBAN_DATABASE_URL"] = url
    return url


def test_a_command_that_waits_for_a_server_says_so(bare: Terminal, server: Path) -> None:
    """For what and until when, in one line on standard error, while it still waits; it goes on when the server does."""
    url = use(bare, server, 600)
    with subprocess.Popen(
        [MCBAN, "db", "upgrade"], env=bare.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        with stopped(server):
            assert command.stderr is not None
            said = command.stderr.readline()
        out, err = command.communicate(timeout=PATIENCE)
    assert re.fullmatch(rf"mcban: waiting for {re.escape(url)} to answer, until \d\d:\d\d:\d\d\n", said)
    assert (command.returncode, out, err) == (0, f"{url} brought to schema 0001\n", "")


def test_adopting_from_a_server_that_hangs_says_so(bare: Terminal, server: Path) -> None:
    """It is the other database that is waited for and named, until when, and then called what it is."""
    url = use(bare, server, 6)
    del bare.env["MCBAN_DATABASE_URL"]
    adopt = [MCBAN, "db", "adopt", "--from", url]
    with stopped(server):
        done = subprocess.run(adopt, env=bare.env, text=True, capture_output=True, timeout=PATIENCE, check=False)
    waiting, failed = done.stderr.splitlines()
    assert re.fullmatch(rf"mcban: waiting for {re.escape(url)} to answer, until \d\d:\d\d:\d\d", waiting)
    assert failed.startswith(f"mcban: {url} cannot be used: it answered nothing for 6 s")
    assert (done.returncode, done.stdout) == (69, "")


def test_a_server_that_answers_nothing_is_called_so(bare: Terminal, server: Path) -> None:
    """With the time that it had for an answer, and status 69; `status` answers all the same."""
    use(bare, server, 6)
    with stopped(server):
        answer = bare.process("banned", "--json")
        status = bare.process("status", "--json")
    assert (answer.status, answer.out) == (69, "")
    assert "cannot be used: it answered nothing for 6 s (error 2013: " in answer.err.splitlines()[-1]
    assert "it answered nothing for 6 s" in status.document["database"]["error"]
