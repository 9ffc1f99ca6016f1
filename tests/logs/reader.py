"""A reader as the daemon is one: it commits positions with what it read, and can be killed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcban.logs import Block, Follower, Position
from tests.patience import PATIENCE


def append(path: Path, *lines: str) -> None:
    """Write lines to a log."""
    with path.open("ab") as out:
        out.write("".join(line + "\n" for line in lines).encode())


class Reader:
    """Keeps lines and positions of committed blocks only; `kill` forgets the rest and starts a new follower."""

    def __init__(self, patterns: Sequence[str], *, block_size: int = 1 << 20, **options: Any) -> None:
        self.patterns, self.block_size, self.options = patterns, block_size, options
        self.lines: Counter[bytes] = Counter()
        self.paths: set[str] = set()
        self.rows: dict[tuple[str, int, int], Position] = {}
        self.uncommitted: list[Block] = []
        self.warnings: list[str] = []
        self.start()

    def start(self) -> None:
        self.follower = Follower(self.patterns, self.rows.values(), block_size=self.block_size, **self.options)

    def stop(self) -> None:
        self.uncommitted.clear()
        self.warnings += self.follower.take_warnings()
        self.follower.close()

    def kill(self) -> None:
        self.stop()
        self.start()

    def read(self, most: int = 1_000_000) -> int:
        """Take at most so many blocks; how many there were."""
        for count in range(most):
            block = self.follower.read()
            if block is None:
                return count
            assert block.data == b"" or block.data.endswith(b"\n")
            self.uncommitted.append(block)
        return most

    def commit(self) -> None:
        for block in self.uncommitted:
            position = block.position
            self.rows[position.path, position.device, position.inode] = position
            for gone in block.finished:
                self.rows.pop((gone.path, gone.device, gone.inode), None)
            self.lines.update(block.data.splitlines())
            self.paths.add(block.path)
        self.uncommitted.clear()

    def drain(self) -> list[bytes]:
        """Read and commit what there is; all lines so far, in the order of their first coming."""
        self.read()
        self.commit()
        return list(self.lines)

    def drain_until(self, lines: int, seconds: float = PATIENCE) -> None:
        """Read and commit until so many different lines have come, or the time is over."""
        end = time.monotonic() + seconds
        while len(self.lines) < lines and time.monotonic() < end:
            self.drain()
            if len(self.lines) < lines:
                self.follower.wait(0.2)

    def twice(self) -> list[bytes]:
        return [line for line, count in self.lines.items() if count > 1]


def words(reader: Reader) -> list[str]:
    """The last word of each line, in the order of its coming; each came once."""
    reader.drain()
    assert reader.twice() == []
    return [line.decode().rsplit(" ", 1)[-1] for line in reader.lines]
