"""What others took from the kernel, and is there again: that is told as mended, and nothing else is."""

from __future__ import annotations

from mcban.errors import McbanError
from mcban.service.context import Context, World
from mcban.service.sync import Outcome


class Damage:
    """Knows what is missing and stays so for now, as where a set of somebody else's has the name of a jail's."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._left: frozenset[str] = frozenset()

    def mended(self, world: World, outcome: Outcome, *, whole: bool) -> tuple[str, ...]:
        """Of what a sync found missing of what `world` has, in words, that which is missing no more. Unless all of it
        was done (`whole`), that is looked for in the kernel, if anything is new."""
        if whole:
            self._left = frozenset()
            return outcome.missing
        self._left &= frozenset(outcome.missing)
        new = [line for line in outcome.missing if line not in self._left]
        if not new:
            return ()
        try:
            actual = self._context.firewall.read(list(world.book.jails))
        except McbanError:
            return ()  # nobody knows
        self._left |= {one.said for one in actual.missing}.intersection(new)
        return tuple(line for line in new if line not in self._left)
