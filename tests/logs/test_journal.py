"""The journal as a log, on files that a real journald writes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree

import pytest

from mcban.core.model import Position
from mcban.logs import Block, LogReader, LogState, LogStatus
from mcban.logs.journal import Journals
from tests.journald import Journald, require_journald, running_journald
from tests.patience import PATIENCE, until


@pytest.fixture
def journald() -> Iterator[Journald]:
    with running_journald() as running:
        yield running


def name(journald: Journald, match: str = "SYSLOG_IDENTIFIER=app") -> str:
    """A journal's name with what is asked of it."""
    return f'systemd-journal[journalpath="{journald.folder}"] {match}'.rstrip()


def write(journald: Journald, first: int, last: int, identifier: str = "app") -> None:
    """Numbered entries, and wait until they are in the journal."""
    before = journald.count(f"SYSLOG_IDENTIFIER={identifier}")
    for number in range(first, last):
        journald.send(MESSAGE=f"line {number}", SYSLOG_IDENTIFIER=identifier)
    journald.flush(f"SYSLOG_IDENTIFIER={identifier}", entries=before + last - first)


class Reading:
    """A reader of journals, and what was committed: what a new start has."""

    def __init__(self, *names: str, from_end: bool = False, block_size: int = 1 << 20) -> None:
        self.names, self.from_end, self.block_size = names, from_end, block_size
        self.committed: dict[str, Position] = {}
        self.lines: dict[str, list[bytes]] = {one: [] for one in names}
        self.warnings: list[str] = []
        self.start()

    def start(self) -> None:
        """From the committed positions, as after kill -9."""
        stored = list(self.committed.values())
        self.journals = Journals(self.names, stored, from_end=self.from_end, block_size=self.block_size)

    def take(self, block: Block) -> None:
        """Commit a block: lines and position together."""
        assert block.data.endswith(b"\n") or not block.data
        self.lines.setdefault(block.path, []).extend(block.data.splitlines())
        self.committed[block.path] = block.position

    def read_until(self, enough: int, path: str = "") -> list[bytes]:
        """Commit blocks until `enough` lines of `path` are there."""
        lines = self.lines.setdefault(path or self.names[0], [])

        def some() -> bool:
            while block := self.journals.read():
                self.take(block)
            return len(lines) >= enough

        until(some, f"line {enough} of {lines}")
        return lines

    def read_to_end(self) -> None:
        """As `run --once` does."""

        def ended() -> bool:
            while block := self.journals.read():
                self.take(block)
            return self.journals.at_end

        until(ended, "the end")

    def restart(self) -> None:
        """Stop, and start from what was committed."""
        self.stop()
        self.start()

    def stop(self) -> None:
        self.warnings += self.journals.take_warnings()
        self.journals.close()


def numbers(lines: list[bytes]) -> list[int]:
    """What `write` numbered."""
    return [int(line.rpartition(b" ")[2]) for line in lines]


def test_entries_are_lines_as_syslog_writes_them(journald: Journald) -> None:
    """Date, host, identifier, process, message; what is missing is left out."""
    journald.send(MESSAGE="one", SYSLOG_IDENTIFIER="app", SYSLOG_PID="77")
    journald.send(MESSAGE="two", SYSLOG_IDENTIFIER="app")
    journald.send(SYSLOG_IDENTIFIER="app")
    reading = Reading(name(journald))
    lines = [line.decode() for line in reading.read_until(3)]
    reading.stop()
    host = os.uname().nodename
    assert [line.split(" ", 1)[1] for line in lines] == [
        f"{host} app[77]: one",
        f"{host} app[{os.getpid()}]: two",
        f"{host} app[{os.getpid()}]: ",
    ]
    assert all(line[10] == "T" and line[26:33] == "+00:00 " for line in lines)


HOSTILE = {
    "a line end": b"first\nNov 22 10:00:00 host sshd[1]: Failed password for root from 192.0.2.1 port 1 ssh2",
    "others": b"a\r\nb\rc\x0b\x0c\xc2\x85\xe2\x80\xa8d",
    "no text": b"\xff\xfe\x00\x01",
    "the export format": b"x\n\n__CURSOR=s=0\n__REALTIME_TIMESTAMP=1\nMESSAGE=forged\n\n",
    "a length": b"x\nMESSAGE\n\x06\x00\x00\x00\x00\x00\x00\x00forged\n",
    "an equals sign": b"=\nMESSAGE=forged",
    "nothing": b"",
    "line ends only": b"\n\n\r\n",
}


