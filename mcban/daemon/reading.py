"""Reading the logs of the jails: lines become hits, which wait with the positions of their logs to be written.

When they are written, and what follows from them, is the engine's business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mcban.core.model import Hit, Position
from mcban.errors import McbanError
from mcban.logs import Block, InDoubtError, LogReader, LogState, LogStatus, find_archives, read_archive, size_of
from mcban.service.context import Context
from mcban.service.sources import Intake

log = logging.getLogger("mcban")

GROUP_SIZE = 2_000
"""Hits that are committed together at the most: a bound for memory and for the time that others wait for the lock."""

FileKey = tuple[str, int, int]


@dataclass(slots=True)
class Pending:
    """What was read and is not committed yet, in its order."""

    hits: list[Hit] = field(default_factory=list)
    positions: dict[FileKey, Position] = field(default_factory=dict)
    finished: dict[FileKey, Position] = field(default_factory=dict)
    name: str = field(default_factory=lambda: os.urandom(8).hex())
    """Stands in SQL with what was written, so that it can be found there."""
    offered: bool = False
    """Whether writing it was tried: nothing more may come into it, for nobody may know whether it was written."""

    def __bool__(self) -> bool:
        return bool(self.hits or self.positions or self.finished)

    @property
    def urgent(self) -> bool:
        """Whether there is more than how far logs without hits were read."""
        return bool(self.hits or self.finished)


def _key(position: Position) -> FileKey:
    return position.path, position.device, position.inode


class Onlooker(Protocol):
    """Somebody who watches how far `run --once` is."""

    def expect(self, total: int) -> None:
        """So many bytes are to be read."""

    def read(self, count: int) -> None:
        """So many more of them were."""

    def matched(self, block: bytes) -> None:
        """These lines are dealt with."""


class Reading:
    """The logs that an intake wants, read on from the positions that SQL has; nothing until it is `begun`.

    `pending` is for whoever commits it; `broken` has what could not be read to its end.
    """

    def __init__(self, context: Context, group_size: int = GROUP_SIZE) -> None:
        self._context, self._group_size = context, group_size
        self._intake = Intake(())
        self._reader = LogReader(())
        self._told: dict[str, LogState] = {}
        self._remarked: tuple[str, ...] = ()
        self._onlooker: Onlooker | None = None
        self._taken: dict[FileKey, Position] = {}
        self.begun = False
        self.fresh = False
        """Whether nothing was looked for yet since it began."""
        self.pending = Pending()
        self.written = ""
        """The name of the last batch that was committed with positions."""
        self.broken: list[str] = []

    def begin(self, intake: Intake) -> None:
        """Read what `intake` wants, from where SQL knows of it. Begun anew, it forgets how far it was, and what is
        pending: that is read again. Raises what the database raises; then nothing is another."""
        config, database = self._context.config, self._context.database
        positions = database.read(lambda t: t.positions.all(config.node))
        reader = LogReader(intake.patterns, positions, from_end=config.read_new_logs == "end")
        self._reader.close()
        self._reader, self._intake = reader, intake
        self._taken = {_key(position): position for position in positions}
        self.pending, self.written = Pending(), ""
        self.begun = self.fresh = True

    def committed(self) -> None:
        """What was pending is in SQL."""
        self.pending, self.written = Pending(), self.pending.name

    def close(self) -> None:
        """Close every log. Nothing else may be called afterwards."""
        self._reader.close()

    def fileno(self) -> int:
        """A descriptor that is readable when something happened to a log."""
        return self._reader.fileno()

    def wait(self, timeout: float) -> None:
        """Return when something happened to a log, or after `timeout` seconds."""
        self._reader.wait(timeout)

    @property
    def at_end(self) -> bool:
        """Whether every log was read up to the size that it had when it was opened."""
        return self._reader.at_end

    @property
    def full(self) -> bool:
        """Whether what is pending must be committed before more is read."""
        return len(self.pending.hits) >= self._group_size

    def status(self) -> list[LogStatus]:
        """How each log is."""
        return self._reader.status()

    @property
    def positions(self) -> list[Position]:
        """How far everything was read, be it committed or not."""
        return list(self._taken.values())

    @property
    def opened(self) -> set[str]:
        """The logs that are there, and have something in them. Others are new whenever they come."""
        return {status.path for status in self._reader.status() if status.size}

    def use(self, intake: Intake) -> None:
        """From now on read what `intake` wants, by its filters."""
        self._intake = intake
        self._reader.set_patterns(intake.patterns)

    def warm_up(self) -> None:
        """Make now what is made at its first use: the first attacker would gain a twentieth of a second."""
        for status in self._reader.status():
            patterns = self._reader.patterns_of(status.path)
            if patterns:
                self._intake.hits(status.path, b"\n", patterns, self._context.own_now)

    def take_block(self) -> bool:
        """Take the next block into what is pending; False when there is nothing to read at the moment."""
        self.fresh = False
        block = self._reader.read()
        if block is None:
            return self._reader.amid_line
        if self._onlooker:
            self._onlooker.read(len(block.data))
        self.take(block, self._reader.patterns_of(block.path))
        return True

    def take_archives(self, onlooker: Onlooker | None) -> Iterator[None]:
        """Take what is new in the compressed logs that jails name, stopping after each block: they are not followed,
        since nobody writes there. `onlooker` watches this and all that follows."""
        context, patterns = self._context, self._intake.patterns
        self._onlooker = onlooker
        archives = find_archives(patterns)
        logs = [pattern for pattern in patterns if pattern not in archives]
        if archives:
            self._reader.set_patterns(logs)
        if onlooker:
            unread = sum(status.lag for status in self._reader.status())
            onlooker.expect(unread + sum(size_of(path) or 0 for path in archives))
        if archives and context.config.read_new_logs == "end":
            log.info('archives are not read: read_new_logs is "end", and they hold what was before')
            return
        known = context.database.read(lambda t: t.positions.all(context.config.node)) if archives else []
        for path in archives:
            read: Position | None = None
            try:
                for block in read_archive(path, known, logs, onlooker.read if onlooker else None):
                    self.take(block, {path})
                    read = block.position
                    yield
            except InDoubtError as error:
                log.warning("%s", error)
            except McbanError as error:
                log.error("%s", error)
                self.broken.append(str(error))
            known += [read] if read else []  # beside what its row said before: that may be another archive's by now

    def tell(self) -> None:
        """Say which logs are waited for, once for each change, and pass warnings on."""
        for status in self._reader.status():
            if self._told.get(status.path) != status.state:
                self._told[status.path] = status.state
                level = logging.ERROR if status.state is LogState.UNREADABLE else logging.INFO
                why = f" ({status.reason})" if status.reason else ""
                log.log(level, "log %s: %s%s", status.path, status.state, why)
        remarks = [remark for remark in self._intake.remarks if remark not in self._remarked]
        self._remarked = self._intake.remarks
        for line in [*remarks, *self._reader.take_warnings(), *self._intake.warnings]:
            log.warning("%s", line)
        self._intake.warnings.clear()

    def take(self, block: Block, patterns: Collection[str]) -> None:
        """Take a block, to which `patterns` led, into what is pending."""
        if block.data:
            now, ahead = self._context.own_now, self._context.database.ahead
            self.pending.hits += self._intake.hits(block.path, block.data, patterns, now, ahead)
        # A new file may have the number of one that is to be forgotten: its position takes the place of the old one.
        self.pending.finished.pop(_key(block.position), None)
        self.pending.positions[_key(block.position)] = self._taken[_key(block.position)] = block.position
        for position in block.finished:
            self.pending.finished[_key(position)] = position
            self._taken.pop(_key(position), None)
        if self._onlooker:
            self._onlooker.matched(block.data)
