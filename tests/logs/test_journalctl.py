"""journalctl as the engine runs it: once for each question, started again, gone with the engine, missed by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mcban.logs import LogReader, LogState
from tests.journald import Journald
from tests.logs.journal_reading import Reading, name, numbers, write
from tests.patience import until


def test_a_journal_that_may_not_be_read(journald: Journald) -> None:
    """The reason names the group and the capability; it is tried again."""
    write(journald, 0, 1)
    for file in journald.files():
        file.chmod(0o600)  # usually the group may read them, and who runs the tests is in several
    reading = Reading(name(journald))
    os.seteuid(65534)
    try:
        reading.read_to_end()
        status = reading.journals.status()[0]
    finally:
        os.seteuid(0)
    assert status.state is LogState.UNREADABLE
    assert "systemd-journal" in status.reason
    assert "CAP_DAC_READ_SEARCH" in status.reason
    assert numbers(reading.read_until(1)) == [0]
    reading.stop()


def test_without_journalctl_the_other_logs_go_on(
    journald: Journald, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named."""
    write(journald, 0, 1)
    log = tmp_path / "app.log"
    log.write_text("from a file\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with closing(LogReader([name(journald), str(log)])) as reader:
        blocks = [block.data for block in iter(reader.read, None)]
        assert b"from a file\n" in blocks
        assert reader.at_end
        found = {status.path: status for status in reader.status()}
    assert found[str(log)].state is LogState.FOLLOWING
    assert "journalctl is not installed" in found[name(journald)].reason


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def test_what_several_jails_ask_alike_is_read_once(journald: Journald) -> None:
    """One journalctl for each thing that is asked, however many ask it."""
    before = set(children(os.getpid()))
    reading = Reading(name(journald), name(journald), name(journald, "SYSLOG_IDENTIFIER=other"), name(journald))
    write(journald, 0, 3)
    assert numbers(reading.read_until(3)) == [0, 1, 2]
    until(lambda: reading.journals.read() is None and reading.journals.at_end, "following")
    assert len(set(children(os.getpid())) - before) == 2
    reading.stop()


def test_a_journalctl_that_dies_is_started_again(journald: Journald) -> None:
    """No entry is lost or read twice by it."""
    before = set(children(os.getpid()))
    reading = Reading(name(journald))
    write(journald, 0, 3)
    reading.read_until(3)
    for round_ in range(1, 3):
        until(lambda: reading.journals.read() is None and reading.journals.at_end, "following")
        (child,) = set(children(os.getpid())) - before
        os.kill(child, signal.SIGKILL)
        write(journald, 3 * round_, 3 * round_ + 3)
        assert numbers(reading.read_until(3 * round_ + 3)) == list(range(3 * round_ + 3))
        assert reading.journals.status()[0].state is LogState.FOLLOWING
    reading.stop()
    assert set(children(os.getpid())) == before


def test_nothing_is_left_when_the_reader_is_killed(journald: Journald) -> None:
    """journalctl ends with it."""
    program = (
        "import sys, time\nfrom mcban.logs.journal import Journals\n"
        "journals = Journals([sys.argv[1]])\n"
        "while True:\n    journals.read()\n    print(journals.at_end, flush=True)\n    time.sleep(0.02)\n"
    )
    command = [sys.executable, "-c", program, name(journald)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "True\n":
                break
        (child,) = children(process.pid)
        process.kill()
    until(lambda: not Path(f"/proc/{child}").exists() or "journalctl" not in commandline(child), "its end")


def commandline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
