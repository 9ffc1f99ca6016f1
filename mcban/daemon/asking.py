"""SQL, asked in a thread of its own: whoever waits has something to do when the answer takes long.

A server that is stopped, or cut off, lets a question stand for as long as the time-outs are. All that is not SQL stays
in the engine's one thread: while it waits, it does something else there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from mcban.errors import DatabaseError

PATIENCE = 1.0
"""Seconds for which an answer is simply waited for."""
GLANCE = 0.05
"""Seconds between two looks for an answer that takes longer."""


class _Question:
    """A transaction to be run, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._open = threading.Lock()
        self._open.acquire()

    def ask(self) -> None:
        """In the thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  # it is raised where the answer is waited for
            self._error = error
        self._open.release()

    def answered(self, timeout: float) -> bool:
        """Wait for the answer; whether it came."""
        return self._open.acquire(timeout=timeout)

    def answer(self) -> Any:
        """The result; raises what the transaction raised."""
        if self._error is not None:
            raise self._error
        return self._result


class Asking:
    """Runs transactions (`Database.conduct`), one at a time. While an answer takes long, `meanwhile` is called again
    and again, with the seconds so far; it may ask nothing, and what it raises ends the waiting, not the question."""

    def __init__(self, meanwhile: Callable[[float], None]) -> None:
        self._meanwhile = meanwhile
        self._questions: SimpleQueue[_Question] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open: _Question | None = None

    def __call__(self, work: Callable[[], Any]) -> Any:
        """The result of `work`. Raises what it raises, DatabaseError while an earlier question stands."""
        if self._open is not None and not self._open.answered(0):
            raise DatabaseError("the database has not answered the last question yet")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="sql", daemon=True)
            self._thread.start()
        self._open = question = _Question(work)
        self._questions.put(question)
        if not question.answered(PATIENCE):
            began = time.monotonic() - PATIENCE
            self._meanwhile(PATIENCE)
            while not question.answered(GLANCE):
                self._meanwhile(time.monotonic() - began)
        self._open = None
        return question.answer()

    def _serve(self) -> None:
        while True:
            self._questions.get().ask()
