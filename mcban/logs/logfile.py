"""One open file of a log: whole lines from an offset, and the fingerprint that tells it from other files.

Which file is the log's, and in which order files follow one another, is `log.py`'s business.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from hashlib import blake2b

from mcban.errors import DataError
from mcban.logs.codec import codec_of
from mcban.logs.model import Position
from mcban.logs.paths import length_fault

HEAD_LENGTH = 256
"""Bytes at the beginning of a file that make its fingerprint."""

LONGEST_LINE = 4 << 20
"""Bytes; of a longer line only so many are handed out (and a newline): nobody may fill our memory with one line."""

_BACKWARDS = 64 << 10


def hash_head(head: bytes) -> str:
    """The fingerprint of a file's first bytes, as text."""
    return blake2b(head, digest_size=16).hexdigest()


def matches_head(data: bytes, position: Position) -> bool:
    """Whether a file that begins with `data` (its first HEAD_LENGTH bytes) can be the one of `position`."""
    length = position.head_length
    return len(data) >= length and hash_head(data[:length]) == position.head_hash


def what_it_is(mode: int) -> str:
    """In words, what a path that is no regular file leads to."""
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_regular(path: str) -> int:
    """A descriptor to read the file at `path`.

    Raises OSError when it cannot be opened, DataError when it is no regular file. Something else than a regular file
    is not even opened: opening a FIFO lets its writer go on, opening a tape rewinds it.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - paths are text here, as they are in SQL
    if not stat.S_ISREG(mode):
        raise DataError(f"it is {what_it_is(mode)}, not a file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):  # it changed between the two calls
            raise DataError(f"it is {what_it_is(mode)}, not a file")
    except (OSError, DataError):
        os.close(descriptor)
        raise
    return descriptor


class Truncated(Exception):  # noqa: N818 - news for the caller, not a failure
    """The file's beginning is not what it was: it was cut and written anew."""


