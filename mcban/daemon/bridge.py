"""What bridges the time in which SQL is away: what was known last, a copy of that, and somebody on the lookout."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcban.core.allowlist import AllowList
from mcban.core.duration import about, lasting
from mcban.core.model import FOREVER, Ban, Hit, Position
from mcban.core.plan import Plan
from mcban.daemon.damage import Damage
from mcban.daemon.lookout import Lookout
from mcban.errors import DatabaseError, DataError, McbanError
from mcban.logs import LogStatus
from mcban.service.context import Context, World
from mcban.service.drift import CLOCK
from mcban.service.known import Known, ask, known_by
from mcban.service.local_copy import Copied, LocalCopy, age_of, read_copy
from mcban.service.sources import Intake, find_sources
from mcban.service.sync import Outcome, UnfinishedError, restore
from mcban.service.world import allowed_here

log = logging.getLogger("mcban")

LONGEST_PAUSE = 10.0
"""Seconds between two tries while the database is away, at the most."""
REMEMBERED = 5_000
"""Hits that were counted last and are still known when SQL goes, so that those who were half-way are not forgotten."""
CATCH_UP = 60.0
"""Seconds for which bans that SQL has not confirmed are left alone while the logs are read again, at the most."""
JUST_NOW = 60
"""Seconds since the beginning of a ban, up to which its length is the jail's; later it is what is left of it."""
NOTHING = Outcome(Plan())
"""There was nothing to do."""


@dataclass(slots=True)
class Outage:
    """SQL is away: why, and since when, in seconds since the epoch and by a steady clock."""

    error: str
    since: int
    began: float = field(default_factory=time.monotonic)
    again_at: float = 0.0
    _pause: float = 0.1

    def put_off(self) -> None:
        """It still is: the next try comes later than the last one did."""
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self.again_at = time.monotonic() + self._pause


class _Counted:
    """Hits of one batch, in one piece of memory: as objects they would lie among the short-lived ones of later batches
    and keep the allocator from giving those back."""

    __slots__ = ("_packed", "size")

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.size = len(hits)
        self._packed = json.dumps(hits).encode()

    def unpack(self) -> list[Hit]:
        return [Hit(*values) for values in json.loads(self._packed)]


