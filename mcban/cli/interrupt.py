"""Ctrl-C: an exception where that does no harm, a note where it does.

An exception that a signal's handler raises comes up wherever Python happens to be: in the midst of an import, in a
callback that a library in C has called, between a timer's start and its end. While something of that kind goes on, the
handler only takes a note, which is looked at as soon as it is over. Who presses Ctrl-C a second time does not want to
wait, and gets the exception at once.

Where Python itself calls something whose exceptions nobody can catch (`__del__`, what a weak reference calls), this one
would be printed and lost: there the signal is sent once more, a moment later.
"""

from __future__ import annotations

import _thread
import signal
import sys
import time
from contextlib import suppress
from types import FrameType, TracebackType

TYPE_CHECKING = False  # typing's own takes longer to import than all else before Ctrl-C is heard
if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_MOMENT = 0.01
"""Seconds."""


class Interrupt:
    """`with interrupt:` around what is not to be torn apart; KeyboardInterrupt is raised at its end."""

    def __init__(self) -> None:
        self._held = self._noted = False
        self._unraisable = sys.unraisablehook
        self._listener = 0

    def listen(self) -> None:
        """Hear SIGINT, unless somebody else does by now, or it is ignored, as in the background of a shell."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            with suppress(ValueError):  # not the main thread: it gets no signals
                signal.signal(signal.SIGINT, self._arrived)
                self._listener = _thread.get_ident()
                if sys.unraisablehook != self._lost:
                    self._unraisable, sys.unraisablehook = sys.unraisablehook, self._lost

    def __enter__(self) -> None:
        self._held = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        noted, self._noted = self._noted, False
        if noted and kind is None:
            raise KeyboardInterrupt

    def look(self) -> None:
        """Raise KeyboardInterrupt if one is noted: where it does no harm although all around is held."""
        if self._noted:
            self._held = self._noted = False
            raise KeyboardInterrupt

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        if self._held and not self._noted:
            self._noted = True
            return
        raise KeyboardInterrupt

    def _lost(self, what: UnraisableHookArgs) -> None:
        if what.exc_type is KeyboardInterrupt:
            _thread.start_new_thread(self._repeat, ())
        else:
            self._unraisable(what)

    def _repeat(self) -> None:
        time.sleep(_MOMENT)
        signal.pthread_kill(self._listener, signal.SIGINT)


interrupt = Interrupt()
"""Signals are the process's, and so is this."""
