"""A word to whoever waits for a database that hangs, or that somebody keeps locked: that it is waited for, and for how
long at the most. It goes to standard error, once for each command."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

AFTER = 4.0
"""Seconds of waiting before it is told."""
_LOOK = 0.5
"""Seconds between two looks."""
_MOVED = 0.001
"""Seconds of computing between two looks by which a thread does not just wait."""


class Waiting:
    """`with waiting:` around what asks the database; `tell` is called, in another thread, with the moment since when
    the asking one waits (`time.time()`). A thread that computes does not wait, however long its transaction takes."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._depth = 0
        self._question = 0
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._watcher is None:
            clock = time.pthread_getcpuclockid(threading.get_ident())
            self._watcher = threading.Thread(target=self._watch, args=(clock,), name="waiting", daemon=True)
            self._watcher.start()
        if self._depth == 0:
            self._question += 1
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1

    def close(self) -> None:
        """Nothing is told any more."""
        self._over.set()

    def _watch(self, clock: int) -> None:
        began, question, used = time.monotonic(), 0, 0.0
        while not self._over.wait(_LOOK):
            now, asked, computed = time.monotonic(), self._question, time.clock_gettime(clock)
            if self._depth == 0 or asked != question or computed - used > _MOVED:
                began = now
            elif now - began >= AFTER:
                self._tell(time.time() - (now - began))
                return
            question, used = asked, computed