class Bridge:
    """From the last that SQL said to the next."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.known: Known | None = None
        self._lost = False
        """Whether that is of a database that lost what the kernel holds."""
        self.outage: Outage | None = None
        self._lookout: Lookout | None = None
        self._counted: deque[_Counted] = deque()
        self._caught_up_by = 0.0
        self._behind = False
        self._copied: Copied | None = None
        """What the engine was started from, until SQL was met."""
        config, database = context.config, context.database
        self._database = " ".join(sorted(database.nodes))
        self._damage = Damage(context)
        self._copy = LocalCopy(config.state_dir, self._database)
        # An embedded database is a file of this machine itself: where it cannot be read, a copy beside it cannot.
        self._copies = config.local_copy and database.sqlite_file is None

    # While SQL is there

    def synced(self, world: World, outcome: Outcome) -> None:
        """A full sync was made, of all that the kernel takes. A database that lost what the kernel holds is nothing to
        go by, unless nothing else is known, and no copy is made of it. Raises what the database raises then."""
        if outcome.aim is not None:
            self._know(known_by(world, outcome.aim))
        elif self.known is None:
            self.known, self._lost = ask(self._context), True

    def _know(self, known: Known) -> None:
        """This is what SQL says. What was done without it before counts no more, once all was read for SQL."""
        self.known, self._lost = known, False
        self._copy.replace()
        if self._lookout is not None and not self.watching and not self._behind:
            for entry, jail in self._lookout.unconfirmed(known):
                log.info("%s in %s was banned while the database was away, which it does not confirm", entry, jail)
            self._lookout = None

    def note(self, outcome: Outcome) -> None:
        """Single bans were put into the kernel, or taken out, as SQL says."""
        if self.known is not None:
            self.known.note(outcome.plan)
            self._copy.note(outcome.plan)
        if self._lookout is not None and (self._behind or self.watching):
            self._lookout.note(outcome.plan)
        gone = {entry for entries in outcome.plan.remove.values() for entry in entries}
        if gone:  # what they did is not held against them any more
            left = ([hit for hit in counted.unpack() if hit.ip not in gone] for counted in self._counted)
            self._counted = deque(_Counted(hits) for hits in left if hits)

    def counted(self, hits: Sequence[Hit]) -> None:
        """These were written."""
        if hits:
            self._counted.append(_Counted(hits[-REMEMBERED:]))
            while sum(counted.size for counted in self._counted) - self._counted[0].size >= REMEMBERED:
                self._counted.popleft()

    def uncounted(self) -> None:
        """What was written is to be written again."""
        self._counted.clear()

    def keep(self, positions: Iterable[Position], *, last: bool = False) -> str:
        """Let the copy say what SQL says; why that cannot be, in words, or an empty text."""
        if not self._copies:
            self._copy.drop()
        elif self.known is not None and not self._lost and self.outage is None:
            self._copy.flush(self.known, positions, time.monotonic(), last=last)
        return self._copy.trouble

    # While it is away

    def failed(self, error: str) -> None:
        """SQL cannot be used. Said once, until it is over."""
        if self.outage is None:
            self.outage = Outage(error, self._context.now)
            log.error("%s; meanwhile bans go on by what is known, and what is read counts when it is back", error)
        self.outage.error = error
        self.outage.put_off()

    def over(self) -> None:
        """It can be used again: what was read ahead is read for SQL now, and until then nobody is let in."""
        if self.outage is not None:
            length = about(int(time.monotonic() - self.outage.began))
            log.info("over: %s (it took %s)", self.outage.error, length)
            self.outage = self._copied = None
        if self._lookout is not None:
            self._lookout.close()
            self._behind, self._caught_up_by = True, time.monotonic() + CATCH_UP

    def catching_up(self, *, more: bool) -> bool:
        """Whether bans that SQL does not know of are to stay in the kernel for now: there is `more` to be read."""
        self._behind = self._lookout is not None and (
            self.outage is not None or (more and time.monotonic() < self._caught_up_by)
        )
        return self._behind

    def spared(self) -> dict[str, dict[str, int]]:
        """By jail the bans that stay in the kernel, with their ends, though SQL may not know of them yet."""
        lookout = self._lookout  # it may have begun while a full sync waited for SQL
        return lookout.bans if lookout is not None and (self._behind or self.watching) else {}

    @property
    def watching(self) -> bool:
        """Whether somebody is on the lookout."""
        return self._lookout is not None and self._lookout.watching

    def set_out(
        self,
        world: World,
        positions: Iterable[Position],
        unwritten: Iterable[Hit] = (),
        old: bool | Collection[str] = True,
    ) -> None:
        """Have somebody on the lookout, by the newest `world` that is known, from these `positions` on. `old` tells
        the logs without a position of which nothing is to be read that is there already."""
        if self.known is None:
            return
        intake = Intake(find_sources(self._context, world.book)[0])
        known = replace(self.known, world=world)  # newer than the last full sync, if that was never finished
        counted = [hits.unpack() for hits in self._counted]
        self._lookout = Lookout(self._context, known, intake, positions, counted, unwritten, self._lookout, old)

    def watch(self, seconds: float) -> tuple[Outcome, bool]:
        """Look out for so long; how putting bans into the kernel went, and whether there may be more to be read. Raises
        what the firewall raises."""
        if self._lookout is None:
            time.sleep(min(seconds, 0.1))
            return NOTHING, False
        bans, more = self._lookout.watch(seconds)
        try:
            outcome = self._lookout.enforce(bans)
        finally:  # told afterwards: the attacker has no time to lose
            if bans:
                log.warning("%s", "\n".join(f"{describe(ban, self._context.now)}, by what is known" for ban in bans))
        return outcome or NOTHING, more or bool(bans)

    def wait(self, seconds: float) -> None:
        """Return when something happened to a log, or after so long."""
        if self._lookout is not None and self._lookout.watching:
            self._lookout.wait(seconds)
        else:
            time.sleep(seconds)

    def restore(self) -> Outcome:
        """Put back what somebody took out of the kernel, as far as it is known. Raises what the firewall raises."""
        if self.known is None:
            return NOTHING
        aim = self._lookout.aim() if self._lookout is not None else self.known.aim(self._context)
        glance = self._context.firewall.glance(list(aim.wanted.entries))
        lasting = self._context.now + CLOCK
        fewest = {jail: sum(end > lasting for end in ends.values()) for jail, ends in aim.wanted.entries.items()}
        if glance.whole and all(glance.counts.get(jail, 0) >= number for jail, number in fewest.items()):
            return NOTHING
        unfinished = None
        try:
            done = restore(self._context, aim)
        except UnfinishedError as error:
            unfinished, done = error, error.outcome
        mended = self._damage.mended(self.known.world, done, whole=unfinished is None)
        for line in (*mended, *done.exchanged):
            log.warning("mended while the database is away: %s", line)
        if unfinished is not None:
            raise unfinished
        return done

    def start(self, error: McbanError, *, readable: bool) -> World:
        """Put into the kernel what is known without SQL, or by reading alone where it is `readable`: nothing is lifted.
        The world that it was. Raises `error` when nothing is known."""
        context = self._context
        try:
            self.known = ask(context) if readable else None
        except McbanError:
            self.known = None
        if self.known is not None:
            said = "the bans are those that it says"
        else:
            self._copied = self._read_copy(error) if self._copies else None
            if self._copied is None:
                raise error from None
            self.known = self._copied.known
            said = f"jails and bans are those of the copy of {about(max(0, context.now - self._copied.as_of))} ago"
        allow = AllowList([*self.known.world.allow.allowances, *allowed_here(context)])
        self.known = replace(self.known, world=replace(self.known.world, allow=allow))
        self._drop_allowed(self.known)
        self.outage = Outage(str(error), context.now)
        log.error("%s; started without it: %s", error, said)
        try:
            done = restore(context, self.known.aim(context))
        except UnfinishedError as unfinished:  # what is not in force is told by the first look for what is gone
            done = unfinished.outcome
        tell_restored(context, done)
        return self.known.world

    def _read_copy(self, error: McbanError) -> Copied | None:
        try:
            return read_copy(self._context.config.state_dir, self._database)
        except DataError as damage:
            raise DatabaseError(f"{error}; {damage}") from None

    def _drop_allowed(self, known: Known) -> None:
        """Who is allowed by settings or machine since."""
        for name, ends in known.ends().items():
            jail = known.world.book.jails.get(name)
            known.bans[name].discard(e for e in ends if jail is None or known.world.allow.touching(e, jail) is not None)

    # What it says

    @property
    def trouble(self) -> str:
        """Why SQL is away, an empty text while it is there."""
        return self.outage.error if self.outage else ""

    def status(self) -> dict[str, Any]:
        """For `mcban status`: times in seconds since the epoch."""
        config, outage = self._context.config, self.outage
        age = age_of(config.state_dir, self._context.now) if self._copies else None
        return {
            "url": self._context.database.shown_url,
            "away_since": outage.since if outage else None,
            "trouble": self.trouble,
            "started_from_copy_of": self._copied.as_of if self._copied else None,
            "copy_of": None if age is None else self._context.now - age,
        }

    def logs(self) -> list[LogStatus]:
        """How each log is that is looked at."""
        return self._lookout.status() if self._lookout is not None else []

    def close(self) -> None:
        """The end."""
        if self._lookout is not None:
            self._lookout.close()


def tell_restored(context: Context, outcome: Outcome) -> None:
    """What the kernel has since the engine started."""
    count = outcome.done.additions
    if count and context.firewall.enforces:
        log.info("put %d ban%s into the kernel", count, "" if count == 1 else "s")


def describe(ban: Ban, now: int) -> str:
    """A ban in one line, with its reason."""
    if ban.until >= FOREVER:
        length = "for ever"
    elif now - ban.since < JUST_NOW:
        length = lasting(ban.until - ban.since)
    elif ban.until <= now:
        length = f"for {about(ban.until - ban.since)}, over by now"
    else:
        length = f"for {about(ban.until - now)}"
    return f"{'blacklist' if ban.blacklisted else 'ban'} {ban.ip} in {ban.jail} {length}: {ban.reason}"
