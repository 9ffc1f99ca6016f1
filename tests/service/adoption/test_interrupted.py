"""An adoption that is killed, stopped, or met by another: it can be done again, and nothing is lost or there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from mcban.errors import ConfigError, DatabaseError, RefusedError
from mcban.service.adoption import adopt
from mcban.service.report import bans_in_force
from mcban.store import schema
from mcban.store.database import Database
from mcban.store.original import Heritage, Original, Standing, standing, take_over
from tests import original
from tests.cli.terminal import MCBAN
from tests.conftest import require_mariadb
from tests.mariadb import Server, new_database, private_server
from tests.patience import PATIENCE, until
from tests.service.adoption.desk import IP, RECENT, Make, raw

CUT = """
import sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from mcban.cli.main import main
left = int(sys.argv[1])
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    global left
    if statement.split()[0] in ("SELECT", "PRAGMA", "SHOW", "SET", "BEGIN", "DESCRIBE"):
        return
    left -= 1
    if not left:
        import os
        os.kill(os.getpid(), 9)
main(["db", "adopt"])
"""
"""`mcban db adopt`, killed right after the statement of that number which changes something."""


def killed(url: str, after: int, folder: Path) -> bool:
    """Whether it was killed, or came to its end before."""
    env = os.environ | {
        "MCBAN_DATABASE_URL": url,
        "MCBAN_STATE_DIR": str(folder),
        "MCBAN_FIREWALL": "memory",
        "MCBAN_CONFIG": "/dev/null",
    }
    done = subprocess.run([sys.executable, "-c", CUT, str(after)], env=env, capture_output=True, check=False)
    assert done.returncode in {0, -9}, done.stderr.decode()
    return done.returncode == -9


@pytest.mark.parametrize("step", [19, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_after_any_statement_it_can_be_done_again(make: Make, either: str, tmp_path: Path, step: int) -> None:
    """Over and over, each time a little later: in the end everything is there, once."""
    original.add(either, *((f"203.0.113.{n}", "mc-exim-1y", 1, 1, 0, 0, RECENT) for n in range(20)))
    after = 1
    while killed(either, after, tmp_path):
        after += step
        context = make(either)
        if standing(context.database) in {Standing.COPIED, Standing.ADOPTED}:  # only the names were still to be changed
            assert len(bans_in_force(context, "mc-exim-1y")) == 20
            continue
        with pytest.raises(ConfigError, match="mcban db adopt"):
            schema.require(context.database)
    context = make(either)
    assert standing(context.database) is Standing.ADOPTED
    assert len(bans_in_force(context, "mc-exim-1y")) == 20
    assert len(raw(either, "mcban_adopted_ips")) == 20
    assert after > 30


def adopting(url: str, folder: Path) -> subprocess.Popen[str]:
    """`mcban db adopt` at a keyboard."""
    env = os.environ | {
        "MCBAN_DATABASE_URL": url,
        "MCBAN_STATE_DIR": str(folder),
        "MCBAN_FIREWALL": "memory",
        "MCBAN_CONFIG": "/dev/null",
    }
    return subprocess.Popen(
        [MCBAN, "db", "adopt"],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # a build may ignore it
    )


def test_control_c_leaves_no_renaming_behind_that_the_server_still_waits_for(
    make: Make, empty_mariadb: str, mariadb: Server, tmp_path: Path
) -> None:
    """Whoever reads the tables keeps them from being put aside; when he has read, nothing is done any more for a
    command that was stopped meanwhile."""
    original.make(empty_mariadb)
    reader = Database(empty_mariadb)

    def waiting() -> bool:
        name = reader.engine.url.database
        listed = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = '{name}' AND STATE LIKE '%metadata lock'"
        return bool(mariadb.sql(empty_mariadb, listed).stdout)

    with reader.engine.connect() as connection:
        connection.execute(text("SELECT * FROM fail2ban_ips"))
        command = adopting(empty_mariadb, tmp_path)
        until(waiting, "the renaming")
        command.send_signal(signal.SIGINT)
        said = command.communicate(timeout=PATIENCE)
        assert not waiting()
    reader.dispose()
    assert (command.returncode, *said) == (130, "", "mcban: stopped by the keyboard\n")
    assert standing(make(empty_mariadb).database) is Standing.ORIGINAL
    adopt(make(empty_mariadb))


def test_a_server_that_dies_half_way_is_said_with_what_is_to_be_done(make: Make, tmp_path: Path) -> None:
    """Nobody who looks for his tables finds them under the names of an adoption without a word; done again, it goes on
    from there."""
    require_mariadb()
    durable = "--innodb-flush-log-at-trx-commit=1"

    def die(_: Original) -> Heritage:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        return Heritage()

    with private_server(tmp_path, durable) as socket:
        url = new_database(socket, "old")
        original.make(url)
        words = "cannot be used: .*mcban_adopting_.*: run `mcban db adopt` again"
        with pytest.raises(DatabaseError, match=words) as caught:
            take_over(make(url).database, die)
        assert "\n" not in str(caught.value)
    with private_server(tmp_path, durable):
        assert standing(make(url).database) is Standing.HALFWAY
        adopt(make(url))
        assert standing(make(url).database) is Standing.ADOPTED


def test_two_at_once_do_not_meet(make: Make, empty_mariadb: str) -> None:
    """The second is told to wait."""
    original.make(empty_mariadb)
    first, second = make(empty_mariadb), make(empty_mariadb)
    lock = "CONCAT('mcban adopt ', MD5(DATABASE()))"
    with first.database.engine.connect() as connection:
        connection.execute(text(f"SELECT GET_LOCK({lock}, 0)"))
        with pytest.raises(RefusedError, match="being adopted already"):
            adopt(second)
        connection.execute(text(f"SELECT RELEASE_LOCK({lock})"))  # who merely goes has it until the server notices
    adopt(second)


def test_who_comes_second_leaves_what_the_first_made(make: Make, either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when he had looked before the first was done."""
    original.add(either, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    adopt(make(either))
    context = make(either)
    for late in ("mcban.service.adoption.store.standing", "mcban.store.original.schema.current"):
        with monkeypatch.context() as patch:
            patch.setattr("mcban.service.adoption.store.standing", lambda _: Standing.ORIGINAL)
            if late.endswith("current"):
                patch.setattr(late, lambda _: None)
                patch.setattr("mcban.store.original._check", lambda _: None)
            with pytest.raises(RefusedError, match="in the meantime"):
                adopt(context)
    assert [ban.ip for ban in bans_in_force(context, None)] == [IP]
    assert standing(context.database) is Standing.ADOPTED
