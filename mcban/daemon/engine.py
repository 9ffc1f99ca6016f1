"""The engine: follow logs, record hits, enforce bans, notice what others changed, mend the kernel.

One thread, one loop. It sleeps until a log grows, a signal arrives or something is due.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcban import __version__
from mcban.core.duration import about
from mcban.core.plan import Plan
from mcban.daemon import heap
from mcban.daemon.asking import Asking
from mcban.daemon.bridge import Bridge, describe
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Onlooker, Pending, Reading
from mcban.daemon.signals import Signals, tell_systemd
from mcban.daemon.troubles import Troubles
from mcban.errors import DatabaseError, FirewallError, McbanError, RefusedError, UnavailableError, printable
from mcban.firewall.base import IncompleteError
from mcban.service import upkeep
from mcban.service.changes import ChangeFeed, News, look_up
from mcban.service.claim import BEAT, LostNameError, NodeName
from mcban.service.context import Context, World
from mcban.service.drift import DriftWatch
from mcban.service.memory import Memory
from mcban.service.record import record
from mcban.service.sources import Intake, find_sources
from mcban.service.sync import Outcome, enforce, sync
from mcban.wiring import open_database

log = logging.getLogger("mcban")

READING_SLICE = 0.25
"""Seconds of reading after which what else is due gets its turn."""
COMMIT_EVERY = 1.0
"""Seconds between two commits of how far logs without hits were read."""
LOOK_EVERY = 1.0
"""Seconds between two looks for lists whose turn it is to have their entries looked at."""
PURGE_EVERY = 60.0
RELOAD_AGAIN = 10.0
"""Seconds after which a reload that failed, as without the database, is tried again."""
NEVER = float("inf")
SLOW = 5.0
"""Seconds without an answer from the database after which that is told."""
GLANCE = 0.1
"""Seconds between two looks while the database is away."""
LAST_WORD = 2.0
"""Seconds for which the end waits for one."""
MUCH = 2_000
"""Addresses remembered, from which on forgetting them is worth giving their space back to the system."""


class Engine:
    """One run of the engine, from `start` to `stop`."""

    def __init__(self, context: Context, presence: Presence) -> None:
        self._context, self._presence = context, presence
        self._started = context.now
        self._memory = Memory()
        self._drift = DriftWatch()
        self._purging = upkeep.Purge()
        self._name = NodeName(context, presence.owner())
        self._lost: LostNameError | None = None
        self._ahead = 0
        self._troubles = Troubles()
        self._due: dict[str, float] = {}
        self._bridge = Bridge(context)
        self._signals: Signals | None = None
        self._begun = False
        self._restore_at = 0.0
        self._world: World
        self._feed: ChangeFeed
        self._reading: Reading

    def start(self, unreachable: DatabaseError | None = None, *, patient: bool = False) -> None:
        """Be ready: jails taken over, bans in the kernel, logs open. Raises what makes that impossible.

        Where the database is `unreachable`, or, to one that is `patient`, takes no changes, what is known without it is
        enforced, and the rest follows when it is back; the error is raised when nothing is known.
        """
        self._context.firewall.read(())  # a missing permission is said before anything is changed
        if unreachable is not None:
            self._world = self._bridge.start(unreachable, readable=False)
        else:
            try:
                self._begin()
            except DatabaseError as error:
                if not patient:
                    raise
                self._world = self._bridge.start(error, readable=True)
        self._publish()

    def _begin(self) -> None:
        """Start on a database that answers."""
        context, first = self._context, self._bridge.known is None
        self._feed = context.database.glance(ChangeFeed)
        self._name.take()
        self._tell_clock()
        self._world, said = upkeep.take_over(context)
        self._say(said)
        upkeep.expire(context)
        if first:
            try:
                self._mend(first=True)
            except RefusedError as error:
                log.error("%s", error)  # the bans of the kernel stand; said again until somebody decides
        self._reading = Reading(context, self._find_sources())
        self._begun = True

    @property
    def broken(self) -> list[str]:
        """What could not be read to its end, of what `read_to_end` reads."""
        return self._reading.broken

    def run(self, signals: Signals) -> None:
        """Until a signal says stop. Raises LostNameError when another engine turns out to be this node."""
        self._run(signals)
        if self._lost is not None:
            raise self._lost

    def _run(self, signals: Signals) -> None:
        config = self._context.config
        timers: dict[str, tuple[float, Callable[[], None]]] = {
            "poll": (config.poll_interval, self._poll),
            "commit": (COMMIT_EVERY, self._commit_positions),
            "sync": (float(config.sync_interval), self._tend),
            "look": (LOOK_EVERY, self._look),
            "purge": (PURGE_EVERY, self._purge),
            "beat": (BEAT, self._beat),
            "reload": (RELOAD_AGAIN, self._reload),
        }
        self._signals = signals
        self._context.database.conduct = Asking(self._meanwhile)
        self._context.database.patience = 0.0
        while not self._begun and not signals.stop and self._lost is None:
            self._go_on_without()
        if not self._begun:
            return
        self._reading.warm_up()
        if not self._catching_up(busy=True):
            self._guarded(self._tend)
        now = time.monotonic()
        self._due = {name: now + every for name, (every, _) in timers.items()} | {"reload": NEVER}
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading.fileno(), selectors.EVENT_READ)
            selector.register(signals.fileno(), selectors.EVENT_READ)
            while not signals.stop and self._lost is None:
                if self._bridge.outage is not None:
                    self._go_on_without()
                    continue
                busy = self._guarded(self._read_some) is True
                if signals.reload:
                    signals.reload = False
                    self._troubles.say_faults_again()
                    self._due["reload"] = 0.0
                waiting = self._catching_up(busy=busy)
                # One at a time: between two, who attacks gets his turn.
                name = min(self._due.keys() - waiting, key=self._due.__getitem__)
                if time.monotonic() >= self._due[name] and not signals.stop:
                    every, action = timers[name]
                    self._due[name] = time.monotonic() + every
                    self._guarded(action)
                    continue
                if busy or signals.stop or self._bridge.outage is not None:
                    continue
                selector.select(max(0.0, min(self._due.values()) - time.monotonic()))
                signals.drain()

    def read_to_end(self, signals: Signals, onlooker: Onlooker | None = None) -> bool:
        """Read every log to the end that it has now, and commit: `run --once`. Raises what goes wrong; returns False
        when a signal ended it before. `broken` has what could not be read to its end."""
        for _ in self._reading.take_archives(onlooker):
            self._commit_when_full()
            if signals.stop:
                break
        while not signals.stop:
            while not signals.stop and self._reading.take_block():
                self._commit_when_full()
            if self._reading.at_end:
                break
            self._reading.wait(0.1)
        self._commit()
        upkeep.expire(self._context)
        self._mend()
        self._reading.tell()
        self._name.leave()
        return not signals.stop

    def stop(self, *, keep: bool) -> None:
        """Commit what was read; take everything of ours out of the kernel unless `keep`."""
        tell_systemd("STOPPING=1")
        if self._begun:
            self._guarded(self._commit)
            self._guarded(self._name.leave)
            if self._bridge.outage is None:
                self._guarded(self._poll)  # a copy that is started from should know whom somebody has just let in
            self._bridge.keep(self._reading.positions, last=True)
            self._reading.close()
        self._bridge.close()
        if not keep:
            self._context.firewall.remove(list(self._world.book.jails))
        log.info("stopped%s", "; lists and rules stay in the kernel" if keep else "; lists and rules are taken down")

    # Reading

    def _read_some(self) -> bool:
        """Read for a while; returns whether there may be more at once."""
        if self._reading.pending.offered:
            self._commit()
        end = time.monotonic() + READING_SLICE
        more = True
        while more and time.monotonic() < end and not self._reading.pending.full:
            more = self._reading.take_block()
        if self._reading.pending.urgent:
            self._commit()
        return more

    def _commit_when_full(self) -> None:
        if self._reading.pending.full:
            self._commit()
            if time.monotonic() >= self._due.get("beat", 0.0):
                self._due["beat"] = time.monotonic() + BEAT
                self._name.keep()

    def _commit(self) -> None:
        """Write what is pending, then let the kernel have the bans."""
        pending = self._reading.pending
        if not pending:
            return
        read, finished = list(pending.positions.values()), list(pending.finished.values())
        again, pending.offered = pending.offered, True
        done = record(self._context, pending.hits, read, finished, self._memory, batch=pending.name, again=again)
        self._reading.pending = Pending()
        self._bridge.counted(pending.hits)
        self._feed.pass_over(done.noted)
        if not done.records:
            return
        outcome, problem = Outcome(Plan()), None
        try:
            outcome = enforce(self._context, done.world, done.records)
        except McbanError as error:
            problem = error
        finally:  # told afterwards: the attacker has no time to lose
            if done.bans:
                log.warning("%s", "\n".join(describe(ban, self._context.now) for ban in done.bans))
        self._note(outcome)
        if problem:
            log.error("%s; lists are mended next", problem)
            # Neither the feed nor a count that stayed the same will tell of these bans: everything is to be read.
            self._drift.doubt()
            self._due["sync"] = 0.0

    # While SQL is away, or takes long

    def _go_on_without(self) -> None:
        """One turn of the loop while SQL is away: look out, mend what others flush, try again when that is due."""
        outage = self._bridge.outage
        more = self._watch_alone()
        if outage is not None and time.monotonic() >= outage.again_at:
            outage.again_at = time.monotonic() + 1.0  # whatever stops it; an error puts it off further
            self._guarded(self._try_again)
        elif not more and self._bridge.lookout is not None:
            self._bridge.lookout.wait(GLANCE)
        elif not more:
            time.sleep(GLANCE)

    def _watch_alone(self) -> bool:
        more = self._guarded(self._look_out) is True
        if time.monotonic() >= self._restore_at:
            self._restore_at = time.monotonic() + self._context.config.sync_interval
            self._guarded(self._restore)
            self._publish()
        return more

    def _look_out(self) -> bool:
        reading = self._reading if self._begun else None
        known = self._bridge.known
        positions = reading.positions if reading else known.positions if known else []
        unwritten = reading.pending.hits if reading else ()
        outcome, more = self._bridge.watch(self._world, positions, unwritten, READING_SLICE)
        self._tell_refusals(outcome)
        return more

    def _restore(self) -> None:
        self._tell_refusals(self._bridge.restore())

    def _meanwhile(self, waited: float) -> None:
        """An answer takes long. Nothing here may ask SQL."""
        if self._signals is not None and self._signals.stop and waited > LAST_WORD:
            raise DatabaseError(f"{self._context.database.shown_url} did not answer before the end")
        if waited > SLOW and self._bridge.outage is None:
            self._bridge.failed(f"{self._context.database.shown_url} has not answered for {about(int(SLOW))}")
        if not self._watch_alone():
            time.sleep(0.01)

    def _try_again(self) -> None:
        """Write what waits; that it can be written is the end of the fault."""
        try:
            if not self._begun:
                open_database(self._context)
                self._begin()
            elif self._reading.pending:
                self._commit()
            else:
                self._beat()
        except FirewallError:
            raise
        except LostNameError as error:
            self._lost = error
            return
        except McbanError as error:
            self._bridge.failed(str(error))
            return
        self._bridge.over()
        self._troubles.begin_anew()
        self._drift.doubt()
        self._publish()

    def _catching_up(self, *, busy: bool) -> set[str]:
        """What waits until the logs are read for SQL as far as they were without it: else attackers would be let in
        for a moment."""
        lookout = self._bridge.lookout
        if lookout is not None and lookout.watching and self._bridge.outage is None:
            self._bridge.over()  # an answer took long, and came
            self._drift.doubt()
        if self._bridge.catching_up(more=busy):
            return {"sync", "look", "purge"}
        return set()

    # What is due now and then

    def _commit_positions(self) -> None:
        """And the copy with them, so that it is never far behind."""
        self._commit()
        self._reading.tell()
        trouble = self._bridge.keep(self._reading.positions)
        if trouble:
            raise UnavailableError(trouble)

    def _poll(self) -> None:
        """Take over what others changed."""
        news = self._context.database.glance(lambda t: self._feed.poll(t, time.monotonic()))
        if news is None:
            return
        try:
            self._take_over(news)
        except RefusedError:
            # All is done that may be done before somebody decides: what is due now and then says so from now on.
            self._due["sync"] = 0.0
            self._feed.told(news)
            raise
        self._feed.told(news)  # only now: what could not be acted on is told again

    def _take_over(self, news: News) -> None:
        found = look_up(self._context, self._world, news.changed)
        if not found.plain or news.missed:
            before = self._world
            self._world, said = upkeep.take_over(self._context, before)
            self._say(said)
            changed = self._world != before
            try:
                if changed or news.missed:
                    self._mend()
                    return
            finally:  # the kernel first: to load filters takes a while
                if changed and self._world.book != before.book:
                    self._follow_sources()
            found = look_up(self._context, self._world, news.changed)  # as it was settled
        self._note(enforce(self._context, self._world, found.rows, found.gone))

    def _beat(self) -> None:
        """Say to the other nodes that this one is there, and look at their common clock."""
        self._context.database.look_at_clock()
        self._tell_clock()
        try:
            said = self._name.keep()
        except LostNameError as error:
            self._lost = error
            return
        if said:
            log.error("%s", said)

    def _tell_clock(self) -> None:
        before, self._ahead = self._ahead, self._context.database.ahead
        if before != self._ahead:
            way = "behind" if self._ahead > 0 else "ahead of"
            log.warning(
                "this machine's clock %s: bans begin and end by the database's",
                f"is {about(abs(self._ahead))} {way} the database's" if self._ahead else "is right again",
            )

    def _tend(self) -> None:
        """End bans, mend the kernel if it drifted, say how things are."""
        try:
            upkeep.expire(self._context)
            if self._drift.drifted(self._context, time.monotonic()):
                self._mend(drifted=True)
        finally:
            self._publish()

    def _look(self) -> None:
        """Look whether the entries are still the same ones."""
        outcome = self._drift.look(self._context, time.monotonic())
        if outcome is None:
            self._due["sync"] = 0.0
            return
        for line in outcome.exchanged:
            log.warning("mended: %s", line)
        self._note(outcome)

    def _purge(self) -> None:
        world, (self._world, said) = self._world, upkeep.take_over(self._context, self._world)
        self._say(said)
        if self._world != world:
            self._drift.doubt()
            self._follow_sources()
        self._purging.step(self._context, self._world)
        much = self._memory.size > MUCH
        self._memory.forget()  # what was written here would make it do so anyway: the space is free at once
        if much:
            heap.give_back()

    def _reload(self) -> None:
        """Read jails and filters again: SIGHUP."""
        self._world, said = upkeep.take_over(self._context)
        self._say(said)
        self._follow_sources()
        self._mend()
        self._due["reload"] = NEVER
        log.info("reloaded")
        self._publish()

    def _mend(self, *, first: bool = False, drifted: bool = False) -> None:
        """A full sync. Where it follows from drift alone, a ban that the kernel lacks is one that somebody took out."""
        self._drift.doubt()
        spare = self._bridge.spared()
        outcome = sync(self._context, spare=spare)
        self._drift.synced(self._context, outcome, time.monotonic())
        if spare:
            self._drift.doubt()
        self._bridge.synced(self._world, outcome)
        if not first:
            for line in (*outcome.missing, *(outcome.exchanged if drifted else ())):
                log.warning("mended: %s", line)
        elif outcome.plan.additions and self._context.firewall.enforces:
            count = outcome.plan.additions
            log.info("put %d ban%s into the kernel", count, "" if count == 1 else "s")
        self._troubles.forget_refusals()
        self._note(outcome)
        if outcome.withheld:
            raise RefusedError(outcome.withheld)

    def _note(self, outcome: Outcome) -> None:
        self._bridge.note(outcome)
        self._tell_refusals(outcome)

    def _tell_refusals(self, outcome: Outcome) -> None:
        if outcome.refusals:
            self._drift.doubt()
        self._troubles.refused(outcome.refusals)

    def _follow_sources(self) -> None:
        """The logs that are followed become those that the jails now name."""
        self._reading.use(self._find_sources())

    def _find_sources(self) -> Intake:
        sources, faults = find_sources(self._context, self._world.book)
        self._troubles.find([*self._world.book.faults, *faults])
        return Intake(sources)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Do it; what goes wrong is tried again when it is due next. None when it went wrong.

        One fault often stops several activities: it is said once, and once that it is over.
        """
        name = action.__name__
        try:
            result = action()
        except McbanError as error:
            if self._is_away(error):
                return None
            if isinstance(error, IncompleteError):
                self._note(Outcome(Plan(), refusals=error.refused))
            self._troubles.failed(name, str(error))
            return None
        except Exception as error:  # noqa: BLE001  # what nobody foresaw must not leave a host without its engine
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"a defect of mcban, please report it: {type(error).__name__}: {printable(str(error))} in {name} ("
            said += f"{Path(place.filename).name}:{place.lineno})"
            if self._begun and self._reading.pending.offered:
                self._bridge.failed(said)
                return None
            self._troubles.failed(name, said)
            self._drift.doubt()
            return None
        self._troubles.succeeded(name)
        return result

    def _is_away(self, error: McbanError) -> bool:
        """Whether the error means that nothing can be written. What fails while hits are written is a trouble like
        any other."""
        if self._begun and self._reading.pending.offered:
            self._bridge.failed(str(error))
            return True
        if not isinstance(error, DatabaseError):
            return False
        if self._bridge.outage is None:
            try:
                self._beat()
            except McbanError:
                self._bridge.failed(str(error))
            else:
                return False
        return True

    # What it says

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            log.info("%s", line)

    def _publish(self) -> None:
        self._presence.say(
            {
                "pid": os.getpid(),
                "version": __version__,
                "node": self._context.config.node,
                "since": self._started,
                "at": self._context.now,
                "firewall": self._context.firewall.name,
                "enforces": self._context.firewall.enforces,
                "database": self._bridge.status(),
                **self._troubles.status(),
                "logs": [asdict(status) for status in (self._reading.status() if self._begun else self._bridge.logs())],
            }
        )
