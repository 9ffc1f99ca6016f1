"""SQLite under the hands of several processes, on a disk that is full, failing or read-only, and with its file gone."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mcban.errors import ConfigError, DatabaseError
from mcban.service.changes import ChangeFeed
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database
from tests.cli.terminal import Terminal
from tests.netns import require_netns
from tests.patience import PATIENCE

IP = "203.0.113.7"
WRITERS = 8


@pytest.fixture
def terminal(tmp_path: Path, sqlite_template: Path) -> Terminal:
    """A terminal whose database is there."""
    made = Terminal(tmp_path)
    made.database.parent.mkdir()
    shutil.copy(sqlite_template, made.database)
    return made


def test_commands_an_engine_a_slow_reader_and_a_killed_writer_get_along(terminal: Terminal) -> None:
    """Eight commands write at once while an engine runs, somebody's question keeps the log of changes from being
    folded back, and a writer is killed in the middle: nobody is told that the database is locked, nothing is lost."""
    log = terminal.folder / "engine.log"
    with log.open("w") as said:
        engine = subprocess.Popen([MCBAN, "run"], env=terminal.env, stderr=said, stdout=said)
    reader = sqlite3.connect(terminal.database)
    reader.execute("BEGIN")
    assert reader.execute("SELECT COUNT(*) FROM fail2ban_ips").fetchone() == (0,)
    killed = subprocess.Popen([sys.executable, "-c", _HALF_WRITTEN, str(terminal.database)], stdout=subprocess.PIPE)
    try:
        assert killed.stdout is not None and killed.stdout.readline() == b"holds the lock\n"
        commands = [
            subprocess.Popen(
                [MCBAN, "ban", "-j", "mc-exim-1d", *(f"-i203.0.113.{n}" for n in range(1 + writer, 201, WRITERS))],
                env=terminal.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for writer in range(WRITERS)
        ]
        time.sleep(0.5)
        killed.kill()
        said_by_all = [command.communicate(timeout=PATIENCE)[0] for command in commands]
        assert [command.returncode for command in commands] == [0] * WRITERS, said_by_all
        banned = terminal.json("banned")
        assert len(banned) == len({ban["ip"] for ban in banned}) == 200
        assert reader.execute("SELECT COUNT(*) FROM fail2ban_ips").fetchone() == (0,)
        assert engine.poll() is None
    finally:
        reader.close()
        killed.kill()
        killed.wait()
        engine.send_signal(signal.SIGTERM)
        engine.wait(PATIENCE)
    assert "locked" not in log.read_text() + "".join(said_by_all)
    assert "Traceback" not in log.read_text()


MCBAN = str(Path(sys.executable).with_name("mcban"))
_HALF_WRITTEN = textwrap.dedent(
    """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM fail2ban_jail")
    print("holds the lock", flush=True)
    time.sleep(600)
    """
)


def test_a_file_that_is_deleted_under_us_is_missed_and_not_made_anew(sqlite_url: str) -> None:
    """What goes on being written there nobody would ever see; put back, it is used again."""
    database = Database(sqlite_url)
    feed = database.glance(ChangeFeed)
    database.write(lambda t: t.addresses.save([AddressRecord(IP, "j")]))
    file = Path(str(database.sqlite_file))
    aside = file.with_suffix(".aside")
    database.dispose()
    database.read(lambda t: t.jails.all())
    file.rename(aside)
    for ask in (database.read, database.write, database.glance):
        with pytest.raises(DatabaseError, match=r"mcban\.sqlite is gone, deleted or moved while in use: put it back"):
            ask(lambda t: t.changes.last())
    assert not file.exists()
    aside.rename(file)
    assert [row.ip for row in database.read(lambda t: t.addresses.get([IP]))] == [IP]
    assert database.glance(lambda t: feed.poll(t, 1.0)) is not None
    database.dispose()


def test_a_file_that_is_replaced_under_us_is_said_once_and_opened(
    sqlite_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    """A copy from yesterday was put back: from now on that is the database, and the feed looks at everything."""
    database = Database(sqlite_url)
    feed = database.glance(ChangeFeed)
    database.write(lambda t: t.addresses.save([AddressRecord(IP, "j")]))
    database.read(lambda t: t.jails.all())
    other = tmp_path / "other.sqlite"
    shutil.copy(sqlite_template, other)
    other.replace(str(database.sqlite_file))
    for suffix in ("-wal", "-shm"):
        Path(f"{database.sqlite_file}{suffix}").unlink(missing_ok=True)
    with pytest.raises(DatabaseError, match="was replaced by another file while in use: it is opened anew"):
        database.glance(lambda t: t.changes.last())
    assert database.read(lambda t: t.addresses.get([IP])) == []
    news = database.glance(lambda t: feed.poll(t, 1.0))
    assert news is not None and news.missed
    database.write(lambda t: t.addresses.save([AddressRecord(IP, "k")]))
    assert sqlite3.connect(str(database.sqlite_file)).execute("SELECT jail FROM fail2ban_ips").fetchall() == [("k",)]
    database.dispose()


def test_a_file_without_the_schema_that_took_its_place_is_said(sqlite_url: str, tmp_path: Path) -> None:
    """Nothing is made there unasked."""
    database = Database(sqlite_url)
    database.read(lambda t: t.jails.all())
    (tmp_path / "empty").touch()
    (tmp_path / "empty").replace(str(database.sqlite_file))
    with pytest.raises(DatabaseError, match="was replaced"):
        database.read(lambda t: t.jails.all())
    with pytest.raises(ConfigError, match="run `mcban db upgrade`"):
        database.read(lambda t: t.jails.all())
    database.dispose()


_ON_A_DISK = """
set -e
mount -t tmpfs -o size=2m none "$1"
cp "$2" "$1/mcban.sqlite"
export MCBAN_DATABASE_URL="sqlite:///$1/mcban.sqlite"
shift 2
"$@"
"""


def on_a_small_disk(terminal: Terminal, template: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` with the database on a disk of its own that nobody else sees."""
    disk = terminal.folder / "disk"
    disk.mkdir()
    command = ["unshare", "-m", "sh", "-c", _ON_A_DISK, "sh", str(disk), str(template), "sh", "-c", script, "sh"]
    return subprocess.run(
        [*command, str(disk), MCBAN], env=terminal.env, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def test_a_full_disk_is_one_clear_line(terminal: Terminal, sqlite_template: Path) -> None:
    """Exit status 69 and what to do; what was there is there, and with room again it goes on."""
    require_netns()
    script = """
        "$2" ban -j mc-exim-1d -i 203.0.113.1 >/dev/null
        dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null
        "$2" ban -j mc-exim $(seq -f '-i198.51.100.%g' 1 250); echo "status $?"
        rm "$1/fill"
        "$2" banned
    """
    done = on_a_small_disk(terminal, sqlite_template, script)
    assert "status 69" in done.stdout, done
    (line,) = done.stderr.splitlines()
    assert "its disk is full" in line and "make room there" in line
    assert "203.0.113.1" in done.stdout
    assert "198.51.100.1" not in done.stdout


def test_a_disk_that_became_read_only_is_one_clear_line(terminal: Terminal, sqlite_template: Path) -> None:
    """A disk that failed is mounted so by the kernel: that is no matter of who asks."""
    require_netns()
    script = (
        'mount -o remount,ro "$1"; "$2" ban -j mc-exim -i 203.0.113.1; echo "status $?"; "$2" status; echo "$?"; '
        '"$2" db upgrade; echo "upgrade $?"'
    )
    done = on_a_small_disk(terminal, sqlite_template, script)
    assert "status 69" in done.stdout and "upgrade 69" in done.stdout, done
    lines = done.stderr.splitlines()
    assert ["read-only file system" in line for line in lines] == [True, True], lines
    assert "run as root" not in done.stderr
