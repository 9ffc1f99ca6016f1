"""Following logs as a daemon does: what appears, grows, is a glob, cannot be read, comes and goes with jails."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from mcban.logs import Follower, LogState
from tests.logs.conftest import Follow
from tests.logs.reader import append, words
from tests.patience import PATIENCE


def test_appended(log: Path, follow: Follow) -> None:
    """What is in the log and what is added to it is handed out in its order."""
    reader = follow(log)
    assert words(reader) == ["one", "two"]
    append(log, "three")
    assert words(reader) == ["one", "two", "three"]
    (status,) = reader.follower.status()
    assert (status.state, status.lag, status.offset) == (LogState.FOLLOWING, 0, log.stat().st_size)


def test_descriptor_wakes(log: Path, follow: Follow) -> None:
    """The descriptor is readable when a log has grown, so that nobody has to ask again and again."""
    reader = follow(log)
    words(reader)
    assert select.select([reader.follower.fileno()], [], [], 0)[0] == []
    append(log, "three")
    assert select.select([reader.follower.fileno()], [], [], PATIENCE)[0] != []


def test_without_events(log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel tells nothing, logs are followed all the same, and one warning says so."""

    def none(**_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mcban.logs.watch.INotify", none)
    reader = follow(log)
    words(reader)
    append(log, "three")
    log.rename(f"{log}.1")
    append(log, "four")
    reader.drain_until(4)
    assert words(reader) == ["one", "two", "three", "four"]
    assert "inotify is not available" in reader.follower.take_warnings()[0]


def test_missing_log_is_waited_for(tmp_path: Path, follow: Follow) -> None:
    """A log that does not exist is named as waited for and read from its start when it appears."""
    reader = follow(tmp_path / "none")
    assert words(reader) == []
    assert [s.state for s in reader.follower.status()] == [LogState.WAITING]
    append(tmp_path / "none", "first")
    assert words(reader) == ["first"]
    assert [s.state for s in reader.follower.status()] == [LogState.FOLLOWING]


def test_missing_directory_is_waited_for(tmp_path: Path, follow: Follow) -> None:
    """So is one whose directories do not exist yet."""
    path = tmp_path / "a" / "b" / "log"
    reader = follow(path)
    assert words(reader) == []
    path.parent.mkdir(parents=True)
    words(reader)
    append(path, "first")
    reader.drain_until(1)
    assert words(reader) == ["first"]


def test_glob(tmp_path: Path, follow: Follow) -> None:
    """A glob follows the files that match and those that come to match, and names itself while none does."""
    reader = follow(tmp_path / "*.log")
    assert [(s.path, s.state) for s in reader.follower.status()] == [(f"{tmp_path}/*.log", LogState.WAITING)]
    append(tmp_path / "a.log", "from-a")
    assert words(reader) == ["from-a"]
    append(tmp_path / "b.log", "from-b")
    append(tmp_path / "c.txt", "from-c")
    assert words(reader) == ["from-a", "from-b"]
    assert reader.follower.patterns_of(f"{tmp_path}/b.log") == {f"{tmp_path}/*.log"}


def test_glob_that_matches_rotated_files(tmp_path: Path, follow: Follow) -> None:
    """A glob that also matches the rotated file counts its lines once."""
    log = tmp_path / "mainlog"
    append(log, "x one")
    reader = follow(tmp_path / "main*")
    words(reader)
    log.rename(f"{log}.1")
    append(Path(f"{log}.1"), "x two")
    words(reader)
    append(log, "x three")
    assert words(reader) == ["one", "two", "three"]
    assert reader.paths == {str(log)}
    reader.kill()
    assert words(reader) == ["one", "two", "three"]


def test_what_cannot_be_read_is_named_and_others_go_on(log: Path, tmp_path: Path, follow: Follow) -> None:
    """A directory or a FIFO in place of a log is reported; the other logs are read."""
    os.mkfifo(tmp_path / "fifo")
    reader = follow(log, tmp_path, tmp_path / "fifo")
    assert words(reader) == ["one", "two"]
    states = {s.path: (s.state, s.reason) for s in reader.follower.status()}
    assert states[str(tmp_path)] == (LogState.UNREADABLE, "it is a directory, not a file")
    assert states[str(tmp_path / "fifo")] == (LogState.UNREADABLE, "it is a FIFO, not a file")


def test_permission_is_missing_then_given(tmp_path: Path) -> None:
    """A log that may not be read is reported with the reason, and read as soon as it may."""
    folder = tmp_path / "readable-by-all"
    folder.mkdir(mode=0o755)
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest-", "test_", "popen-")):
            parent.chmod(0o755)
    secret = folder / "secret"
    append(secret, "x hidden")
    secret.chmod(0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setegid(65534)
                os.seteuid(65534)
            with Follower([str(secret)]) as follower:
                assert follower.read() is None
                (status,) = follower.status()
                assert (status.state, status.reason) == (LogState.UNREADABLE, "Permission denied")
                if os.getuid() == 0:
                    os.seteuid(0)
                secret.chmod(0o644)
                if os.getuid() == 0:
                    os.seteuid(65534)
                told = b"".join(block.data for block in (follower.read() for _ in range(3)) if block is not None)
                assert b"hidden" in told
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_noisy_log_starves_nobody(tmp_path: Path) -> None:
    """While one log has megabytes to read, the lines of another come within two blocks."""
    append(tmp_path / "noisy", *["x" * 99] * 100_000)
    append(tmp_path / "quiet", "x please")
    with Follower([str(tmp_path / "noisy"), str(tmp_path / "quiet")], block_size=64 << 10) as follower:
        blocks = [follower.read() for _ in range(4)]
        assert any(block is not None and b"please" in block.data for block in blocks)
        append(tmp_path / "quiet", "x again")
        blocks = [follower.read() for _ in range(2)]
        assert any(block is not None and b"again" in block.data for block in blocks)


def test_from_end(log: Path, tmp_path: Path) -> None:
    """From the end on, only what is added counts; a log that appears later is read whole."""
    later = tmp_path / "later"
    with Follower([str(log), str(later)], from_end=True) as follower:
        blocks = [follower.read(), follower.read()]
        assert [block.position.offset for block in blocks if block] == [log.stat().st_size]
        append(log, "three")
        append(later, "whole")
        data = b"".join(block.data for block in iter(follower.read, None))
        assert sorted(data.splitlines()) == [b"three", b"whole"]


def test_from_the_end_of_some(log: Path, tmp_path: Path) -> None:
    """Of those that are named only what is added counts; others are read whole, also if they are there already."""
    other = tmp_path / "other"
    append(other, "whole")
    with Follower([str(log), str(other)], from_end={str(log)}) as follower:
        append(log, "three")
        data = b"".join(block.data for block in iter(follower.read, None))
        assert sorted(data.splitlines()) == [b"three", b"whole"]


def test_patterns_change_without_reading_again(log: Path, tmp_path: Path, follow: Follow) -> None:
    """When jails are reloaded, what was followed goes on where it is, and what comes back goes on where it was."""
    other = tmp_path / "other"
    append(other, "x other-1")
    reader = follow(log)
    words(reader)
    reader.follower.set_patterns([str(log), str(other)])
    assert words(reader) == ["one", "two", "other-1"]
    reader.follower.set_patterns([str(other)])
    append(log, "three")
    append(other, "x other-2")
    assert words(reader) == ["one", "two", "other-1", "other-2"]
    reader.follower.set_patterns([str(log)])
    assert words(reader) == ["one", "two", "other-1", "other-2", "three"]


def test_at_end(log: Path, follow: Follow) -> None:
    """One pass over the logs knows when it has read what there was."""
    reader = follow(log, block_size=20)
    assert not reader.follower.at_end
    words(reader)
    assert reader.follower.at_end
