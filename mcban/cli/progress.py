"""How far a long reading has come: one line on standard error, where somebody watches it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType

_FIRST_AFTER = 0.5
_EVERY = 0.1
_BAR = 24


class Progress:
    """A line that is written over and over. Silent unless `wanted` and standard error is a terminal that can do it.

    `total` is in bytes, 0 when nobody knows it. Left like a context, also by an error, it takes its line away.
    """

    def __init__(self, total: int, *, wanted: bool = True) -> None:
        self.total = total
        self._shown = wanted and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bytes = self._lines = 0
        self._began = time.monotonic()
        self._next = self._began + _FIRST_AFTER
        self._dirty = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown = False
        self.clear()

    def expect(self, total: int) -> None:
        """So many bytes are to be read, as is known by now."""
        self.total = total

    def read(self, count: int) -> None:
        """So many bytes more were taken from the disk."""
        self._bytes += count

    def matched(self, block: bytes) -> None:
        """The lines of this block are dealt with."""
        if self._shown:
            self._lines += block.count(b"\n")
            now = time.monotonic()
            if now >= self._next:
                self._next = now + _EVERY
                self._write(now)

    def clear(self) -> None:
        """Take the line away, for others to write there; it comes again by itself."""
        if self._dirty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._dirty = False

    def _write(self, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{self._text(now - self._began)[:width]}\x1b[K")
        sys.stderr.flush()
        self._dirty = True

    def _text(self, seconds: float) -> str:
        rate = f"{self._lines / seconds:,.0f} lines/s".replace(",", " ")
        if not self.total:
            return f"{_size(self._bytes)} read, {rate}"
        part = min(1.0, self._bytes / self.total)
        done = round(part * _BAR)
        left = seconds / part - seconds if part else 0.0
        return (
            f"{part:4.0%} [{'#' * done}{'-' * (_BAR - done)}] {_size(self._bytes)} of {_size(self.total)}, {rate}, "
            f"{left // 60:.0f}:{left % 60:02.0f} left"
        )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
