"""Ends a match that takes too long: an expression that explodes costs one line of one filter, not the engine.

Python's `re` looks for signals about every 4 096 steps of any match, whatever the expression does; an exception that
a signal's handler raises ends it (tried with 3.11, 3.12 and 3.13: tests/filters/test_watchdog.py). So a timer ticks
while a block is matched, and its handler looks which match is running. What a match costs by this is to note its
number. A tick counts CPU time, so that a busy machine gives up nothing by mistake.

Only Python's main thread handles signals: in another one nothing is watched. One step may read a whole line, so with
an expression that reads the rest of the line at each of its characters the time may be exceeded by the length of the
line times 4 096: seconds for one of 128 KiB, nothing to speak of for one of a kilobyte.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

LIMIT = 0.2
"""Seconds of CPU time that a filter may take for one line."""
CREDIT = 1.0
"""Seconds of CPU time that a filter may spend on lines that are given up, before it must save."""
SHARE = 0.1
"""What it regains of the time that passes."""
TICK = 0.01
"""Seconds of CPU time between two looks."""


def _take_late(_signal: int, _frame: FrameType | None) -> None:
    """A tick that comes late ends nothing: not a match, nor the process, as it would where nobody handles it."""


class GaveUp(Exception):  # noqa: N818  # what happened, not an error
    """The match took too long."""


class Watchdog:
    """Watches the matches of several filters, each known by a number.

    Within `with watchdog:`, set `running` before each match to a pair that names it, its filter being the second, and
    to None after it: GaveUp may be raised in between, and nowhere else. Whoever catches it calls `punish`.

    Each filter has a credit. What its given-up lines cost is taken from that, and as it dwindles so does the time
    for a line. A filter in `spent` has none left, and is to be passed over until it has regained some. So a flood of
    lines that explode takes a tenth of the time, whatever its size, and the other filters go on.
    """

    def __init__(self) -> None:
        self.running: tuple[int, int] | None = None
        self.spent: frozenset[int] = frozenset()
        self._credit: dict[int, float] = {}
        self._regained = 0.0
        self._active = False
        self._handler: Any = None
        self._timer = (0.0, 0.0)
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self._raised = 0.0

    def __enter__(self) -> Self:
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            if self._credit:
                self._regain()
            self.running = self._seen = None
            self._handler = signal.signal(signal.SIGVTALRM, self._tick)
            self._timer = signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.running = None
        if self._active:
            # In this order: without a timer no further signal can meet the old handler. One that was sent already may
            # do so: a tick in another thread's time waits for that thread, which may have to wait for a processor.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, self._handler if callable(self._handler) else _take_late)
            if any(self._timer):
                signal.setitimer(signal.ITIMER_VIRTUAL, *self._timer)

    def punish(self, number: int) -> None:
        """Take what the match that was given up has cost from the credit of its filter."""
        self.running = None
        if not self._credit:
            self._regained = time.monotonic()
        self._credit[number] = self._credit.get(number, CREDIT) - (time.thread_time() - self._since + TICK)
        self._judge()

    def _regain(self) -> None:
        now = time.monotonic()
        gain = (now - self._regained) * SHARE
        self._regained = now
        self._credit = {number: left + gain for number, left in self._credit.items() if left + gain < CREDIT}
        self._judge()

    def _judge(self) -> None:
        self.spent = frozenset(number for number, left in self._credit.items() if left <= 0)

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        running, now = self.running, time.thread_time()
        if running is None or running != self._seen:
            self._seen, self._since = running, now
            return
        limit = LIMIT * min(self._credit.get(running[1], CREDIT) / CREDIT, 1.0)
        # Raised once for each match; again only if it went on all the same, as when a destructor swallowed it.
        if now - self._since >= limit and now - self._raised >= TICK:
            self._raised = now
            raise GaveUp
