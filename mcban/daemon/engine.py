"""The engine: follow logs, record hits, enforce bans, notice what others changed, mend the kernel.

One thread, one loop. It sleeps until a log grows, a signal arrives or something is due.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable

from mcban.daemon.asking import Asking
from mcban.daemon.bridge import Bridge
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.guard import Guard
from mcban.daemon.membership import Membership
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Reading
from mcban.daemon.recording import Recording
from mcban.daemon.signals import Signals, tell_systemd
from mcban.daemon.statement import Statement
from mcban.daemon.troubles import Troubles
from mcban.daemon.vigil import Vigil
from mcban.errors import DatabaseError, FirewallError, McbanError, NoPermissionError, RefusedError, UnavailableError
from mcban.firewall.base import IncompleteError
from mcban.service import upkeep
from mcban.service.claim import BEAT, LostNameError
from mcban.service.context import Context
from mcban.service.record import ForgottenError, is_written
from mcban.service.sources import Intake
from mcban.wiring import open_database

log = logging.getLogger("mcban")

READING_SLICE = 0.25
"""Seconds of reading after which what else is due gets its turn."""
COMMIT_EVERY = 1.0
"""Seconds between two commits of how far logs without hits were read."""
LOOK_EVERY = 1.0
"""Seconds between two looks for lists whose turn it is to have their entries looked at."""
PURGE_EVERY = 60.0
AGAIN = 10.0
"""Seconds after which a reload that failed, as without the database, is tried again; and so are logs that could not be
followed."""
NEVER = float("inf")
FIRST_PAUSE = 0.25
"""Seconds after which a full sync that failed is tried again; each further time after twice as long, at the most after
`sync_interval`."""
Timer = tuple[float, Callable[[], None]]
"""Seconds between two times, and what is done."""


class Engine:
    """One run of the engine, from `start` to `stop`, which it ends when `signals` say so.

    It knows everybody, and nobody knows it. `Reading` reads, `Recording` writes and enforces what follows,
    `Enforcement` looks after the kernel, `Membership` after this node's name. `Bridge` has what bridges the time
    without SQL, in which `Vigil` looks out. `Guard` does what may fail, `Troubles` has what did, and `Statement` tells.
    """

    def __init__(self, context: Context, presence: Presence, signals: Signals) -> None:
        self._context, self._signals = context, signals
        self._bridge, self._troubles = Bridge(context), Troubles()
        self._reading = Reading(context)
        self._membership = Membership(context, presence.owner())
        self._enforcement = Enforcement(context, self._bridge, self._troubles)
        self._recording = Recording(context, self._reading, self._bridge, self._enforcement)
        self._guarded = Guard(self._reading, self._bridge, self._troubles, self._enforcement, self._membership)
        self._statement = Statement(context, presence, self._reading, self._bridge, self._troubles)
        self._vigil = Vigil(
            context, signals, self._reading, self._bridge, self._enforcement, self._guarded, self._statement
        )
        self._purging = upkeep.Purge()
        self._due: dict[str, float] = {}
        self._pause = 0.0

    def start(self, unreachable: DatabaseError | None = None) -> None:
        """Be ready: jails taken over, bans in the kernel, logs open. Raises what makes that impossible.

        Where the database is `unreachable`, or takes no changes, what is known without it is enforced, and the rest
        follows when it is back; the error is raised when nothing is known.
        """
        self._context.firewall.stands()  # a missing permission is said before anything is changed
        if unreachable is not None:
            self._enforcement.start(unreachable, readable=False)
        else:
            try:
                self._begin()
            except DatabaseError as error:
                self._enforcement.start(error, readable=True)
        self._statement.publish()

    def _begin(self) -> None:
        """Start on a database that answers."""
        first = self._bridge.known is None
        self._membership.join()
        self._enforcement.begin()
        if first:
            try:
                self._enforcement.mend(first=True)
            except (IncompleteError, RefusedError) as error:
                # All other jails are in force, or the bans of the kernel stand until somebody decides.
                self._guarded.failed(self._tend.__name__, error)
        self._reading.begin(Intake(self._enforcement.sources()))

    def run(self) -> None:
        """Until a signal says stop. Raises LostNameError when another engine turns out to be this node."""
        self._context.database.conduct = Asking(self._vigil.wait)
        self._context.database.patience = 0.0
        while not self._reading.begun and self._goes_on():
            self._go_without()
        if self._reading.begun:
            self._warm_up()
            if not self._catching_up(busy=True):
                self._guarded(self._tend)
            self._loop()
        if self._membership.lost is not None:
            raise self._membership.lost

    def _warm_up(self) -> None:
        """What breaks here breaks again, and is told, where it matters."""
        warm_up = self._reading.warm_up
        self._guarded(warm_up, asks=False)
        self._troubles.forget([warm_up.__name__])

    def _goes_on(self) -> bool:
        return not self._signals.stop and self._membership.lost is None

    def _loop(self) -> None:
        signals, timers, now = self._signals, self._timers(), time.monotonic()
        later = {name: now + every for name, (every, _) in timers.items()}
        self._due = {**later, "sources": NEVER, "reload": NEVER, **self._due}
        while self._goes_on():
            if signals.reload:
                self._take_reload()
            if self._bridge.outage is not None:
                self._go_without()
                continue
            busy = self._guarded(self._read_some) is True
            waiting = self._catching_up(busy=busy)
            if signals.stop or self._do_what_is_due(timers, waiting) or busy or self._bridge.outage is not None:
                continue
            self._sleep()

    def _take_reload(self) -> None:
        """Somebody asked for one."""
        self._signals.reload = False
        self._troubles.say_faults_again()
        self._due["reload"] = 0.0
        if self._bridge.outage is not None:
            log.info("jails and filters are read again when the database is back")

    def _go_without(self) -> None:
        """One turn of the loop while SQL is away."""
        if self._vigil.turn():
            self._guarded(self._try_again)

    def _sleep(self) -> None:
        """Until a log grows, a signal arrives or something is due."""
        woken = select.poll()  # each time anew: what reads the logs is another one once they are read again
        for one in (self._reading, self._signals):
            woken.register(one.fileno(), select.POLLIN)
        woken.poll(1000 * max(0.0, min(self._due.values()) - time.monotonic()))
        self._signals.drain()

    def _timers(self) -> dict[str, Timer]:
        config = self._context.config
        return {
            "poll": (config.poll_interval, self._poll),
            "commit": (COMMIT_EVERY, self._commit_positions),
            "sync": (float(config.sync_interval), self._tend),
            "look": (LOOK_EVERY, self._look),
            "purge": (PURGE_EVERY, self._purge),
            "status": (float(config.sync_interval), self._statement.publish),
            "beat": (BEAT, self._membership.beat),
            "sources": (AGAIN, self._follow_sources),
            "reload": (AGAIN, self._reload),
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

    def stop(self, *, keep: bool) -> None:
        """Commit what was read; take everything of ours out of the kernel unless `keep`."""
        tell_systemd("STOPPING=1")
        if self._reading.begun:
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
        end = time.monotonic() + READING_SLICE
        more = True
        while more and time.monotonic() < end and not self._reading.full:
            more = self._reading.take_block()
        if self._reading.pending.urgent:
            self._commit()
        return more or self._reading.fresh

    def _commit(self) -> None:
        """Write what is pending, then let the kernel have the bans. When it returns, a batch that was offered before
        stands no more."""
        again = self._reading.pending.offered
        try:
            if not self._recording.commit():
                self._mend_soon()
        except ForgottenError as error:
            self._read_again()
            if again and self._reading.pending.offered:
                raise DatabaseError(f"{self._context.database.shown_url} is behind the other nodes") from error

    # Without SQL, and after it

    def _try_again(self) -> None:
        """Write what waits; that it can be written is the end of the fault."""
        try:
            if not self._reading.begun:
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
        self._troubles.forget(self._vigil.activities)
        self._enforcement.doubt()
        self._statement.publish()

    def _read_again(self) -> None:
        """If the database lost what it had confirmed, read the logs again from where it knows of them."""
        written = self._reading.written
        if not written or is_written(self._context, written):
            return
        log.warning(
            "%s has lost what it had confirmed, by a crash perhaps, or a backup: the logs are read again from where it "
            "knows of them",
            self._context.database.shown_url,
        )
        self._reading.begin(Intake(self._enforcement.sources()))
        self._bridge.uncounted()

    def _catching_up(self, *, busy: bool) -> set[str]:
        """What waits until the logs are read for SQL as far as they were without it: else attackers would be let in
        for a moment."""
        if self._bridge.watching and self._bridge.outage is None:
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
        book = self._enforcement.world.book
        try:
            self._enforcement.catch_up()
        except (FirewallError, NoPermissionError, RefusedError):
            self._mend_soon()
            raise
        finally:  # the kernel first: to load filters takes a while
            if self._enforcement.world.book != book:
                self._due["sources"] = 0.0

    def _tend(self) -> None:
        """End bans, mend the kernel if it drifted; then it is time to say how things are."""
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
        finally:  # by the loop, when what it raised is noted
            self._due["status"] = 0.0

    def _mend_soon(self) -> None:
        """Have `_tend` done next; while the kernel refuses it, when that is due by itself."""
        if not self._pause:
            self._due["sync"] = 0.0

    def _look(self) -> None:
        """Look whether the entries are still the same ones."""
        if not self._enforcement.look():
            self._mend_soon()

    def _purge(self) -> None:
        self._recording.forget()  # what is written here would make it do so anyway
        if self._enforcement.take_over():
            self._enforcement.doubt()
            self._due["sources"] = 0.0
        self._purging.step(self._context, self._enforcement.world)

    def _reload(self) -> None:
        """Read jails and filters again: SIGHUP. What the kernel refuses of that is no reason to do so once more."""
        self._enforcement.take_over(anew=True)
        self._follow_sources()
        self._due["reload"] = NEVER
        self._enforcement.doubt()
        self._guarded(self._tend)
        log.info("reloaded")

    def _follow_sources(self) -> None:
        """The logs that are followed become those that the jails now name."""
        self._reading.use(Intake(self._enforcement.sources()))
        self._due["sources"] = NEVER
