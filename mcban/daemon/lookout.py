"""Keeping watch while SQL is away: the logs are read ahead, attackers put out by a provisional judgement, and nothing
of it is kept. What counts is read again, from where SQL knows of it, once it is back."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from mcban.core.model import Ban, Hit, Position
from mcban.core.plan import Plan
from mcban.logs import LogReader, LogStatus
from mcban.service.context import Context
from mcban.service.known import Known
from mcban.service.provisional import Provisional
from mcban.service.sources import Intake
from mcban.service.sync import Aim, Outcome


class Lookout:
    """Judges by what is `known`, and by the hits that were counted last.

    It reads on from `positions` with a reader of its own: the engine's stays where it is, and keeps rotated files open.
    Of an `old` log without a position (of all, or of these paths) nothing is read that is there already: a start
    without SQL is no time to read years.
    `unwritten` are hits that the engine has read and could not write. `before` is a lookout whose bans are not all in
    SQL yet.
    """

    def __init__(
        self,
        context: Context,
        known: Known,
        intake: Intake,
        positions: Iterable[Position],
        counted: Iterable[Sequence[Hit]] = (),
        unwritten: Iterable[Hit] = (),
        before: Lookout | None = None,
        old: bool | Collection[str] = True,
    ) -> None:
        self._context, self._intake = context, intake
        self._judgement = Provisional(context, known)
        if before is not None:
            self._judgement.bans = before.bans
        for hits in counted:
            self._judgement.learn(hits)
        self._bans = self._judgement.take(unwritten)
        self._left: list[Ban] = []
        self._reader: LogReader | None = LogReader(intake.patterns, positions, from_end=old)

    @property
    def watching(self) -> bool:
        """Whether it reads; else it only remembers which bans SQL has not confirmed."""
        return self._reader is not None

    def watch(self, seconds: float) -> tuple[list[Ban], bool]:
        """Read for so long, or until somebody is to be banned: who is, and whether there may be more to be read."""
        more = self._read(seconds)
        bans, self._bans = self._bans, []
        return bans, more

    def enforce(self, bans: Sequence[Ban]) -> Outcome | None:
        """Put these into the kernel, and those that it did not take the last time; how that went, if there were any.
        Raises what the firewall raises: it is tried again with the next ones, who need not wait for that."""
        self._left = [ban for ban in (*self._left, *bans) if ban.in_force(self._context.now)]
        if not self._left:
            return None
        outcome = self._judgement.enforce(self._left)
        self._left = []
        return outcome

    def _read(self, seconds: float) -> bool:
        reader, end = self._reader, time.monotonic() + seconds
        while reader is not None and not self._bans and time.monotonic() < end:
            block = reader.read()
            if block is None:
                if reader.amid_line:
                    continue
                return False
            if block.data:
                patterns = reader.patterns_of(block.path)
                now, ahead = self._context.own_now, self._context.database.ahead
                hits = self._intake.hits(block.path, block.data, patterns, now, ahead)
                self._bans += self._judgement.take(hits)
            reader.take_warnings()  # the engine's own reader will come by, and tell them
            self._intake.warnings.clear()
        return reader is not None

    def wait(self, timeout: float) -> None:
        """Return when something happened to a log, or after `timeout` seconds."""
        if self._reader is not None:
            self._reader.wait(timeout)

    def note(self, plan: Plan) -> None:
        """SQL, which is back or only slow, says that these bans came, or went."""
        self._judgement.note(plan)
        self._bans, self._left = (
            [ban for ban in bans if ban.ip not in plan.remove.get(ban.jail, ())] for bans in (self._bans, self._left)
        )

    def aim(self) -> Aim:
        """What the kernel should hold by now."""
        return self._judgement.aim()

    @property
    def bans(self) -> dict[str, dict[str, int]]:
        """By jail the entries that were put out since SQL was away, with their ends."""
        return self._judgement.bans

    def unconfirmed(self, known: Known) -> list[tuple[str, str]]:
        """The bans, as (entry, jail), that SQL does not know of by now."""
        confirmed = known.ends()
        return [
            (entry, jail)
            for jail, ends in self.bans.items()
            for entry, end in ends.items()
            if end > self._context.now and entry not in confirmed.get(jail, {})
        ]

    def status(self) -> list[LogStatus]:
        """How each log is."""
        return self._reader.status() if self._reader is not None else []

    def close(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
