"""Following logs as a daemon does: what appears, rotates, vanishes or cannot be read."""

from __future__ import annotations

import gzip
import os
import select
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcban.logs import Follower, LogState
from tests.logs.reader import Reader
from tests.patience import PATIENCE


def append(path: Path, *lines: str) -> None:
    with path.open("ab") as out:
        out.write("".join(line + "\n" for line in lines).encode())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mainlog"
    append(path, "Nov 22 10:00:01 one", "Nov 22 10:00:02 two")
    return path


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    readers = []

    def make(*patterns: object, **options: Any) -> Reader:
        readers.append(Reader([str(pattern) for pattern in patterns], **options))
        return readers[-1]

    yield make
    for reader in readers:
        reader.follower.close()


Follow = Callable[..., Reader]


def words(reader: Reader) -> list[str]:
    """The last word of each line, in the order of its coming; each came once."""
    reader.drain()
    assert reader.twice() == []
    return [line.decode().rsplit(" ", 1)[-1] for line in reader.lines]


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


def test_renamed_live(log: Path, follow: Follow) -> None:
    """The daemon may write on to the renamed file for a while: those lines count, and those of the new file."""
    reader = follow(log)
    words(reader)
    log.rename(f"{log}.1")
    append(Path(f"{log}.1"), "late-1")
    assert words(reader)[2:] == ["late-1"]
    append(log, "new-1")
    append(Path(f"{log}.1"), "late-2")
    assert sorted(words(reader)[3:]) == ["late-2", "new-1"]
    append(Path(f"{log}.1"), "late-3")
    append(log, "new-2")
    assert sorted(words(reader)[5:]) == ["late-3", "new-2"]


def test_unfinished_line_of_a_rotated_file(log: Path, follow: Follow) -> None:
    """The last line of a file rotated away without its newline becomes a line when nobody goes on with it."""
    now = [0.0]
    reader = follow(log, clock=lambda: now[0], grace=0.2)
    with log.open("ab") as out:
        out.write(b"x half")
    assert words(reader) == ["one", "two"]
    log.rename(f"{log}.1")
    append(log, "new")
    assert "half" not in words(reader)
    now[0] += 10
    assert words(reader) == ["one", "two", "new", "half"]
    reader.kill()
    assert words(reader) == ["one", "two", "new", "half"]


def test_rotated_several_times_between_looks(log: Path, follow: Follow) -> None:
    """Files that came and went between two looks are read too, in their order."""
    reader = follow(log)
    words(reader)
    append(log, "three")
    log.rename(f"{log}.2")
    append(log, "x four")
    log.rename(f"{log}.1")
    append(log, "y five")
    assert words(reader) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("name", ["mainlog.1", "mainlog-20261122", "moved-elsewhere"])
def test_renamed_while_down(log: Path, follow: Follow, name: str) -> None:
    """After a stop the rest of the renamed file comes first, then the new file from its start."""
    reader = follow(log)
    words(reader)
    reader.stop()
    append(log, "three")
    log.rename(log.with_name(name))
    append(log, "x four")
    reader.start()
    assert words(reader) == ["one", "two", "three", "four"]
    reader.kill()
    assert words(reader) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("longer", [False, True])
def test_copied_and_cut(log: Path, follow: Follow, down: bool, longer: bool) -> None:
    """The rest of the old content comes from its copy, then the new content, also when that is longer already."""
    reader = follow(log)
    words(reader)
    if down:
        reader.stop()
    append(log, "three")
    shutil.copyfile(log, f"{log}.1")
    os.truncate(log, 0)
    new = [f"Nov 23 n{n}" for n in range(9 if longer else 1)]
    append(log, *new)
    if down:
        reader.start()
    assert words(reader) == ["one", "two", "three", *(line[7:] for line in new)]
    reader.kill()
    assert len(words(reader)) == 3 + len(new)


def test_cut_in_the_middle(log: Path, follow: Follow) -> None:
    """A log that lost its last line, but not its beginning, is read on, not read again."""
    reader = follow(log)
    words(reader)
    os.truncate(log, log.stat().st_size - 20)
    words(reader)
    append(log, "three")
    assert words(reader) == ["one", "two", "three"]


@pytest.mark.parametrize("down", [False, True])
def test_deleted_and_recreated(log: Path, follow: Follow, down: bool) -> None:
    """A new file in place of a deleted one is read from its start, also when it got the same inode."""
    reader = follow(log)
    words(reader)
    if down:
        reader.stop()
    log.unlink()
    append(log, *(f"Nov 23 n{n}" for n in range(9)))
    if down:
        reader.start()
    assert len(words(reader)) == 11
    assert bool(reader.follower.take_warnings()) == down


def test_compressed_while_down(log: Path, follow: Follow) -> None:
    """Lines that were compressed away while nobody read them are warned of, with their number of bytes."""
    reader = follow(log)
    words(reader)
    reader.stop()
    append(log, "three")
    with gzip.open(f"{log}.1.gz", "wb") as packed:
        packed.write(log.read_bytes())
    log.unlink()
    append(log, "x four")
    reader.start()
    assert words(reader) == ["one", "two", "four"]
    assert reader.follower.take_warnings() == [
        f"{log}: 6 bytes were not read: the file that holds them was compressed meanwhile"
    ]


def test_compressed_after_reading(log: Path, follow: Follow) -> None:
    """Compressing a file that was read to its end is no reason for a warning."""
    reader = follow(log)
    words(reader)
    reader.stop()
    with gzip.open(f"{log}.1.gz", "wb") as packed:
        packed.write(log.read_bytes())
    log.unlink()
    append(log, "x three")
    reader.start()
    assert words(reader) == ["one", "two", "three"]
    assert reader.follower.take_warnings() == []


def test_link_is_followed_and_its_switch_noticed(log: Path, tmp_path: Path, follow: Follow) -> None:
    """A symbolic link is followed to where it points, and back again without counting twice."""
    other = tmp_path / "other"
    append(other, "x from-other")
    link = tmp_path / "current"
    link.symlink_to(log)
    reader = follow(link)
    assert words(reader) == ["one", "two"]

    def switch(to: Path) -> None:
        (tmp_path / "new").symlink_to(to)
        (tmp_path / "new").rename(link)

    switch(other)
    assert words(reader) == ["one", "two", "from-other"]
    append(log, "back")
    switch(log)
    assert words(reader) == ["one", "two", "from-other", "back"]


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


def test_rows_do_not_pile_up(log: Path, follow: Follow) -> None:
    """Positions of files that are gone are given back for deletion, also of hundreds of rotated ones."""
    reader = follow(log, grace=0.0)
    for n in range(100):
        append(log, f"x line{n}")
        log.rename(f"{log}.1")
        append(log, f"y line{n}")
        words(reader)
    assert len(words(reader)) == 202
    assert len(reader.rows) < 10


def test_descriptors_do_not_pile_up(log: Path, follow: Follow) -> None:
    """Rotating for ever holds no more and more descriptors."""
    reader = follow(log, grace=0.0)
    before = len([*Path("/proc/self/fd").iterdir()])
    for n in range(200):
        log.rename(f"{log}.{n}")
        append(log, f"y line{n}")
        words(reader)
    time.sleep(0.01)
    words(reader)
    assert len([*Path("/proc/self/fd").iterdir()]) < before + 10
    assert len(words(reader)) == 202
