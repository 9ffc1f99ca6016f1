"""Feeds a filter that matches several lines at once, without giving it every line of a log to match.

Its window holds the last lines. While none of them holds what the rules demand no match is possible, so such lines
need not be matched; but the window must hold them when a line comes that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mcban.filters.matcher import WindowMatcher

Line = tuple[int, int]
"""Where a line of a block begins, and where it ends without its line end."""
Hit = TypeVar("Hit")
Judge = Callable[[Line], tuple[Hit | None, bool] | None]
"""Matches a line with those before: the failure, if there is one, and whether any rule took notice; None for a line
that is left out."""


class Window:
    """One filter's window over the lines of one log."""

    def __init__(self, matcher: WindowMatcher) -> None:
        self.matcher = matcher
        self._owed = 0
        """How many of the next lines must be matched: as long as a line that tells is in the window."""
        self._put_off: tuple[Callable[[Line], None], list[Line]] | None = None
        """The last lines of a block of which none told, to go into the window when a line is to be matched: most
        windows of most logs see none."""

    def scan(
        self, block: bytes, telling: Sequence[Line], judge: Judge[Hit], remember: Callable[[Line], None]
    ) -> Iterator[Hit]:
        """The failures that lines of `block` complete; `telling` are the lines that hold what some rule demands.

        `judge` is called for lines that must be matched, `remember` for those that only go into the window.
        """
        if not telling and not self._owed:
            lines = _last_lines(block, 0, len(block), self.matcher.maxlines - 1)
            if len(lines) == self.matcher.maxlines - 1:  # all that the window holds
                self._put_off = remember, lines
                return
        self._recall()
        position = 0
        for start, end in [*telling, (len(block), -1)]:
            while self._owed and position < start:
                line = _line_at(block, position)
                yield from self._judge(line, judge)
                position = line[1] + 1
            if position < start:
                for line in _last_lines(block, position, start, self.matcher.maxlines - 1):
                    remember(line)
            if end >= 0 and position <= start:
                self._owed = self.matcher.maxlines
                yield from self._judge((start, end), judge)
                position = end + 1

    def _recall(self) -> None:
        if self._put_off:
            remember, lines = self._put_off
            self._put_off = None
            for line in lines:
                remember(line)

    def _judge(self, line: Line, judge: Judge[Hit]) -> Iterator[Hit]:
        told = judge(line)
        if told is None:
            return
        hit, noticed = told
        # Where lines were taken out, those before them stay for longer.
        self._owed = self.matcher.maxlines - 1 if noticed else self._owed - 1
        if hit is not None:
            yield hit


def _line_at(block: bytes, start: int) -> Line:
    end = block.find(b"\n", start)
    return start, (len(block) if end < 0 else end)


def _last_lines(block: bytes, first: int, end: int, most: int) -> list[Line]:
    """The last lines of those that begin at `first` or later and before `end`, where a line begins."""
    lines: list[Line] = []
    while end > first and len(lines) < most:
        stop = end - 1 if block[end - 1 : end] == b"\n" else end
        start = max(block.rfind(b"\n", first, stop) + 1, first)
        lines.append((start, stop))
        end = start
    lines.reverse()
    return lines
