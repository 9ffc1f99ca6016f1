"""Each line once, however a log is rotated: renamed, copied and cut, compressed, deleted, by a link."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from mcban.logs.rotation import Found, Identity, survey
from tests.logs.conftest import Follow
from tests.logs.reader import append, words


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


def test_a_file_that_begins_alike_and_is_shorter_is_no_copy(log: Path, follow: Follow) -> None:
    """A copy of before does not hold what is missing: nothing of it is read a second time, and what is lost is said."""
    append(log, *(f"Nov 22 10:01:{n} n{n}" for n in range(10, 40)))
    shutil.copyfile(log, f"{log}.1")
    reader = follow(log)
    append(log, "last")
    before = words(reader)
    reader.stop()
    os.truncate(log, 0)
    append(log, "x new")
    reader.start()
    assert words(reader) == [*before, "new"]
    (warning,) = reader.follower.take_warnings()
    assert "were not read" in warning


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


def test_hundreds_of_files_while_down(log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was rotated while nobody read is read, each line once and in order; the folder is not gone through anew
    for each file."""
    append(log, "x line0")
    reader = follow(log)
    reader.drain()
    reader.stop()
    for n in range(1, 400):
        log.rename(f"{log}.{1000 - n}")
        append(log, f"x line{n}")
    surveys = []

    def counted(path: str, wanted: Collection[Identity]) -> list[Found]:
        surveys.append(path)
        return survey(path, wanted)

    monkeypatch.setattr("mcban.logs.log.survey", counted)
    reader.start()
    reader.drain_until(402)
    assert words(reader) == ["one", "two", *(f"line{n}" for n in range(400))]
    assert len(surveys) <= 400 // 20


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
