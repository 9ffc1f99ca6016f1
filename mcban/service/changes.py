"""What others changed in SQL: asked for cheaply, by number, and missing none.

Numbers are the database's, and so is their order: no clock decides. But a number is given when a row is changed, and
seen by others when that is committed: plain SQL in a transaction that stays open, and the nodes of a Galera cluster,
of which each numbers by itself, make a lower number visible after a higher one. So the numbers that were passed over
are watched for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mcban.core.allowlist import EVERYWHERE
from mcban.service.context import Context, World
from mcban.service.settle import is_half_said
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction

LATE = 600.0
"""Seconds for which a number that was passed over may still be committed. One that comes later still is found when
everything is compared."""

BELOW = 10_000
"""Numbers below the newest that are looked at for such when a feed is made."""

COUNTED = 10_000
"""Numbers counted in a second, at the most, to find late ones: after a flood they are looked for less often."""


@dataclass(frozen=True, slots=True)
class News:
    """What a feed has to tell: the (ip, jail) that changed, an empty ip for a jail's own row. `missed`: there was more
    that nobody can tell any more, so that everything must be looked at."""

    changed: tuple[tuple[str, str], ...]
    missed: bool
    numbers: tuple[int, ...]
    link: int


class ChangeFeed:
    """The changes since it was made. What it tells is told again until it hears that it was acted upon."""

    def __init__(self, transaction: Transaction) -> None:
        self._begin(transaction.changes.newest(BELOW))
        self._link = transaction.link

    def _begin(self, numbers: Collection[int]) -> None:
        """All these are known, and what is far below them."""
        self._high = max(numbers, default=0)
        self._low = max(0, self._high - BELOW)
        self._seen = {number for number in numbers if number > self._low}  # none above `_high`
        self._own: set[int] = set()  # above `_high`
        self._marks: deque[tuple[float, int]] = deque()
        self._count_at = 0.0
        self._close_ranks()

    def pass_over(self, numbers: range) -> None:
        """Changes that whoever asks has made himself, and need not be told."""
        if numbers and numbers[0] == self._high + 1:
            self._move_to(numbers[-1], numbers)
        else:
            self._own.update(numbers)

    def poll(self, transaction: Transaction, now: float) -> News | None:
        """What there is to tell; None is the answer to a single question, mostly. `now` is any clock's seconds.

        A connection other than the last one may lead to another server, which has other changes under these numbers.
        """
        self._forget_old(now)
        low = self._low if now >= self._count_at else self._high
        extent = transaction.changes.extent(low, self._high)
        dropped = 0 < self._high < extent.oldest - 1 or extent.newest < self._high
        if dropped or transaction.link != self._link:
            return News((), True, tuple(transaction.changes.newest(BELOW)), transaction.link)
        late = False
        if low < self._high:
            self._count_at = now + len(self._seen) / COUNTED
            late = extent.between != len(self._seen)
        if extent.newest == self._high and not late:
            return None
        rows = transaction.changes.since(low if late else self._high)
        if late:  # or it is less, for old ones were dropped
            self._seen.intersection_update({number for number, _, _ in rows})
        rows = [row for row in rows if row[0] not in self._seen and row[0] not in self._own]
        numbers = (*(number for number, _, _ in rows), *self._own)
        if rows:
            changed = dict.fromkeys((ip, jail) for _, ip, jail in rows)
            return News(tuple(changed), False, numbers, self._link)
        if numbers:
            self._move_to(max(numbers), numbers)
        return None

    def told(self, news: News) -> None:
        """All that `news` call for was done."""
        if news.missed:
            self._begin(news.numbers)
            self._link = news.link
        else:
            self._move_to(max(self._high, *news.numbers), news.numbers)

    def _move_to(self, high: int, numbers: Iterable[int]) -> None:
        self._high = high
        self._seen.update(numbers)
        self._own = {number for number in self._own if number > high}
        self._close_ranks()

    def _close_ranks(self) -> None:
        """Where no number is missing, none can come late."""
        while self._low + 1 in self._seen:
            self._low += 1
            self._seen.remove(self._low)

    def _forget_old(self, now: float) -> None:
        if self._low < self._high and (not self._marks or self._marks[-1][1] < self._high):
            self._marks.append((now, self._high))
        while self._marks and self._marks[0][0] < now - LATE:
            self._low = max(self._low, self._marks.popleft()[1])
            self._seen = {number for number in self._seen if number > self._low}
            self._close_ranks()


@dataclass(frozen=True, slots=True)
class Followed:
    """The rows behind changes, and the (ip, jail) that have none any more."""

    rows: tuple[AddressRecord, ...]
    gone: frozenset[tuple[str, str]]
    plain: bool
    """Whether these bans and liftings are all: nobody's SQL left anything half said, no jail and no allowance
    changed."""


def look_up(context: Context, world: World, changed: Collection[tuple[str, str]]) -> Followed:
    """What SQL has now for what changed since the world was as `world`."""
    keys = {(ip, jail) for ip, jail in changed if ip}
    found = context.database.read(lambda t: t.addresses.get({ip for ip, _ in keys})) if keys else []
    rows = tuple(row for row in found if (row.ip, row.jail) in keys)
    allowing = {allowance.scope for allowance in world.allow.allowances if not allowance.protected}
    plain = len(keys) == len(set(changed)) and not any(
        row.whitelisted or is_half_said(row, context.now) for row in rows
    )
    plain = plain and not any((jail.strip() or EVERYWHERE) in allowing for _, jail in keys)
    return Followed(rows, frozenset(keys - {(row.ip, row.jail) for row in rows}), plain)
