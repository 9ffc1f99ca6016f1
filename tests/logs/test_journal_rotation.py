"""The journal read once, each entry: over kills, rotation, vacuum and a journal begun anew."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from tests.journald import Journald
from tests.logs.journal_reading import Reading, name, numbers, write
from tests.patience import until


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
