"""What a log source hands on: blocks of whole lines, each with the position to remember once they are dealt with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file was read.

    A path does not name a file for ever: `device`, `inode` and a fingerprint of the file's first bytes
    (`head_length` of them, hashed in `head_hash`) do. `offset` is the byte after the last whole line dealt with.
    """

    path: str
    device: int
    inode: int
    head_length: int
    head_hash: str
    offset: int


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each ending in a newline, in the order of the file.

    `path` is the log's configured name (after globbing), also when the lines come from its rotated predecessor.
    `position` is to be committed together with what the lines led to; `finished` are positions whose files were read to
    their end and will not grow any more, to be forgotten in the same commit.
    """

    path: str
    data: bytes
    position: Position
    finished: tuple[Position, ...] = ()
