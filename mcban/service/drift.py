"""Whether the kernel still holds what it was given, found out without reading all of it: cheap enough for every few
seconds.

The kernel says how many live entries each list has, SQL how many bans should be there. Only when they differ, or a
rule or a list is gone, or once in a while, is everything read and compared.

That the entries are the same ones is looked at beside that, list by list: what has come into a list and gone out of it
since the last time is compared with SQL, and only that. The nftables backend knows for nothing whether somebody else
changed something. ipset tells nobody, so that its lists must be dumped, which costs the kernel some 300 ns for each
entry: with about 100 000 entries each list has its turn within 10 seconds, with more of them less often, so that it
takes no more than SHARE of a core (a million entries: about a minute and a half). That bounds how long an entry that
was exchanged for another goes unnoticed there; entries that are merely gone, or merely too many, are found by counting
within seconds at any size. An end that somebody moved is found when everything is read.
"""

from __future__ import annotations

import time

from mcban.core.address import pack
from mcban.core.ends import Ends
from mcban.core.plan import Plan
from mcban.firewall.base import Turnover
from mcban.service.context import Context, World
from mcban.service.sync import Outcome, enforce, entry_of, lines_of, runs
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction

CLOCK = 2
"""Seconds by which the kernel may be late or early in ending an entry."""
READ_ALL_EVERY = 600.0
"""Seconds after which all is read although nothing seems to be missing: long bans are renewed, and ends that somebody
moved are found."""
COUNT_EVERY = 30.0
"""Seconds after which SQL is asked for its counts although the kernel's have not changed: what changes in SQL is noted
there, and taken over within a second."""
LOOK_EVERY = 4.0
"""Seconds after which a list's entries are looked at again, when that is cheap."""
CHEAP = 0.002
"""Seconds of processor up to which looking at one list is cheap."""
SHARE = 0.0035
"""Of a core, what looking at all the other lists may take."""
MANY = 20_000
"""Entries that came or went, from which on reading everything is quicker than asking for each."""


