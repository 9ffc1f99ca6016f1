"""The kernel as SQL says it should be: what is newly known of SQL's world is put there, and what drifted is mended."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from mcban.core.plan import Rule
from mcban.daemon.bridge import Bridge, tell_restored
from mcban.daemon.damage import Damage
from mcban.daemon.troubles import Troubles
from mcban.errors import DatabaseError, McbanError, RefusedError
from mcban.firewall.base import Firewall, Refusal
from mcban.service import upkeep
from mcban.service.changes import ChangeFeed, Followed, News, look_up
from mcban.service.context import Context, Fault, World
from mcban.service.drift import DriftWatch
from mcban.service.sources import Source, find_sources
from mcban.service.sync import Outcome, UnfinishedError, enforce, sync
from mcban.store.addresses import AddressRecord

log = logging.getLogger("mcban")

SETTLING = 2.0
"""Seconds for which what is missing after jails changed may be the work of the command that changed them: it builds
and takes down sets and rules at the same time."""

ABSENT, FORMER = "chains", "former"
"""What the troubles call it that a chain is not there, and that another backend's rules stay."""


class Enforcement:
    """Enforces `world`, the newest that is known. The `bridge` learns what was done, for when SQL is away; the
    `troubles`, what the kernel refused."""

    def __init__(self, context: Context, bridge: Bridge, troubles: Troubles) -> None:
        self._context, self._bridge, self._troubles = context, bridge, troubles
        self._drift, self._damage = DriftWatch(), Damage(context)
        self._owed = False
        self._rules: Mapping[str, Rule] = {}
        self._rules_at = 0.0
        self._relieved = False
        self.passed_over: tuple[Fault, ...] = ()
        self._feed: ChangeFeed
        self.world: World

    def start(self, error: McbanError, *, readable: bool) -> None:
        """Begin with what is known without SQL (`Bridge.start`). Raises `error` when nothing is."""
        self.world = self._bridge.start(error, readable=readable)

    def begin(self) -> None:
        """Begin with what SQL says, and with what others change from now on. Raises what the database raises."""
        self._feed = self._context.database.glance(ChangeFeed)
        self.take_over(anew=True)
        upkeep.expire(self._context)

    def take_over(self, *, anew: bool = False) -> bool:
        """Take over what plain SQL implies, `anew` without regard to what was known; whether the world is another one
        than it was. Raises what the database raises."""
        before = None if anew else self.world
        self.world, said = upkeep.take_over(self._context, before)
        for line in said:
            log.info("%s", line)
        return self.world != before

    def pass_over(self, noted: range) -> None:
        """These changes were made by this engine, and are no news to it."""
        self._feed.pass_over(noted)

    def catch_up(self) -> None:
        """Let the kernel have what others changed in SQL. Raises as `mend` does; what could not be acted on is told
        again, or a full sync is owed that does what the news call for."""
        news = self._context.database.glance(lambda t: self._feed.poll(t, time.monotonic()))
        if news is None:
            return
        found = self._look_up(news)
        try:
            self._follow(found)
        except DatabaseError:
            raise  # it is told again
        except McbanError:
            self._feed.told(news)  # the full sync is put off while it fails
            raise
        self._feed.told(news)

    def _look_up(self, news: News) -> Followed | None:
        """The bans and liftings that SQL has for what is new there; None when all is to be looked at."""
        found = look_up(self._context, self.world, news.changed)
        if found.plain and not news.missed:
            return found
        if self.take_over() or news.missed:
            return None
        return look_up(self._context, self.world, news.changed)  # as it was settled

    def _follow(self, found: Followed | None) -> None:
        """Let the kernel have what was found, all where that is None. When it raises, a full sync is owed."""
        if found is None:
            self.mend()
            return
        rows = [row for row in found.rows if not self._was_banned_anew(row)]
        try:
            self.note(enforce(self._context, self.world, rows, found.gone))
        except McbanError:
            self.doubt()
            raise

    def _was_banned_anew(self, row: AddressRecord) -> bool:
        """Whether the ban of a row has ended by its time, and there is one that SQL does not know of yet."""
        ended = not row.active or (row.until is not None and row.until <= self._context.now)
        by_time = ended and row.lifted_after is None and not row.whitelisted
        return by_time and row.ip in self._bridge.spared().get(row.jail, ())

    def sources(self) -> list[Source]:
        """What the jails want to have read; those that cannot are told, and are in `passed_over`."""
        book = self.world.book
        sources, faults = find_sources(self._context, book)
        unusable = [fault for fault in book.faults if fault.what not in book.groups and fault.what not in book.jails]
        self.passed_over = (*unusable, *faults)
        self._troubles.find([*book.faults, *faults])
        return sources

    def tend(self) -> None:
        """Mend the kernel if it drifted, or if that is owed. Raises as `mend` does."""
        drifted = self._drift.drifted(self._context, time.monotonic())
        if drifted and not self._owed:
            self.catch_up()  # what a command wrote this instant, and has not brought to the kernel yet, is no meddling
            drifted = self._drift.drifted(self._context, time.monotonic())
        if drifted:
            self.mend(drifted=not self._owed)

    def look(self) -> bool:
        """Look whether the entries are still the same ones; False when `tend` is called for. Raises what the firewall
        and the database raise."""
        outcome = self._drift.look(self._context, time.monotonic())
        if outcome is None:
            return False
        for line in outcome.exchanged:
            log.warning("mended: %s", line)
        self.note(outcome)
        return True

    def mend(self, *, first: bool = False, drifted: bool = False) -> None:
        """A full sync. Where it follows from drift alone, a ban that the kernel lacks is one that somebody took out.

        Raises RefusedError when bans are left that somebody must decide about, UnfinishedError when the kernel took all
        but a part, and what firewall and database raise.
        """
        if drifted:
            self._drift.doubt()
        else:
            self.doubt()
        unfinished = None
        try:
            outcome = sync(self._context, spare=self._bridge.spared)
        except UnfinishedError as error:
            unfinished, outcome = error, error.outcome  # all the rest is in force, and what was owed is done
        self._troubles.forget_refusals(but=outcome.refusals)
        self.note(outcome)
        if unfinished is None:
            self._drift.synced(self._context, outcome, time.monotonic())
        self._owed = False
        if self._bridge.spared():
            self.doubt()
        mended = self._damage.mended(self.world, outcome, whole=unfinished is None)
        self._bridge.synced(self.world, outcome)
        self._tell_absent(outcome.absent)
        if first:
            self._rules = outcome.rules
            tell_restored(self._context, outcome)
        elif self._settled(outcome):
            for line in (*mended, *(outcome.exchanged if drifted else ())):
                log.warning("mended: %s", line)
        if unfinished is not None:
            raise unfinished
        if outcome.withheld:
            raise RefusedError(outcome.withheld)
        if self._context.former is not None and not self._relieved:
            self._relieve(self._context.former)

    def _relieve(self, former: Firewall) -> None:
        """Take out what an engine with another `firewall.backend` left in the kernel, now that all is in force here:
        nobody would lift its bans any more."""
        with closing(former):
            try:
                stands = former.stands()
            except McbanError as error:  # its programs are not installed, say
                log.debug("whether the %s backend left anything cannot be told: %s", former.name, error)
                self._relieved = True
                return
            try:
                if stands:
                    former.remove(())
                    log.info("what an engine with firewall.backend %s left in the kernel is taken out", former.name)
            except McbanError as error:
                why = f"what an engine with firewall.backend {former.name} left in the kernel cannot be taken out"
                self._troubles.failed(FORMER, f"{why}: {error}")
            else:
                self._troubles.succeeded(FORMER)
                self._relieved = True

    def _settled(self, outcome: Outcome) -> bool:
        """Whether what is missing is somebody else's doing: the jails have been the same for a while."""
        if outcome.rules != self._rules:
            self._rules, self._rules_at = outcome.rules, time.monotonic() + SETTLING
        return time.monotonic() >= self._rules_at

    def _tell_absent(self, chains: Sequence[str]) -> None:
        """Say of which chains of the settings there is none: a word that is misspelt there would keep nobody out."""
        if chains:
            why = f"there is no chain {', '.join(chains)} (firewall.chains): no ban holds there; one that comes is used"
            self._troubles.failed(ABSENT, why)
        else:
            self._troubles.succeeded(ABSENT)

    def note(self, outcome: Outcome) -> None:
        """This was done to the kernel, as SQL says."""
        self._drift.put(outcome.plan)
        self._bridge.note(outcome)
        self.tell_refusals(outcome.refusals)

    def tell_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Say what the kernel did not take."""
        if refusals:
            self._drift.doubt()
        self._troubles.refused(refusals)

    def doubt(self) -> None:
        """Have a full sync made by the next `tend`: something happened in SQL, or with it, that may reach far."""
        self._drift.doubt()
        self._owed = True