class LogFile:
    """One open regular file, read in whole lines from `offset` on.

    Holding the descriptor keeps the inode from being used again, so that (device, inode) names this file and no other.
    """

    def __init__(self, path: str, offset: int = 0, *, descriptor: int | None = None) -> None:
        """Open `path` (or take over `descriptor`). Raises what `open_regular` raises; the descriptor is closed then."""
        self.descriptor = open_regular(path) if descriptor is None else descriptor
        try:
            status = os.fstat(self.descriptor)
            self.head = os.pread(self.descriptor, HEAD_LENGTH, 0)
        except OSError:
            self.close()
            raise
        self.device, self.inode = status.st_dev, status.st_ino
        self.offset = offset
        self.scanned = offset  # no newline from `offset` up to here
        self.goal = status.st_size  # its size when opened: what `--once` reads up to
        self.lines_cut = 0
        self.reported = False  # whether a position of it was handed out
        self.active_at = 0.0  # when it last grew, or was rotated away; the log's clock
        self.watch = -1

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.inode

    def close(self) -> None:
        with suppress(OSError):  # of a failing disk or server; the descriptor is gone all the same
            os.close(self.descriptor)

    def stat(self) -> os.stat_result:
        return os.fstat(self.descriptor)

    def quiet_for(self) -> float:
        """Seconds since the file was last written or renamed."""
        status = self.stat()
        return max(0.0, time.time() - max(status.st_mtime, status.st_ctime))

    def position(self, path: str) -> Position:
        """Where the next whole line starts, under the log's name `path`."""
        return Position(path, self.device, self.inode, len(self.head), hash_head(self.head), self.offset)

    def check(self) -> None:
        """Compare the file's beginning with what it was, and remember what it has gained. Raises Truncated."""
        head = os.pread(self.descriptor, HEAD_LENGTH, 0)
        if not head.startswith(self.head):
            raise Truncated
        self.head = head

    def restart(self) -> None:
        """Begin again from the start, since the content is new."""
        self.offset = self.scanned = 0
        self.goal = self.stat().st_size
        self.reported = False
        self.head = b""
        self.check()

    def shorten(self) -> bool:
        """Go on after a cut in the middle: whole lines of the old beginning still stand, and what is left was read.

        False, with nothing changed, when the content is new.
        """
        head = os.pread(self.descriptor, HEAD_LENGTH, 0)
        if b"\n" not in head or not (self.head and (head.startswith(self.head) or self.head.startswith(head))):
            return False
        self.head = head
        self.skip_to_end()
        return True

    def read(self, limit: int) -> bytes:
        """The next whole lines, about `limit` bytes at most unless one line is longer; b"" when none is complete.

        b"" is also the answer in the midst of a very long line: call again while `unscanned` says that there is more.
        What stands before the first line that begins at `offset` or behind it is passed over.
        Raises Truncated, with nothing consumed, when the file was cut since the last call. The check comes after the
        reading: what was read before the file was cut belongs to the old content, and only the old head vouches for it.
        """
        start = self.scanned
        chunk = os.pread(self.descriptor, limit, start)
        if not chunk:
            if self.unscanned() < 0:
                raise Truncated
            return b""
        if not self._begins_line(self.offset):
            self.check()
            first = chunk.find(b"\n") + 1
            self.offset = self.scanned = start = start + (first or len(chunk))
            chunk = chunk[first:] if first else b""
            if not chunk:
                return b""
        last = chunk.rfind(b"\n")
        if last < 0:
            self.check()
            self.scanned = start + len(chunk)
            return b""
        end = start + last + 1
        cut = 0
        if start == self.offset:
            data = chunk[: last + 1]
        else:
            first = start + chunk.index(b"\n") + 1
            cut = int(first - self.offset > LONGEST_LINE)
            end = first if cut else end
            data = self._span(self.offset, min(end - self.offset, LONGEST_LINE) if cut else end - self.offset)
            data += b"\n" if cut else b""
        self.check()
        self.offset = self.scanned = end
        self.lines_cut += cut
        return data

    def _begins_line(self, offset: int) -> bool:
        """Whether a line begins there. Not in a log that was cut and has grown beyond where it was, when it begins as
        before: what a header does. The rest of that line could look like a line of its own, and is none."""
        return offset == 0 or os.pread(self.descriptor, 1, offset - 1) == b"\n"

    def unscanned(self) -> int:
        """Bytes that were not looked at yet; negative when the file is shorter than it was."""
        return self.stat().st_size - self.scanned

    def read_unfinished(self) -> bytes:
        """The last line of a file that nobody writes to any more, a newline added; b"" when it ended in one.

        `offset` stands at the file's end afterwards. Raises Truncated.
        """
        length = self.scanned - self.offset
        if length <= 0:
            return b""
        data = self._span(self.offset, min(length, LONGEST_LINE))
        self.check()
        self.lines_cut += int(length > LONGEST_LINE)
        self.offset = self.scanned
        return data + b"\n"

    def skip_to_end(self) -> None:
        """Go behind the last whole line that the file has now.

        Never into the midst of a line: a line's second half could look like a line of its own.
        """
        end = self.stat().st_size
        while end > 0:
            start = max(0, end - _BACKWARDS)
            last = os.pread(self.descriptor, end - start, start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        self.offset = self.scanned = end

    def _span(self, start: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self.descriptor, length, start)
            if not part:  # it was longer a moment ago
                raise Truncated
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)


def open_log(path: str) -> LogFile:
    """The log at `path`, from its start. Raises what `open_regular` raises, DataError also when a position of it could
    not be kept (what cannot be remembered is not read), or when it is compressed: nobody writes to that any more."""
    fault = length_fault(path)
    if fault:
        raise DataError(fault)
    file = LogFile(path)
    codec = codec_of(file.head)
    if codec is not None:
        file.close()
        raise DataError(
            f"it is compressed ({codec.program}): nobody writes to it any more. `mcban run --once` reads it, once, if "
            "a logpath names it without wildcards"
        )
    return file


def reason_of(error: OSError) -> str:
    """Why a file cannot be read, in a few words."""
    return os.strerror(error.errno) if error.errno else str(error)


ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Errors which mean that there is nothing at the path (yet)."""
