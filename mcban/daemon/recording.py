"""From what was read to what is in force: hits are written, and the kernel has the bans that follow."""

from __future__ import annotations

import logging

from mcban.core.plan import Plan
from mcban.daemon import heap
from mcban.daemon.bridge import Bridge, describe
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.reading import Reading
from mcban.errors import McbanError
from mcban.service.context import Context
from mcban.service.memory import MOST, Memory
from mcban.service.record import Recorded, record
from mcban.service.sync import Outcome, enforce

log = logging.getLogger("mcban")

MUCH = 1_000
"""Addresses remembered, from which on forgetting them is worth giving their space back to the system."""


class Recording:
    """Takes from the `reading` what is pending, batch after batch, and remembers `most` addresses between two."""

    def __init__(
        self, context: Context, reading: Reading, bridge: Bridge, enforcement: Enforcement, most: int = MOST
    ) -> None:
        self._context, self._reading, self._bridge, self._enforcement = context, reading, bridge, enforcement
        self._memory = Memory()
        self._memory.most = most
        self._problem = ""

    def commit(self) -> bool:
        """Write what is pending, then let the kernel have the bans; False when it does not take them, so that a full
        sync is owed.

        Raises what the database raises, and ForgottenError when that lacks what was committed before. The batch stays
        pending then, and is offered again as it is.
        """
        pending = self._reading.pending
        if not pending:
            return True
        read, finished = list(pending.positions.values()), list(pending.finished.values())
        again, pending.offered = pending.offered, True
        name, before = pending.name, self._reading.written
        done = record(self._context, pending.hits, read, finished, self._memory, batch=name, again=again, after=before)
        self._reading.committed()
        self._bridge.counted(pending.hits)
        self._enforcement.pass_over(done.noted)
        return not done.records or self._enforce(done)

    def _enforce(self, done: Recorded) -> bool:
        outcome, problem = Outcome(Plan()), None
        try:
            outcome = enforce(self._context, done.world, done.records)
        except McbanError as error:
            problem = error
        finally:  # told afterwards: the attacker has no time to lose
            if done.bans:
                log.warning("%s", "\n".join(describe(ban, self._context.now) for ban in done.bans))
        self._enforcement.note(outcome)
        if problem is None:
            self._problem = ""
            return True
        if str(problem) != self._problem:  # said once, not for each batch of an attack
            self._problem = str(problem)
            log.error("%s; lists are mended next", problem)
        # Neither the feed nor a count that stayed the same will tell of these bans: everything is to be read.
        self._enforcement.doubt()
        return False

    def forget(self) -> None:
        """Give back the memory of what was remembered: whoever writes beside makes that of no use."""
        much = self._memory.size > MUCH
        self._memory.forget()
        if much:
            heap.give_back()
