"""What a log source hands on: blocks of whole lines, each with the position to remember once they are dealt with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mcban.core.model import Position

__all__ = ["UTF16_SAID", "Block", "LogState", "LogStatus", "Position", "is_utf16"]

BLOCK_SIZE = 1 << 18
"""Bytes read at once. More cost more: the allocator maps each block anew, and it does not stay in the processor's
cache."""

_UTF16 = {b"\xff\xfe", b"\xfe\xff"}
_FEWEST_ZEROS = 4
"""A line has a date at least: with fewer zeros it is one byte that was never written, and the end of a line."""
UTF16_SAID = "it is UTF-16, of which nothing is recognised: convert it, as by iconv -f UTF-16 -t UTF-8"


def is_utf16(data: bytes) -> bool:
    """Whether `data` is the beginning of a block of a log in UTF-16: by its mark and the zeros of dates and names, or,
    where there is no mark, by zeros as every second byte and nowhere else. Logs are read as UTF-8, of which a line end
    is one byte. A run of zeros, as a crash leaves it, or a program that writes on behind where its log was cut, is
    none, however short."""
    head = data[:2]
    if head in _UTF16:
        return 4 * data.count(0, 2, 202) >= len(data[2:202])
    if 0 not in head:
        return False
    even, odd = data[:200:2].count(0), data[1:200:2].count(0)
    return min(even, odd) == 0 and even + odd >= max(_FEWEST_ZEROS, len(data[:200]) / 4)


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each ending in a newline, in the order of the file.

    `path` is the log's configured name (after globbing), also when the lines come from its rotated predecessor.
    `position` is to be committed together with what the lines led to; `finished` are positions whose files are gone
    or will not be read any more, to be forgotten in the same commit (after `position` was stored; compare path, device
    and inode). `data` may be empty: then only the positions are news, and they are to be committed all the same.
    Blocks are to be committed in the order in which they were handed out.
    """

    path: str
    data: bytes
    position: Position
    finished: tuple[Position, ...] = ()


class LogState(StrEnum):
    """Whether a log is read at the moment."""

    FOLLOWING = "following"
    WAITING = "waiting"  # it does not exist yet, or not again yet
    UNREADABLE = "unreadable"  # it exists, but cannot be opened or read, or is no regular file; tried again


@dataclass(frozen=True, slots=True)
class LogStatus:
    """One log (or a glob that matches nothing yet), for people.

    `offset`, `size` and `lag` are in bytes; `lag` is what was written and not handed out yet, in the log and in its
    rotated predecessors. `lines_cut` counts lines longer than the limit, of which only the beginning was handed out;
    `rotations` counts renamings and truncations that were noticed. The counters start with the process.
    """

    path: str
    state: LogState
    reason: str = ""
    offset: int = 0
    size: int = 0
    lag: int = 0
    bytes_read: int = 0
    blocks: int = 0
    rotations: int = 0
    lines_cut: int = 0
