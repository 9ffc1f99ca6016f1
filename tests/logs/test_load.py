"""Rotation while a writer writes as fast as it can."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.logs.reader import Reader

# Lines, and seconds between rotations: the short form rotates more often, so as to rotate at all.
SIZES = [
    (200_000, 0.002),
    pytest.param(1_000_000, 0.05, marks=pytest.mark.soak),
    pytest.param(1_000_000, 0.002, marks=pytest.mark.soak),
]


def write_renaming(path: Path, lines: int, every: float) -> None:
    number, rotated = 0, 0
    while number < lines:
        with path.open("ab") as out:
            end = time.monotonic() + every
            while number < lines and time.monotonic() < end:
                out.write(b"".join(b"Nov 22 10:00:00 line %d\n" % n for n in range(number, min(number + 50, lines))))
                out.flush()
                number += 50
        if number < lines:
            rotated += 1
            path.rename(f"{path}.{rotated}")


def write_cutting(path: Path, lines: int, every: float) -> None:
    number, rotated = 0, 0
    with path.open("ab", buffering=0) as out:
        while number < lines:
            end = time.monotonic() + every
            while number < lines and time.monotonic() < end:
                out.write(b"".join(b"Nov 22 10:00:00 line %d\n" % n for n in range(number, min(number + 50, lines))))
                number += 50
            if number < lines:
                rotated += 1
                shutil.copyfile(path, f"{path}.{rotated}")
                os.truncate(path, 0)


@pytest.mark.parametrize(("lines", "every"), SIZES)
@pytest.mark.parametrize("killed", [False, True])
def test_renamed_under_load(tmp_path: Path, lines: int, every: float, killed: bool) -> None:
    """Each line is counted once while the log is renamed again and again, also when the reader is killed meanwhile."""
    path = tmp_path / "mainlog"
    path.touch()
    reader = Reader([str(path)], block_size=1 << 16)
    reader.drain()
    writer = multiprocessing.get_context("fork").Process(target=write_renaming, args=(path, lines, every))
    writer.start()
    turn = 0
    while writer.is_alive():
        reader.follower.wait(0.2)
        reader.read(10)
        turn += 1
        if killed and turn % 50 == 0:
            reader.kill()
        elif turn % 3 == 0:
            reader.commit()
    writer.join()
    reader.drain_until(lines)
    reader.follower.close()
    print(f"{len([*tmp_path.iterdir()]) - 1} rotations")
    assert reader.twice() == []
    assert len(reader.lines) == lines


@pytest.mark.parametrize(("lines", "every"), SIZES)
def test_copied_and_cut_under_load(tmp_path: Path, lines: int, every: float) -> None:
    """No line is counted twice while the log is copied and cut again and again."""
    path = tmp_path / "mainlog"
    path.touch()
    reader = Reader([str(path)], block_size=1 << 16)
    reader.drain()
    writer = multiprocessing.get_context("fork").Process(target=write_cutting, args=(path, lines, every))
    writer.start()
    while writer.is_alive():
        reader.follower.wait(0.2)
        reader.drain()
    writer.join()
    reader.drain_until(lines, seconds=3)
    reader.follower.close()
    rotations = len([*tmp_path.iterdir()]) - 1
    print(f"{rotations} rotations, {len(reader.lines)} of {lines} lines")
    assert reader.twice() == []
    assert len(reader.lines) > 0
