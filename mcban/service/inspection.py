"""What a filter makes of the lines of a log, one by one, and why: for whoever writes or mends a filter.

Judges each line by the exact expressions, as the engine does in the end; without the engine's way to find out quickly
that a line cannot match, since here the question is why it does not.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo
from types import FrameType

from mcban.filters import OVERLONG, Explanation, Filter, Matcher
from mcban.filters.watchdog import LIMIT

GAVE_UP = "gave up"
"""The outcome of such a line, besides those of `Explanation`."""


class _TooLongError(Exception):
    """The time for a line is over."""


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError


@contextmanager
def _limiting() -> Iterator[bool]:
    """Whether lines can be given up here: Python lets its main thread alone have signals, and `re` looks for them."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.signal(signal.SIGVTALRM, _end)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@dataclass(slots=True)
class Inspection:
    """A filter, and what was counted with it so far.

    `outcomes` counts lines by what became of them, `rules` the hits by failregex, `ignored` the lines by ignoreregex,
    `dates` the lines by the form of their date. `dateless` are hits without a date that can be read, `undated` lines
    without any date, `overlong` those too long to be matched. A line that takes
    longer than the engine's LIMIT is GAVE_UP: here every line has all of it, since nobody waits for the others.
    """

    filter: Filter
    zone: tzinfo | None = None
    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[int] = field(default_factory=Counter)
    ignored: Counter[int] = field(default_factory=Counter)
    dates: Counter[str] = field(default_factory=Counter)
    undated: int = 0
    dateless: int = 0
    overlong: int = 0

    def look(self, blocks: Iterator[bytes], now: int) -> Iterator[tuple[int, str, Explanation]]:
        """Each line that was matched, by its number from 1, with what became of it; `now` is the time of reading."""
        matcher = self.filter.matcher()
        self.filter.compile(self.filter.rules)
        with _limiting() as limited:
            for block in blocks:
                for raw in block.split(b"\n")[:-1]:
                    self.lines += 1
                    if len(raw) > OVERLONG:
                        self.overlong += 1
                        continue
                    line = raw.decode("utf-8", "replace").rstrip("\r")
                    told = self._explain(line, now, matcher, limited=limited)
                    self._count(told)
                    yield self.lines, line, told

    def _explain(self, line: str, now: int, matcher: Matcher, *, limited: bool) -> Explanation:
        try:
            if limited:
                signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
            told = self.filter.explain(line, now, self.zone, matcher=matcher)
            if limited:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _TooLongError:
            return Explanation(GAVE_UP, None, None, None, None, None, line)
        return told

    def _count(self, told: Explanation) -> None:
        self.outcomes[told.outcome] += 1
        if told.outcome == "hit" and told.rule is not None:
            self.rules[told.rule] += 1
            self.dateless += told.at is None
        if told.ignored_by is not None:
            self.ignored[told.ignored_by] += 1
        if told.form is None:
            self.undated += told.outcome != GAVE_UP
        else:
            self.dates[told.form] += 1
