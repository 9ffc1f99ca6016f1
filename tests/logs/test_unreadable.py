"""Logs whose reading fails: a bad disk, a server that forgot the file, a path that was never a log."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcban.errors import DataError
from mcban.logs import Follower, LogState, LogStatus
from mcban.logs.logfile import LogFile
from tests.logs.reader import Reader

FAILS_AT_ONCE = "/proc/self/mem"  # the first read gives EIO


class Disk:
    """Calls on files with these inodes fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bad: dict[str, set[int]] = {"pread": set(), "fstat": set()}
        self.failures = 0
        self._fstat, self._pread = os.fstat, os.pread
        monkeypatch.setattr("mcban.logs.logfile.os.fstat", self.fstat)
        monkeypatch.setattr("mcban.logs.logfile.os.pread", self.pread)

    def fstat(self, descriptor: int) -> os.stat_result:
        status = self._fstat(descriptor)
        if status.st_ino in self.bad["fstat"]:
            self.failures += 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return status

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        if self._fstat(descriptor).st_ino in self.bad["pread"] and not (offset == 0 and length <= 256):
            self.failures += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._pread(descriptor, length, offset)

    def heal(self) -> None:
        for inodes in self.bad.values():
            inodes.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    """One that goes bad, and another."""
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("bad one\nbad two\n")
    good.write_text("good one\n")
    return bad, good


@pytest.fixture
def reader(logs: tuple[Path, Path]) -> Iterator[Reader]:
    reader = Reader([str(log) for log in logs])
    yield reader
    reader.stop()


def add(log: Path, line: str) -> None:
    with log.open("a") as out:
        out.write(line + "\n")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def look_again(follower: Follower) -> None:
    """Let the time of the next look be now."""
    follower._polled -= 10


def state_of(reader: Reader, log: Path) -> LogStatus:
    return next(status for status in reader.follower.status() if status.path == str(log))


@pytest.mark.parametrize("call", ["pread", "fstat"])
def test_read_error_is_shown_and_mended(logs: tuple[Path, Path], reader: Reader, disk: Disk, call: str) -> None:
    """While a log's reading fails the others go on, and when it reads again each of its lines comes exactly once."""
    bad, good = logs
    reader.drain()
    before = descriptors()
    disk.bad[call].add(bad.stat().st_ino)
    for number in range(3):
        add(bad, f"bad while {number}")
        add(good, f"good while {number}")
        look_again(reader.follower)
        assert f"good while {number}".encode() in reader.drain()
        status = state_of(reader, bad)
        assert (status.state, bool(status.reason)) == (LogState.UNREADABLE, True)
        assert state_of(reader, good).state is LogState.FOLLOWING
        assert descriptors() < before
    bad.rename(f"{bad}.1")
    add(bad, "bad new")
    disk.heal()
    look_again(reader.follower)
    reader.drain()
    lines = [line.decode() for line in reader.lines if line.startswith(b"bad")]
    assert lines == ["bad one", "bad two", "bad while 0", "bad while 1", "bad while 2", "bad new"]
    assert reader.twice() == []
    assert reader.follower.take_warnings() == []
    assert state_of(reader, bad).state is LogState.FOLLOWING


@pytest.mark.parametrize("ask", ["status", "at_end"])
def test_asking_about_a_lost_file(logs: tuple[Path, Path], reader: Reader, disk: Disk, ask: str) -> None:
    """Asking how far the logs are read answers also when the server no longer knows a file that is open."""
    bad, _ = logs
    reader.drain()
    disk.bad["fstat"].add(bad.stat().st_ino)
    if ask == "at_end":
        assert reader.follower.at_end
    assert state_of(reader, bad).state is LogState.UNREADABLE
    disk.heal()
    add(bad, "bad three")
    look_again(reader.follower)
    assert b"bad three" in reader.drain()
    assert reader.twice() == []


def test_failing_log_is_not_tried_incessantly(logs: tuple[Path, Path], reader: Reader, disk: Disk) -> None:
    """A log whose reading fails is tried about once a second, and nobody is woken for it meanwhile."""
    bad, _ = logs
    disk.bad["pread"].add(bad.stat().st_ino)
    begun, rounds = time.monotonic(), 0
    while disk.failures < 3:
        reader.drain()
        reader.follower.wait(1.0)
        rounds += 1
    seconds = time.monotonic() - begun
    assert disk.failures <= seconds + 2
    assert rounds <= 2 * seconds + 4


@pytest.mark.parametrize("from_end", [False, True])
@pytest.mark.parametrize("path", [FAILS_AT_ONCE, "/proc/kmsg"])
def test_descriptors_of_a_log_that_cannot_be_read(tmp_path: Path, path: str, from_end: bool) -> None:
    """A path whose reading fails from the first byte costs no descriptor, however often it is tried."""
    log = tmp_path / "log"
    with Follower([path, str(log)], from_end=from_end) as follower:
        log.write_text("one\n")
        before = descriptors()
        data = b""
        for _ in range(20):
            look_again(follower)
            while (block := follower.read()) is not None:
                data += block.data if block.path == str(log) else b""
            follower.status()
        assert data == b"one\n"
        assert descriptors() <= before + 2  # the log's own, and kmsg's if it can be read here
        if path == FAILS_AT_ONCE:
            assert follower.at_end
            status = follower.status()[0]
            assert (status.path, status.state) == (path, LogState.UNREADABLE)
            assert status.reason == os.strerror(errno.EIO)


def test_failed_opening_closes() -> None:
    """Opening a file that cannot be read leaves no descriptor behind."""
    before = descriptors()
    for path in [FAILS_AT_ONCE, "/dev/null"]:
        with pytest.raises((OSError, DataError)):
            LogFile(path)
    assert descriptors() == before
