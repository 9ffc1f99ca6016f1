"""What the last batches of hits left known, so that the next need not ask SQL for it again.

It holds only while nobody else writes to the database. That is asked in each transaction (`Edition`), and where it
cannot be told for certain, on a server, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from mcban.core.escalation import Record
from mcban.service.context import Context, World
from mcban.service.world import load_world
from mcban.store.database import Edition, Transaction

MOST = 2_000
"""Addresses that are remembered, counted once for each group: about 1 kB each."""
WORLD_KEPT = 5
"""Seconds for which allowances are believed that depend on more than SQL: DNS names in `ignoreip`."""


class Memory:
    """Addresses' records, `most` of them, and the world, between batches. Not for several threads at once."""

    def __init__(self) -> None:
        self.most = MOST
        self._edition: Edition | None = None
        self._records: dict[str, dict[str, Record]] = {}
        self._world: tuple[World, Mapping[str, str], int] | None = None

    def open(self, edition: Edition | None) -> None:
        """A transaction begins that finds the database in this edition: what was known of another is forgotten."""
        if edition is None or edition != self._edition:
            self.forget()
        self._edition = None  # until it ends well

    def close(self, edition: Edition | None) -> None:
        """All of the transaction's work is done; its commit follows."""
        if edition is None:
            self.forget()
            return
        self._edition = edition.following
        too_many = self.size - self.most
        for records in sorted(self._records.values(), key=len, reverse=True) if too_many > 0 else ():
            for entry in list(islice(records, max(0, too_many))):
                del records[entry]
                too_many -= 1

    @property
    def size(self) -> int:
        """How many addresses are remembered."""
        return sum(map(len, self._records.values()))

    def forget(self) -> None:
        """Know nothing."""
        self._edition = self._world = None
        self._records.clear()

    def world(self, context: Context, transaction: Transaction) -> World:
        """The world as this transaction sees it."""
        protected = context.host.protected()
        if self._world is not None:
            world, at_that_time, loaded = self._world
            if protected == at_that_time and 0 <= context.now - loaded < WORLD_KEPT:
                return world
        world = load_world(context, transaction)
        self._world = (world, dict(protected), context.now)
        return world

    def of(self, group: str) -> dict[str, Record]:
        """The records of the group's addresses that are remembered: to be changed, and added to, in step with what
        the transaction writes.

        Of one with a row in a jail in which it was never banned, nothing may be remembered: `record` takes a first
        ban for a new row.
        """
        return self._records.setdefault(group, {})
