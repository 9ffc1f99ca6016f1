"""The engine: follow logs, record hits, enforce bans, notice what others changed, mend the kernel.

One thread, one loop. It sleeps until a log grows, a signal arrives or something is due.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable
from dataclasses import asdict

from mcban import __version__
from mcban.core.plan import Plan
from mcban.daemon import heap
from mcban.daemon.asking import Asking
from mcban.daemon.bridge import Bridge, describe
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.guard import Guard
from mcban.daemon.membership import Membership
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Onlooker, Pending, Reading
from mcban.daemon.signals import Signals, tell_systemd
from mcban.daemon.troubles import Troubles
from mcban.daemon.vigil import Vigil
from mcban.errors import DatabaseError, FirewallError, McbanError, NoPermissionError, RefusedError, UnavailableError
from mcban.firewall.base import IncompleteError
from mcban.service import upkeep
from mcban.service.changes import ChangeFeed
from mcban.service.claim import BEAT, LostNameError
from mcban.service.context import Context
from mcban.service.memory import Memory
from mcban.service.record import ForgottenError, is_written, record
from mcban.service.sources import Intake
from mcban.service.sync import Outcome, enforce
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
FIRST_PAUSE = 0.25
"""Seconds after which a full sync that failed is tried again; each further time after twice as long, at the most after
`sync_interval`."""
AT_ONCE = 20_000
"""Hits that are committed together, and addresses remembered between, where logs are only read to their end: in half of
the time that it takes with as little memory as an engine should need for days."""
MUCH = 1_000
"""Addresses remembered, from which on forgetting them is worth giving their space back to the system."""

Timer = tuple[float, Callable[[], None]]
"""Seconds between two times, and what is done."""


class Engine:
    """One run of the engine, from `start` to `stop`."""

    def __init__(self, context: Context, presence: Presence) -> None:
        self._context, self._presence = context, presence
        self._started = context.now
        self._memory = Memory()
        self._purging = upkeep.Purge()
        self._membership = Membership(context, presence.owner())
        self._troubles = Troubles()
        self._bridge = Bridge(context)
        self._enforcement = Enforcement(context, self._bridge, self._troubles)
        self._guarded = Guard(self._bridge, self._troubles, self._enforcement, self._membership, self._batch_stands)
        self._vigil = Vigil(context, self._bridge, self._enforcement, self._guarded, self._publish)
        self._due: dict[str, float] = {}
        self._pause = 0.0
        self._begun = False
        self._feed: ChangeFeed
        self._reading: Reading

    def start(self, unreachable: DatabaseError | None = None, *, patient: bool = False) -> None:
        """Be ready: jails taken over, bans in the kernel, logs open. Raises what makes that impossible.

        Where the database is `unreachable`, or, to one that is `patient`, takes no changes, what is known without it is
        enforced, and the rest follows when it is back; the error is raised when nothing is known.
        """
        self._context.firewall.read(())  # a missing permission is said before anything is changed
        if unreachable is not None:
            self._enforcement.start(unreachable, readable=False)
        else:
            try:
                self._begin()
            except DatabaseError as error:
                if not patient:
                    raise
                self._enforcement.start(error, readable=True)
        self._publish()

    def _begin(self) -> None:
        """Start on a database that answers."""
        context, first = self._context, self._bridge.known is None
        self._feed = context.database.glance(ChangeFeed)
        self._membership.join()
        self._enforcement.take_over(anew=True)
        upkeep.expire(context)
        if first:
            try:
                self._enforcement.mend(first=True)
            except RefusedError as error:
                log.error("%s", error)  # the bans of the kernel stand; said again until somebody decides
            except IncompleteError as error:
                self._guarded.failed(self._tend.__name__, error)  # all other jails are in force
        self._reading = self._vigil.reading = Reading(context, Intake(self._enforcement.sources()))
        self._begun = True

    @property
    def passed_over(self) -> list[str]:
        """What could not be read, or not to its end, of what `read_to_end` reads: jails, and archives."""
        return [*map(str, self._enforcement.passed_over), *self._reading.broken]

    def run(self, signals: Signals) -> None:
        """Until a signal says stop. Raises LostNameError when another engine turns out to be this node."""
        self._vigil.signals = signals
        self._context.database.conduct = Asking(self._vigil.wait)
        self._context.database.patience = 0.0
        while not self._begun and self._goes_on(signals):
            self._vigil.turn(self._try_again)
        if self._begun:
            self._reading.warm_up()
            if not self._catching_up(busy=True):
                self._guarded(self._tend)
            self._loop(signals)
        if self._membership.lost is not None:
            raise self._membership.lost

    def _goes_on(self, signals: Signals) -> bool:
        return not signals.stop and self._membership.lost is None

    def _loop(self, signals: Signals) -> None:
        timers, now = self._timers(), time.monotonic()
        self._due = {name: now + every for name, (every, _) in timers.items()} | {"reload": NEVER}
        while self._goes_on(signals):
            if self._bridge.outage is not None:
                self._vigil.turn(self._try_again)
                continue
            busy = self._guarded(self._read_some) is True
            if signals.reload:
                signals.reload = False
                self._troubles.say_faults_again()
                self._due["reload"] = 0.0
            waiting = self._catching_up(busy=busy)
            if signals.stop or self._do_what_is_due(timers, waiting) or busy or self._bridge.outage is not None:
                continue
            self._sleep(signals)

    def _sleep(self, signals: Signals) -> None:
        """Until a log grows, a signal arrives or something is due."""
        woken = select.poll()  # each time anew: what reads the logs is another one once they are read again
        for one in (self._reading, signals):
            woken.register(one.fileno(), select.POLLIN)
        woken.poll(1000 * max(0.0, min(self._due.values()) - time.monotonic()))
        signals.drain()

    def _timers(self) -> dict[str, Timer]:
        config = self._context.config
        return {
            "poll": (config.poll_interval, self._poll),
            "commit": (COMMIT_EVERY, self._commit_positions),
            "sync": (float(config.sync_interval), self._tend),
            "look": (LOOK_EVERY, self._look),
            "purge": (PURGE_EVERY, self._purge),
            "beat": (BEAT, self._membership.beat),
            "reload": (RELOAD_AGAIN, self._reload),
        }

    def _do_what_is_due(self, timers: dict[str, Timer], waiting: set[str]) -> bool:
        """Do what is due for longest, if it is not `waiting`; whether there was anything. One at a time: between two,
        who attacks gets his turn."""
        name = min(self._due.keys() - waiting, key=self._due.__getitem__)
        if time.monotonic() < self._due[name]:
            return False
        every, action = timers[name]
        self._due[name] = time.monotonic() + every
        self._guarded(action)
        return True

    def read_to_end(self, signals: Signals, onlooker: Onlooker | None = None) -> bool:
        """Read every log to the end that it has now, and commit: `run --once`. Raises what goes wrong; returns False
        when a signal ended it before. `passed_over` has what could not be."""
        self._reading.group_size = self._memory.most = AT_ONCE
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
        self._enforcement.mend()
        self._reading.tell()
        self._membership.leave()
        return not signals.stop

    def stop(self, *, keep: bool) -> None:
        """Commit what was read; take everything of ours out of the kernel unless `keep`."""
        tell_systemd("STOPPING=1")
        if self._begun:
            self._guarded(self._commit)
            self._guarded(self._membership.leave)
            if self._bridge.outage is None:
                self._guarded(self._poll)  # a copy that is started from should know whom somebody has just let in
            self._bridge.keep(self._reading.positions, last=True)
            self._reading.close()
        self._bridge.close()
        if not keep:
            self._context.firewall.remove(list(self._enforcement.world.book.jails))
        log.info("stopped%s", "; lists and rules stay in the kernel" if keep else "; lists and rules are taken down")

    # Reading

    def _read_some(self) -> bool:
        """Read for a while; returns whether there may be more at once."""
        if self._reading.pending.offered:
            self._commit()
        reading, end = self._reading, time.monotonic() + READING_SLICE
        more = True
        while more and time.monotonic() < end and not reading.full:
            more = reading.take_block()
        if reading.pending.urgent:
            self._commit()
        return more or reading is not self._reading

    def _batch_stands(self) -> bool:
        """Whether writing what is pending was tried and nobody knows yet how that went."""
        return self._begun and self._reading.pending.offered

    def _commit_when_full(self) -> None:
        if self._reading.full:
            self._commit()
            if time.monotonic() >= self._due.get("beat", 0.0):
                self._due["beat"] = time.monotonic() + BEAT
                self._membership.keep()

    def _commit(self) -> None:
        """Write what is pending, then let the kernel have the bans."""
        pending = self._reading.pending
        if not pending:
            return
        read, finished = list(pending.positions.values()), list(pending.finished.values())
        again, pending.offered = pending.offered, True
        name, before = pending.name, self._reading.written
        try:
            done = record(
                self._context, pending.hits, read, finished, self._memory, batch=name, again=again, after=before
            )
        except ForgottenError as error:
            if self._vigil.signals is None:  # one pass: what it has read is not read again by it
                raise DatabaseError(f"{error}, by a crash perhaps, or a backup: run this again") from None
            self._read_again()
            return
        self._reading.pending, self._reading.written = Pending(), name
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
        self._enforcement.note(outcome)
        if problem:
            log.error("%s; lists are mended next", problem)
            # Neither the feed nor a count that stayed the same will tell of these bans: everything is to be read.
            self._enforcement.doubt()
            self._mend_soon()

    def _try_again(self) -> None:
        """Write what waits; that it can be written is the end of the fault."""
        try:
            if not self._begun:
                open_database(self._context)
                self._begin()
            elif self._reading.pending:
                self._commit()
            else:
                self._membership.beat()
                self._read_again()
        except FirewallError:
            raise
        except LostNameError as error:
            self._membership.lost = error
            return
        except McbanError as error:
            self._bridge.failed(str(error))
            return
        self._over()

    def _over(self) -> None:
        """SQL can be asked again: what was done without it is looked at, and what failed is tried."""
        self._bridge.over()
        self._troubles.begin_anew()
        self._enforcement.doubt()
        self._publish()

    def _read_again(self) -> None:
        """If the database lost what it had confirmed, read the logs again from where it knows of them."""
        before = self._reading
        if not before.written or is_written(self._context, before.written):
            return
        log.warning(
            "%s has lost what it had confirmed, by a crash perhaps, or a backup: the logs are read again from where it "
            "knows of them",
            self._context.database.shown_url,
        )
        self._reading = self._vigil.reading = Reading(self._context, Intake(self._enforcement.sources()))
        before.close()
        self._bridge.uncounted()

    def _catching_up(self, *, busy: bool) -> set[str]:
        """What waits until the logs are read for SQL as far as they were without it: else attackers would be let in
        for a moment."""
        lookout = self._bridge.lookout
        if lookout is not None and lookout.watching and self._bridge.outage is None:
            self._over()  # an answer took long, and came
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
        enforcement, book = self._enforcement, self._enforcement.world.book
        found = enforcement.look_up(news)
        try:
            enforcement.follow(found)
        except DatabaseError:
            raise  # it is told again
        except McbanError:
            # The full sync that is owed now does what these news call for, and is put off while it fails.
            self._mend_soon()
            self._feed.told(news)
            raise
        finally:  # the kernel first: to load filters takes a while
            if enforcement.world.book != book:
                self._follow_sources()
        self._feed.told(news)  # only now: what could not be acted on is told again

    def _tend(self) -> None:
        """End bans, mend the kernel if it drifted, say how things are."""
        try:
            upkeep.expire(self._context)
            self._enforcement.tend()
            self._pause = 0.0
        except (FirewallError, NoPermissionError):
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), float(self._context.config.sync_interval))
            self._due["sync"] = time.monotonic() + self._pause
            raise
        except RefusedError:
            self._pause = 0.0  # the kernel took all that it was given
            raise
        finally:
            self._publish()

    def _mend_soon(self) -> None:
        """Have `_tend` done next; while the kernel refuses it, when that is due by itself."""
        if not self._pause:
            self._due["sync"] = 0.0

    def _look(self) -> None:
        """Look whether the entries are still the same ones."""
        if not self._enforcement.look():
            self._mend_soon()

    def _purge(self) -> None:
        much = self._memory.size > MUCH
        self._memory.forget()  # what is written here would make it do so anyway
        if much:
            heap.give_back()  # before others take places among what is free now
        if self._enforcement.take_over():
            self._enforcement.doubt()
            self._follow_sources()
        self._purging.step(self._context, self._enforcement.world)

    def _reload(self) -> None:
        """Read jails and filters again: SIGHUP."""
        self._enforcement.take_over(anew=True)
        self._follow_sources()
        self._enforcement.mend()
        self._due["reload"] = NEVER
        log.info("reloaded")
        self._publish()

    def _follow_sources(self) -> None:
        """The logs that are followed become those that the jails now name."""
        self._reading.use(Intake(self._enforcement.sources()))

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
