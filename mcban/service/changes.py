"""What others changed in SQL: asked for cheaply, by number, and missing none."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from mcban.store.database import Transaction

OVERLAP = 10.0
"""Seconds for which numbers are asked for again: on a server a transaction may commit a lower number after a higher."""

BELOW = 1_000
"""Numbers below the last one that may still be committed when a feed is made."""


class ChangeFeed:
    """The changes since it was made, each once."""

    def __init__(self, transaction: Transaction) -> None:
        # A transaction that is open now may commit a number below the last one.
        self._low = max(0, transaction.changes.last() - BELOW)
        self._seen = {number for number, _, _ in transaction.changes.since(self._low)}
        self._marks: deque[tuple[float, int]] = deque()
        self._fresh = bool(self._seen)
        self.missed = False
        """Whether the last poll found changes dropped that were never told: whoever asks must look at everything."""

    def pass_over(self, numbers: Collection[int]) -> None:
        """Changes that whoever asks has made himself, and need not be told."""
        self._seen.update(numbers)
        self._fresh = self._fresh or bool(numbers)

    def poll(self, transaction: Transaction, now: float) -> list[tuple[str, str]]:
        """The (ip, jail) that changed, an empty ip for a jail's own row. `now` is any clock's seconds."""
        oldest = transaction.changes.oldest()
        self.missed = 0 < self._low < oldest - 1
        if self.missed:
            self._low = oldest - 1
        rows = [row for row in transaction.changes.since(self._low) if row[0] not in self._seen]
        # What was there before and what is passed over is let go of like what comes: or each poll would read it again.
        if rows or self._fresh:
            self._seen.update(number for number, _, _ in rows)
            self._marks.append((now, max(self._seen)))
        self._fresh = False
        while self._marks and self._marks[0][0] < now - OVERLAP:
            self._low = max(self._low, self._marks.popleft()[1])
            self._seen = {number for number in self._seen if number > self._low}
        return list(dict.fromkeys((ip, jail) for _, ip, jail in rows))