class DriftWatch:
    """What a full sync left behind, and whether it is still so."""

    def __init__(self) -> None:
        self._aside: dict[str, int] | None = None
        """Of every list, how many of SQL's bans stay out of it; None while everything is to be read."""
        self._read_all_at = 0.0
        self._protected: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._count_at = 0.0
        self._given: dict[str, Ends] = {}
        """What each list was given since it was looked at last."""
        self._back: dict[str, frozenset[str]] = {}
        """What the last full sync put into each list, until that is looked at: a firewall whose turnover is as old as
        its last reading tells it as gone."""
        self._fresh: set[str] = set()
        """The lists that were not looked at since the last full sync."""
        self._look_at: dict[str, float] = {}
        self._costs: dict[str, float] = {}

    def synced(self, context: Context, outcome: Outcome, now: float) -> None:
        """Remember a full sync; one that left something undone is to be followed by another. `now` is any clock's."""
        aim = None if outcome.refusals or outcome.withheld else outcome.aim
        self._aside = aim.aside if aim else None
        self._read_all_at = now + READ_ALL_EVERY
        self._protected = dict(context.host.protected())
        self._count_at = 0.0
        self._given = {jail: Ends(ends) for jail, ends in aim.wanted.entries.items()} if aim else {}
        self._fresh = set(self._given)
        few = outcome.plan.additions <= MANY
        self._back = {jail: frozenset(ends) for jail, ends in outcome.plan.add.items()} if few else {}
        if aim:  # what a list cost that is gone is no reason to look at the others less often
            self._costs = {jail: cost for jail, cost in self._costs.items() if jail in aim.aside}

    def put(self, plan: Plan) -> None:
        """Single entries came and went as SQL says, which need not be asked again."""
        if self._aside is None:
            return  # everything is read next
        for jail in self._given.keys() & plan.add.keys():
            self._given[jail].update(plan.add[jail])
        for jail in self._given.keys() & plan.remove.keys():
            self._given[jail].discard(plan.remove[jail])

    def doubt(self) -> None:
        """Have everything read next time: something changed that may reach far."""
        self._aside = None

    def drifted(self, context: Context, now: float) -> bool:
        """Whether a full sync is called for. Raises what `Firewall.glance` and the database raise."""
        aside = self._aside
        if aside is None or now >= self._read_all_at or context.host.protected() != self._protected:
            return True
        glance = context.firewall.glance(list(aside))
        if not glance.whole:
            return True
        held = {jail: glance.counts.get(jail, 0) for jail in aside}
        if held == self._counts and now < self._count_at:
            return False
        early, late = context.now - CLOCK, context.now + CLOCK
        counts = context.database.read(lambda t: t.addresses.running_counts(aside, early, late))
        for jail, number in aside.items():
            fewest, most = counts.get(jail, (0, 0))
            if not fewest - number <= held[jail] <= most - number:
                return True
        self._counts, self._count_at = held, now + COUNT_EVERY
        return False

    def look(self, context: Context, now: float) -> Outcome | None:
        """Look at the entries of the lists whose turn it is, and set right those that somebody exchanged. None when a
        full sync is called for. Raises what the firewall and the database raise; a full sync is due then, too."""
        aside = self._aside
        if aside is None:
            return Outcome(Plan())
        self._aside = None  # until all is well: what is told once is not told again
        found: dict[str, Turnover] = {}
        for jail in aside:
            # Whatever comes into a list that was counted empty shows in the count.
            if now >= self._look_at.get(jail, 0.0) and self._counts.get(jail) != 0:
                turnover = self._turnover(context, jail, now)
                if turnover is None:
                    return None
                left = self._unexplained(jail, turnover, context.now)
                if left.came or left.went:
                    found[jail] = left
        if sum(len(some.came) + len(some.went) for some in found.values()) > MANY:
            return None
        outcome = self._set_right(context, found) if found else Outcome(Plan())
        if not outcome.refusals:
            self._aside = aside
        return outcome

    def _turnover(self, context: Context, jail: str, now: float) -> Turnover | None:
        """What came and went in a jail's lists; says when its next turn is."""
        before = time.process_time()
        turnover = context.firewall.turnover(jail)
        cost = time.process_time() - before
        if turnover is not None and not turnover.came and not turnover.went:
            self._costs[jail] = cost  # telling what changed takes longer, but is no work of every time
        dear = {jail: cost for jail, cost in self._costs.items() if cost > CHEAP}
        every = max(LOOK_EVERY, sum(dear.values()) / SHARE) if jail in dear else LOOK_EVERY
        self._look_at[jail] = now + every
        return turnover

    def _unexplained(self, jail: str, turnover: Turnover, now: int) -> Turnover:
        """What does not follow from what the list was given. Why an entry went, that can tell only after a full sync,
        which gives all that there should be."""
        given, self._given[jail] = self._given[jail], Ends()
        fresh = jail in self._fresh
        self._fresh.discard(jail)
        back = self._back.pop(jail, frozenset())
        if not turnover.came and not turnover.went:
            return turnover
        ends = given.unpack()
        return Turnover(
            {entry for entry in turnover.came if ends.get(entry, 0) <= now},
            {entry for entry in turnover.went if ends.get(entry, 0) > now and entry not in back}
            if fresh
            else turnover.went,
        )

    def _set_right(self, context: Context, found: dict[str, Turnover]) -> Outcome:
        """Ask SQL for what came and went, and undo what it does not say."""
        asked = {entry for some in found.values() for entry in (*some.came, *some.went)}

        def work(transaction: Transaction) -> tuple[World, list[AddressRecord]]:
            rows = transaction.addresses.get(asked, list(found))
            active = {(row.jail, entry_of(row)) for row in rows if row.active}
            if any((jail, entry) not in active for jail, some in found.items() for entry in some.came):
                # Before it counts as nobody's: somebody's plain SQL may spell it otherwise.
                running = transaction.addresses.running(context.now, found)
                rows += transaction.addresses.get({ip for ip, *_ in running if pack(ip) is None}, list(found))
            return load_world(context, transaction), rows

        world, rows = context.database.read(work)
        running = {(row.jail, entry_of(row)): row for row in rows if runs(context, world, row)}
        near = {(r.jail, entry_of(r)) for r in rows if r.until is not None and abs(r.until - context.now) <= CLOCK}
        lasting, likely = running.keys() - near, running.keys() | near
        lost: list[AddressRecord] = []
        strays: list[tuple[str, str]] = []
        said: list[str] = []
        for jail, some in found.items():
            back = [entry for entry in some.went if (jail, entry) in lasting]
            away = [entry for entry in some.came if (jail, entry) not in likely]
            lost += [running[jail, entry] for entry in back]
            strays += [(entry, jail) for entry in away]
            said += lines_of(jail, back, away)
        outcome = enforce(context, world, lost, strays)
        return Outcome(outcome.plan, exchanged=tuple(said), refusals=outcome.refusals)
