"""What is wrong is told once, whatever there is of it."""

from __future__ import annotations

from mcban.daemon.troubles import Troubles
from mcban.firewall.base import Refusal


class Entry(str):
    """Counts how often it is compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Entry.compared += 1
        return str.__eq__(self, other)


def test_refusals_are_told_in_time_however_many_are_met_again() -> None:
    """A jail's thousands of bans that the kernel keeps refusing leave the engine time for all others."""
    troubles = Troubles()

    def met() -> list[Refusal]:
        return [Refusal("mc-exim-1d", Entry(f"10.0.{n // 256}.{n % 256}"), "the set is full") for n in range(3_000)]

    Entry.compared = 0
    for _ in range(3):
        again = met()
        troubles.forget_refusals(but=again)
        troubles.refused(again)
    assert len(troubles.status()["not_enforced"]) == 3_000
    assert Entry.compared < 100_000
