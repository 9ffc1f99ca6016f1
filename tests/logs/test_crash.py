"""A writer that appends, renames and cuts as it likes, and a reader that is killed at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.logs.reader import Reader

Step = Literal["write", "half", "rename", "shift", "date", "copy", "late", "read", "commit", "kill", "stop", "start"]


class Writer:
    """Writes numbered lines to a log and rotates it in the ways that there are."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.half, self.stamp = path, 0, b"", 20260101
        self.out = path.open("ab", buffering=0)

    def next(self) -> bytes:
        self.number += 1
        return b"Nov 22 10:00:%02d line %d" % (self.number % 60, self.number)

    def write(self) -> None:
        self.out.write(self.half + b"\n" if self.half else b"")
        self.half = b""
        self.out.write(b"".join(self.next() + b"\n" for _ in range(3)))

    def write_half(self) -> None:
        if not self.half:
            self.half = self.next()
            self.out.write(self.half[:9])
            self.half = self.half[9:]

    def finish(self) -> None:
        if self.half:
            self.out.write(self.half + b"\n")
            self.half = b""

    def reopen(self) -> None:
        self.out.close()
        self.out = self.path.open("ab", buffering=0)

    def rename(self) -> None:
        """As a script does: log to a name never used before."""
        self.finish()
        self.path.rename(f"{self.path}.{1000 + self.number}.{self.stamp}")
        self.stamp += 1
        self.reopen()

    def date(self) -> None:
        self.finish()
        self.path.rename(f"{self.path}-{self.stamp}")
        self.stamp += 1
        self.reopen()

    def late(self) -> None:
        """Rotated, and the daemon writes on to the renamed file until it is told to reopen its log."""
        self.path.rename(f"{self.path}-{self.stamp}")
        self.stamp += 1
        self.path.touch()
        self.write()
        self.reopen()

    def shift(self) -> None:
        """As logrotate does: log.1 to log.2, log to log.1."""
        self.finish()
        for n in range(40, 0, -1):
            if Path(f"{self.path}.{n}").exists():
                Path(f"{self.path}.{n}").rename(f"{self.path}.{n + 1}")
        self.path.rename(f"{self.path}.1")
        self.reopen()

    def copy(self) -> None:
        self.finish()
        shutil.copyfile(self.path, f"{self.path}-{self.stamp}")
        self.stamp += 1
        os.truncate(self.path, 0)


STEPS = ["write", "write", "half", "rename", "shift", "date", "late", "read", "read", "commit", "kill", "stop", "start"]


def play(steps: list[str], block_size: int) -> tuple[Reader, Writer]:
    """Do the steps, then let the reader read to the end; what it has and what was written."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mainlog"
        writer = Writer(path)
        reader = Reader([str(path)], block_size=block_size)
        reader.drain()  # once it has seen the log; before that, an earlier file is none of its business
        stopped = False

        def running(action: Callable[[], object]) -> Callable[[], object]:
            return lambda: None if stopped else action()

        actions: dict[str, Callable[[], object]] = {
            "write": writer.write,
            "half": writer.write_half,
            "rename": writer.rename,
            "date": writer.date,
            "shift": writer.shift,
            "copy": writer.copy,
            "late": writer.late,
            "read": running(lambda: reader.read(1)),
            "commit": running(reader.commit),
            "kill": running(reader.kill),
        }
        for step in steps:
            if step == "stop" and not stopped:
                reader.stop()
                stopped = True
            elif step == "start" and stopped:
                reader.start()
                stopped = False
            elif step in actions:
                actions[step]()
        if stopped:
            reader.start()
        writer.write()
        reader.drain()
        reader.kill()
        reader.drain()
        reader.stop()
        writer.out.close()
        return reader, writer


@settings(max_examples=150)
@given(st.lists(st.sampled_from(STEPS), max_size=40), st.sampled_from([20, 70, 1000]))
def test_each_line_once_whatever_happens(steps: list[str], block_size: int) -> None:
    """Renamed, recreated, read in pieces and killed in any order: each line is counted exactly once."""
    reader, writer = play(steps, block_size)
    assert reader.twice() == []
    assert len(reader.lines) == writer.number


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*STEPS, "copy", "copy"]), max_size=40), st.sampled_from([20, 70, 1000]))
def test_none_twice_when_copied_and_cut(steps: list[str], block_size: int) -> None:
    """With copying and truncating among it, no line is counted twice, and each line is one that was written."""
    reader, writer = play(steps, block_size)
    assert reader.twice() == []
    assert len(reader.lines) <= writer.number
