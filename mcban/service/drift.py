"""Whether the kernel still holds what it was given, found out without reading it: cheap enough for every few seconds.

The kernel says how many live entries each list has, SQL how many bans should be there. Only when they differ, or a
rule or a list is gone, or once in a while, is everything read and compared.
"""

from __future__ import annotations

from mcban.service.context import Context
from mcban.service.sync import Aim, Outcome

CLOCK = 2
"""Seconds by which the kernel may be late or early in ending an entry."""
READ_ALL_EVERY = 600.0
"""Seconds after which all is read although nothing seems to be missing: long bans are renewed, and an entry that was
exchanged for another is found."""


class DriftWatch:
    """What a full sync left behind, and whether it is still so."""

    def __init__(self) -> None:
        self._aim: Aim | None = None
        self.last_aim: Aim | None = None
        """What the last full sync aimed at, whether or not it got there."""
        self._read_all_at = 0.0
        self._protected: dict[str, str] = {}

    def synced(self, context: Context, outcome: Outcome, now: float) -> None:
        """Remember a full sync; one that left something undone is to be followed by another. `now` is any clock's."""
        self._aim = None if outcome.refusals or outcome.withheld else outcome.aim
        self.last_aim = outcome.aim or self.last_aim
        self._read_all_at = now + READ_ALL_EVERY
        self._protected = dict(context.host.protected())

    def doubt(self) -> None:
        """Have everything read next time: something changed that may reach far."""
        self._aim = None

    def drifted(self, context: Context, now: float) -> bool:
        """Whether a full sync is called for. Raises what `Firewall.glance` and the database raise."""
        aim = self._aim
        if aim is None or now >= self._read_all_at or context.host.protected() != self._protected:
            return True
        glance = context.firewall.glance(list(aim.wanted.entries))
        if not glance.whole:
            return True
        early, late = context.now - CLOCK, context.now + CLOCK
        counts = context.database.read(lambda t: t.addresses.running_counts(aim.aside, early, late))
        for jail, aside in aim.aside.items():
            fewest, most = counts.get(jail, (0, 0))
            if not fewest - aside <= glance.counts.get(jail, 0) <= most - aside:
                return True
        return False