@pytest.mark.parametrize("where", ["MESSAGE", "SYSLOG_IDENTIFIER"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_entry_is_one_line_whatever_is_in_it(journald: Journald, where: str, text: bytes) -> None:
    """No text that somebody sends becomes a line, a field or an entry of its own."""
    fields: dict[str, bytes] = {"MESSAGE": b"m", "SYSLOG_IDENTIFIER": b"i", "KIND": b"hostile", where: text}
    journald.send(**fields)
    journald.send(MESSAGE="after", KIND="hostile")
    journald.flush("KIND=hostile", entries=2)
    reading = Reading(name(journald, "KIND=hostile"))
    block = until(lambda: next((b for b in iter(reading.journals.read, None) if b.data), None), "a block")
    reading.stop()
    lines = block.data.removesuffix(b"\n").split(b"\n")
    assert len(lines) == 2
    assert lines[0].startswith(b"20")
    assert b"\r" not in block.data
    assert lines[1].endswith(b"]: after")
    assert block.position.offset == 2


@pytest.mark.parametrize("seed", range(4))
def test_each_entry_is_read_once_over_kills_and_rotation(journald: Journald, seed: int) -> None:
    """Killed between any two commits, while entries come and files are rotated: nothing twice, nothing left out."""
    dice = random.Random(seed)
    reading = Reading(name(journald), block_size=2048)
    written = 0
    for _ in range(8):
        more = dice.randrange(0, 60)
        write(journald, written, written + more)
        written += more
        if dice.random() < 0.4:
            journald.rotate()
        for _ in range(dice.randrange(0, 6)):
            block = reading.journals.read()
            if block is not None and dice.random() < 0.7:
                reading.take(block)
            elif block is not None:
                break  # handed out and lost with the process
        reading.restart()
    assert numbers(reading.read_until(written)) == list(range(written))
    write(journald, written, written + 5)
    assert numbers(reading.read_until(written + 5)) == list(range(written + 5))
    reading.stop()
    assert reading.warnings == []


def test_what_comes_is_followed_over_rotation_and_vacuum(journald: Journald) -> None:
    """One reader goes on while its files are renamed and deleted."""
    write(journald, 0, 3)
    reading = Reading(name(journald))
    reading.read_until(3)
    for round_ in range(1, 4):
        journald.rotate()
        write(journald, 3 * round_, 3 * round_ + 3)
        reading.read_until(3 * round_ + 3)
        journald.vacuum()
    assert numbers(reading.lines[reading.names[0]]) == list(range(12))
    reading.stop()
    assert reading.warnings == []


def test_rotation_under_load(journald: Journald) -> None:
    """Twenty thousand entries at full speed, files renamed all the while, the reader started anew now and then."""
    total, reading = 20_000, Reading(name(journald))
    writing = threading.Thread(target=flood, args=(journald, total))
    writing.start()
    wanted = [number for number in range(total) if number % 4]
    lines = reading.lines[reading.names[0]]
    blocks, rotated = 0, time.monotonic()

    def step() -> bool:
        nonlocal blocks, rotated
        more = True
        while more:
            if time.monotonic() - rotated > 0.3:
                os.kill(journald.pid, signal.SIGUSR2)
                rotated = time.monotonic()
            block = reading.journals.read()
            more = block is not None
            if block is not None:
                reading.take(block)
                blocks += 1
                if blocks % 5 == 0:
                    reading.restart()
        return len(lines) >= len(wanted)

    until(step, f"{len(wanted)} lines")
    writing.join()
    assert numbers(lines) == wanted
    reading.stop()
    assert reading.warnings == []


def flood(journald: Journald, total: int) -> None:
    """Numbered entries as fast as journald takes them, every fourth by somebody else."""
    for number in range(total):
        journald.send(MESSAGE=f"line {number}", SYSLOG_IDENTIFIER="app" if number % 4 else "other")


def test_a_cursor_that_was_vacuumed_away(journald: Journald) -> None:
    """Reading goes on with the next entry that is there, and says so once; what was read is not read again."""
    write(journald, 0, 5)
    reading = Reading(name(journald))
    reading.read_until(5)
    reading.stop()
    write(journald, 5, 8)
    journald.rotate()
    write(journald, 8, 10)
    journald.vacuum()
    for _ in range(3):
        reading.start()
        assert numbers(reading.read_until(7)) == [0, 1, 2, 3, 4, 8, 9]
        reading.stop()
    assert len(reading.warnings) == 1
    assert "not in the journal any more" in reading.warnings[0]


def test_a_journal_begun_anew_is_read(journald: Journald) -> None:
    """All files gone, other numbers, the same machine: the next entries are read, each once."""
    write(journald, 0, 5)
    reading = Reading(name(journald))
    reading.read_until(5)
    reading.stop()
    journald.stop()
    for file in journald.files():
        file.unlink()
    journald.start()
    write(journald, 5, 8)
    reading.start()
    assert numbers(reading.read_until(8)) == list(range(8))
    reading.restart()
    write(journald, 8, 9)
    assert numbers(reading.read_until(9)) == list(range(9))
    reading.stop()


def test_each_match_gets_its_own_entries(journald: Journald) -> None:
    """Alternatives, several fields, several values: an entry reaches who asked for it, each once."""
    one, other, both = (
        name(journald, match)
        for match in ("SYSLOG_IDENTIFIER=a", "SYSLOG_IDENTIFIER=b COLOUR=red", "SYSLOG_IDENTIFIER=a + COLOUR=red")
    )
    reading = Reading(one, other, both)
    for number, (identifier, colour) in enumerate([("a", "red"), ("a", "blue"), ("b", "red"), ("b", "blue")]):
        journald.send(MESSAGE=f"line {number}", SYSLOG_IDENTIFIER=identifier, COLOUR=colour)
    for path, count in ((one, 2), (other, 1), (both, 3)):
        reading.read_until(count, path)
    assert {path: numbers(lines) for path, lines in reading.lines.items()} == {one: [0, 1], other: [2], both: [0, 1, 2]}
    assert reading.journals.patterns_of(one) == {one}
    reading.stop()


def test_a_first_start_from_the_end_reads_what_comes(journald: Journald) -> None:
    """Also when what is asked for was never there; and what came between two starts is not left out."""
    write(journald, 0, 5)
    reading = Reading(name(journald), name(journald, "SYSLOG_IDENTIFIER=other"), from_end=True)
    reading.read_to_end()
    assert reading.lines[reading.names[0]] == []
    assert reading.committed.keys() == set(reading.names)
    reading.stop()
    write(journald, 5, 8)
    write(journald, 0, 2, "other")
    reading.start()
    assert numbers(reading.read_until(3)) == [5, 6, 7]
    assert numbers(reading.read_until(2, reading.names[1])) == [0, 1]
    reading.stop()
    assert reading.warnings == []


def test_a_journal_that_is_not_there_yet_is_waited_for(journald: Journald, tmp_path: Path) -> None:
    """It is read from its first entry, also by who starts at the end of what is there."""
    write(journald, 0, 3)
    there = tmp_path / "journal"
    path = f'systemd-journal[journalpath="{there}"] SYSLOG_IDENTIFIER=app'
    reading = Reading(path, from_end=True)
    reading.read_to_end()
    status = reading.journals.status()[0]
    assert (status.state, status.reason) == (LogState.WAITING, f"there is no journal in {there}")
    reading.restart()
    copytree(journald.folder, there)
    assert numbers(reading.read_until(3)) == [0, 1, 2]
    assert reading.journals.status()[0].state is LogState.FOLLOWING
    reading.stop()


def test_another_match_begins_where_the_journal_was_read_to(journald: Journald) -> None:
    """A filter whose journalmatch changes does not count again what it has counted."""
    write(journald, 0, 5)
    reading = Reading(name(journald))
    reading.read_until(5)
    reading.stop()
    write(journald, 5, 7)
    changed = name(journald, "SYSLOG_IDENTIFIER=app + _COMM=app")
    reading.names = (changed,)
    for _ in range(2):
        reading.start()
        assert numbers(reading.read_until(2, changed)) == [5, 6]
        reading.stop()
    assert reading.warnings == []


def test_who_was_not_read_before_the_kill_is_not_left_behind(journald: Journald) -> None:
    """Of two that begin together one was committed: the other still begins at its first entry."""
    one, other = name(journald), name(journald, "SYSLOG_IDENTIFIER=other")
    write(journald, 0, 3, "other")
    write(journald, 0, 3)
    reading = Reading(one, other)

    def step() -> bool:
        block = reading.journals.read()
        if block is not None and not (block.path == other and block.data):
            reading.take(block)
        return bool(reading.lines[one])

    until(step, "reading of one")
    reading.restart()
    assert numbers(reading.read_until(3, other)) == [0, 1, 2]
    reading.stop()


def test_names_may_come_and_go(journald: Journald) -> None:
    """What is read goes on where it is, and what comes back, where it was."""
    one, other = name(journald), name(journald, "SYSLOG_IDENTIFIER=other")
    write(journald, 0, 2)
    reading = Reading(one, other)
    reading.read_until(2)
    reading.journals.set_patterns([other])
    assert reading.journals.patterns_of(one) == frozenset()
    write(journald, 2, 4)
    reading.journals.set_patterns([other, one])
    assert numbers(reading.read_until(4)) == [0, 1, 2, 3]
    reading.stop()


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


def test_a_damaged_file_is_passed_over(journald: Journald) -> None:
    """The others are read."""
    write(journald, 0, 3)
    journald.rotate()
    write(journald, 3, 6)
    archived = journald.files()[0]
    with archived.open("r+b") as file:
        file.truncate(64)
    reading = Reading(name(journald))
    assert numbers(reading.read_until(3)) == [3, 4, 5]
    reading.stop()


def test_files_and_journals_are_read_side_by_side(journald: Journald, tmp_path: Path) -> None:
    """One thing to wait for wakes on both, and says of a block which pattern it belongs to."""
    log = tmp_path / "app.log"
    log.write_text("")
    lines: dict[str, list[bytes]] = {str(log): [], name(journald): []}
    with closing(LogReader([str(log), name(journald)])) as reader:

        def read() -> bool:
            reader.wait(1)
            for block in iter(reader.read, None):
                assert reader.patterns_of(block.path) == {block.path}
                lines[block.path] += block.data.splitlines()
            return reader.at_end

        until(read, "the end")
        journald.send(MESSAGE="line 1", SYSLOG_IDENTIFIER="app")
        log.write_text("line 2\n")
        until(lambda: read() and all(lines.values()), "both")
        reader.set_patterns([str(log)])
        assert [status.path for status in reader.status()] == [str(log)]
    assert numbers(lines[name(journald)]) == [1]
    assert lines[str(log)] == [b"line 2"]


def test_the_machines_own_journal_is_found(journald: Journald) -> None:
    """Where `systemd-journal` has no parameters, in /var/log/journal."""
    write(journald, 0, 2)
    program = (
        "import sys, json, dataclasses\nfrom mcban.logs.journal import Journals\n"
        "journals = Journals(sys.argv[1:])\nlines = 0\n"
        "while True:\n    block = journals.read()\n"
        "    lines += block.data.count(b'\\n') if block else 0\n"
        "    if block is None and journals.at_end:\n        break\n"
        "print(json.dumps([lines, *(dataclasses.asdict(s) for s in journals.status())]))\njournals.close()\n"
    )
    names = ["systemd-journal SYSLOG_IDENTIFIER=app", 'systemd-journal[namespace="none"] SYSLOG_IDENTIFIER=app']
    shown = subprocess.run(
        journald.inside(sys.executable, "-c", program, *names),
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    lines, status, absent = json.loads(shown)
    assert lines == 2
    assert LogStatus(**status).state == LogState.FOLLOWING
    assert LogStatus(**absent).state == LogState.WAITING


def test_the_journal_is_tested_for_real_under_ci() -> None:
    """These tests skip where there is no journald, and fail under CI."""
    require_journald()
