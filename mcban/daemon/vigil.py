"""What the engine does while SQL is away, or takes long to answer: look out, and mend what others take from the
kernel."""

from __future__ import annotations

import time

from mcban.core.duration import about
from mcban.daemon.bridge import Bridge, Outage
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.guard import Guard
from mcban.daemon.reading import Reading
from mcban.daemon.signals import Signals
from mcban.daemon.statement import Statement
from mcban.errors import DatabaseError
from mcban.service.context import Context

SLICE = 0.25
"""Seconds of looking out after which what else is due gets its turn."""
SLOW = 12.0
"""Seconds without an answer from the database after which that is told. Who waits for a lock is told so by then, which
says more; and no attacker gains by it."""
GLANCE = 0.1
"""Seconds between two looks while the database is away."""
LAST_WORD = 2.0
"""Seconds for which the end waits for one."""


class Vigil:
    """Asks SQL nothing."""

    def __init__(
        self,
        context: Context,
        signals: Signals,
        reading: Reading,
        bridge: Bridge,
        enforcement: Enforcement,
        guarded: Guard,
        statement: Statement,
    ) -> None:
        self._context, self._signals, self._reading = context, signals, reading
        self._bridge, self._enforcement = bridge, enforcement
        self._guarded, self._statement = guarded, statement
        self._restore_at = 0.0
        self._told: tuple[Outage | None, str] = None, ""

    @property
    def activities(self) -> list[str]:
        """The names under which the troubles have what fails here."""
        return [action.__name__ for action in (self.look_out, self._restore)]

    def turn(self) -> bool:
        """One turn of the loop while SQL is away; whether it is time to try that again."""
        outage = self._bridge.outage
        more = self.keep()
        if outage is not None and time.monotonic() >= outage.again_at:
            outage.again_at = time.monotonic() + 1.0  # whatever stops it; an error puts it off further
            return True
        if not more:
            self._bridge.wait(GLANCE)
        return False

    def wait(self, waited: float) -> None:
        """An answer takes long, so many seconds by now (`Asking`). Raises DatabaseError when the end cannot wait."""
        if self._signals.stop and waited > LAST_WORD:
            raise DatabaseError(f"{self._context.database.shown_url} did not answer before the end")
        if waited > SLOW and self._bridge.outage is None:
            self._bridge.failed(f"{self._context.database.shown_url} has not answered for {about(int(SLOW))}")
        if not self.keep():
            time.sleep(0.01)

    def keep(self) -> bool:
        """Look out for a while, and look after the kernel when that is due; whether there may be more to be read."""
        more = self._guarded(self.look_out, asks=False) is True
        if time.monotonic() >= self._restore_at:
            self._restore_at = time.monotonic() + self._context.config.sync_interval
            self._guarded(self._restore, asks=False)
            self._tell()
        elif self._told != (self._bridge.outage, self._bridge.trouble):
            self._tell()  # whoever asks for the status wants to know now
        return more

    def _tell(self) -> None:
        self._told = self._bridge.outage, self._bridge.trouble
        self._statement.publish()

    def look_out(self) -> bool:
        """Read ahead and put attackers out, by what is known; whether there may be more to be read. Raises what the
        firewall raises."""
        if not self._bridge.watching:
            self._set_out()
        outcome, more = self._bridge.watch(SLICE)
        self._enforcement.tell_refusals(outcome.refusals)
        return more

    def _set_out(self) -> None:
        world, reading, known = self._enforcement.world, self._reading, self._bridge.known
        if reading.begun:
            self._bridge.set_out(world, reading.positions, reading.pending.hits, reading.opened)
        elif known is not None:
            self._bridge.set_out(world, known.positions)

    def _restore(self) -> None:
        self._enforcement.tell_refusals(self._bridge.restore().refusals)
