"""`run --once`: every log is read to the end that it has now, recorded, and the kernel brought to SQL."""

from __future__ import annotations

import logging
import time

from mcban.daemon.bridge import Bridge
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.membership import Membership
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Onlooker, Reading
from mcban.daemon.recording import Recording
from mcban.daemon.signals import Signals
from mcban.daemon.statement import Statement
from mcban.daemon.troubles import Troubles
from mcban.errors import DatabaseError, RefusedError
from mcban.firewall.base import IncompleteError
from mcban.service import upkeep
from mcban.service.claim import BEAT
from mcban.service.context import Context
from mcban.service.record import ForgottenError
from mcban.service.sources import Intake

log = logging.getLogger("mcban")

AT_ONCE = 20_000
"""Hits that are committed together, and addresses remembered between: in half of the time that it takes with as little
memory as an engine should need for days."""
WAIT = 0.1
"""Seconds between two looks for what is left of a log, as in the midst of its rotation."""


class OnePass:
    """One pass over the logs. What goes wrong ends it: somebody watches, and what was committed stands."""

    def __init__(self, context: Context, presence: Presence, signals: Signals) -> None:
        self._context, self._signals = context, signals
        bridge, troubles = Bridge(context), Troubles()
        self._membership = Membership(context, presence.owner())
        self._enforcement = Enforcement(context, bridge, troubles)
        self._reading = Reading(context, group_size=AT_ONCE)
        self._recording = Recording(context, self._reading, bridge, self._enforcement, most=AT_ONCE)
        self._statement = Statement(context, presence, self._reading, bridge, troubles)
        self._beat_at = 0.0

    def start(self) -> None:
        """Be ready: jails taken over, bans in the kernel, logs open. Raises what makes that impossible."""
        self._context.firewall.stands()  # a missing permission is said before anything is changed
        self._membership.join()
        self._enforcement.begin()
        try:
            self._enforcement.mend(first=True)
        except IncompleteError as error:
            self._enforcement.tell_refusals(error.refused)  # all other jails are in force
            log.error("%s", error)
        except RefusedError as error:
            log.error("%s", error)  # the bans of the kernel stand; it is raised at the end
        self._reading.begin(Intake(self._enforcement.sources()))
        self._statement.publish()

    def run(self, onlooker: Onlooker | None = None) -> bool:
        """Read and commit. Raises what goes wrong; returns False when a signal ended it before. `passed_over` has what
        could not be read."""
        for _ in self._reading.take_archives(onlooker):
            self._commit_when_full()
            if self._signals.stop:
                break
        while not self._signals.stop:
            while not self._signals.stop and self._reading.take_block():
                self._commit_when_full()
            if self._reading.at_end:
                break
            self._reading.wait(WAIT)
        self._commit()
        upkeep.expire(self._context)
        self._enforcement.mend()
        self._reading.tell()
        self._membership.leave()
        return not self._signals.stop

    @property
    def passed_over(self) -> list[str]:
        """What could not be read, or not to its end: jails, and archives."""
        return [*map(str, self._enforcement.passed_over), *self._reading.broken]

    def _commit_when_full(self) -> None:
        if self._reading.full:
            self._commit()
            if time.monotonic() >= self._beat_at:
                self._beat_at = time.monotonic() + BEAT
                self._membership.keep()

    def _commit(self) -> None:
        try:
            self._recording.commit()  # what the kernel does not take is found by the full sync at the end
        except ForgottenError as error:  # what this pass has read is not read again by it
            raise DatabaseError(f"{error}, by a crash perhaps, or a backup: run this again") from None
