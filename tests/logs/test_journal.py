"""The journal as a log, on files that a real journald writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from shutil import copytree

import pytest

from mcban.logs import LogReader, LogState, LogStatus
from tests.journald import Journald, require_journald
from tests.logs.journal_reading import Reading, name, numbers, write
from tests.patience import PATIENCE, until


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
