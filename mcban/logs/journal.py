"""The systemd journal as a log: entries from a cursor that SQL remembers, each once.

It is read through `journalctl`, a child process for each thing that filters ask of it (their `journalmatch`). The
libraries were weighed: `cysystemd` (wheels with a libsystemd of their own) and `systemd-python` (C and headers, or
Debian's package). journalctl was taken, since
- a journal file that is damaged, or cut while it is mapped, ends the process that reads it: that may not be the engine;
- it is the version that wrote the files. A library's own libsystemd passes over files that are newer than itself,
  without a word, and nobody would be banned;
- it is wherever the journal is, so that mcban needs nothing more, and the `journal` extra of the package is empty;
- its export format is documented and stable, and reading it takes no more time: 200 000 entries in 1.9 s of journalctl,
  on a core of its own, and 2.3 s here; 3.6 s in `cysystemd`, before a line is made of them.
One child for each match and not one for all: the journal has an index by field, so that each child looks at its own
entries only; each has a cursor of its own, committed with its own hits; and no line reaches a filter that did not ask.

Three children follow one another. The first is only for a start at the journal's end: it gives the last entry there is.
The second reads on from the cursor to the end, and ends. The third follows. Both of these begin *at* the cursor,
because what journalctl does behind it differs between versions; entries that are not new are passed over here.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum

from mcban.errors import DataError
from mcban.logs.journal_export import FIELDS, Entry, ExportReader
from mcban.logs.journal_files import find_journal
from mcban.logs.journal_name import JournalName, is_journal
from mcban.logs.journalctl import Journalctl
from mcban.logs.model import Block, LogState, LogStatus, Position

LOOK_AGAIN = 1.0
"""Seconds until a journal that is not there is looked for again; after failures it takes longer each time."""
LONGEST_PAUSE = 30.0
_CHUNK = 1 << 18
_MOST_TOLD = 100  # complaints of journalctl that are passed on, each once


class _Step(Enum):
    """Which child is next."""

    FIND_END = "find the end"
    CATCH_UP = "catch up"
    FOLLOW = "follow"


class Journal:
    """Reads what one name asks of the journal. Nothing here waits.

    `position` is where reading begins; when it was never committed under this name, `new`, it is the first thing that
    is handed out, so that a new start knows of it. Without one, that is behind the last entry of the journal at the
    first look.
    """

    def __init__(self, name: JournalName, position: Position | None, poll: select.epoll, *, new: bool = False) -> None:
        self.path = str(name)
        self.state, self.reason = find_journal(name)
        self.warnings: list[str] = []
        self.position = position
        self._name, self._poll = name, poll
        self._step = _Step.CATCH_UP if position else _Step.FIND_END
        self._child: Journalctl | None = None
        self._reader = ExportReader()
        self._passing = False  # whether entries are still compared with the cursor
        self._met = False  # whether the entry of the cursor came
        self._again = 0.0
        self._pause = LOOK_AGAIN
        self._told: set[str] = set()
        self._outbox: deque[Block] = deque()
        if new and position is not None:
            self._outbox.append(Block(self.path, b"", position))
        self._bytes = self._blocks = self._cut = 0

    @property
    def at_end(self) -> bool:
        """Whether everything was handed out that was there when reading began, or there is nothing to be read."""
        return not self._outbox and (self._step is _Step.FOLLOW or self._child is None)

    def status(self) -> LogStatus:
        return LogStatus(
            self.path,
            self.state,
            self.reason,
            bytes_read=self._bytes,
            blocks=self._blocks,
            lines_cut=self._cut,
        )

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def next_block(self, now: float, limit: int) -> Block | None:
        """The next lines, about `limit` bytes at most, or a position alone; None when there is nothing at the moment.
        `now` is seconds on any steady clock."""
        if self._child is None and now >= self._again:
            self._start(now)
        size = 0
        entries: list[Entry] = []
        while self._child is not None and not self._outbox and size < limit:
            data = self._child.read(min(_CHUNK, limit))
            if data is None:
                break
            if not data:
                self._hand_out(entries)
                entries = []
                self._ended(now)
                continue
            size += len(data)
            try:
                entries += self._reader.feed(data)
            except DataError as error:
                self._fail(now, str(error))
        self._hand_out(entries)
        self._pass_on()
        return self._outbox.popleft() if self._outbox else None

    # One child after the other

    def _start(self, now: float) -> None:
        state, reason = find_journal(self._name)
        if state is not LogState.FOLLOWING:
            if state is LogState.WAITING:
                self._begin_at_first()
            self._wait(now, state, reason)
            return
        cursor = self.position.cursor if self.position else ""
        options = [f"--output-fields={','.join(FIELDS)}", *self._name.location()]
        if self._step is _Step.FIND_END:
            options += ["--lines=1"]
        else:
            options += [f"--cursor={cursor}"] if cursor else []
            options += ["--follow", "--no-tail"] if self._step is _Step.FOLLOW else []
            options += self._name.terms()
        self._reader = ExportReader()
        self._passing, self._met = bool(cursor), False
        try:
            self._child = Journalctl(options, self._poll)
        except FileNotFoundError:
            self._fail(now, "journalctl is not installed: it comes with systemd")
        except OSError as error:
            self._fail(now, f"journalctl cannot be started: {os.strerror(error.errno or 0)}")
        else:
            if self._step is not _Step.FOLLOW:
                self.state, self.reason = LogState.FOLLOWING, ""

    def _ended(self, now: float) -> None:
        """The child wrote all that it had to write."""
        child, self._child = self._child, None
        complaints = child.complaints() if child else []
        unwell = child.wait() if child else ""
        if unwell or self._step is _Step.FOLLOW:
            self._fail(now, complaints[-1] if complaints else unwell or "journalctl ended")
            return
        self._pause = LOOK_AGAIN
        if self._step is _Step.FIND_END:
            self._begin_at_first()
        else:
            self._step = _Step.FOLLOW
        self._start(now)

    def _begin_at_first(self) -> None:
        """Where there was no entry yet, all that comes is new."""
        if self._step is _Step.FIND_END:
            if self.position is None:
                self._outbox.append(self._block(b"", "", 0))
            self._step = _Step.CATCH_UP

    def _fail(self, now: float, reason: str) -> None:
        """Begin anew from what was handed out, a little later."""
        self.close()
        if self._step is _Step.FOLLOW:
            self._step = _Step.CATCH_UP
        self._wait(now, LogState.UNREADABLE, reason)
        self._again = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _wait(self, now: float, state: LogState, reason: str) -> None:
        self.state, self.reason = state, reason
        self._again = now + LOOK_AGAIN

    def _pass_on(self) -> None:
        """What journalctl complains of while it goes on reading."""
        for line in self._child.complaints() if self._child else ():
            if line not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(line)
                self.warnings.append(f"{self.path}: journalctl: {line}")

    # Entries

    def _hand_out(self, entries: Sequence[Entry]) -> None:
        if self._step is _Step.FIND_END:
            for entry in entries[-1:]:
                self._outbox.append(self._block(b"", entry.cursor, 0))
            return
        new = self._new(entries) if self._passing else entries
        if not new:
            return
        self._cut += sum(entry.cut for entry in new)
        read = self.position.offset if self.position else 0
        data = b"\n".join([entry.line for entry in new]) + b"\n"
        self._outbox.append(self._block(data, new[-1].cursor, read + len(new)))
        self._bytes += len(data)
        self._blocks += 1

    def _new(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those of the first entries of a child that come after the cursor with which it was started."""
        position = self.position
        for index, entry in enumerate(entries):
            if position is None or comes_after(entry.cursor, position.cursor):
                self._passing = False
                # Before anything was read, the cursor is that of the journal's end, and may be of any entry.
                if not self._met and position is not None and position.offset:
                    self.warnings.append(
                        f"{self.path}: the entry that was read last is not in the journal any more (rotated away?): "
                        "reading goes on with the next one that is there"
                    )
                return entries[index:]
            self._met = True
        return ()

    def _block(self, data: bytes, cursor: str, read: int) -> Block:
        self.position = Position(self.path, 0, 0, 0, "", read, cursor)
        return Block(self.path, data, self.position)


def comes_after(cursor: str, known: str) -> bool:
    """Whether an entry that the journal gave when asked to begin at `known` is another one, and later.

    One journald numbers its entries (`i`) within a sequence (`s`); within one start of the machine (`b`) its steady
    clock (`m`) orders them. Where neither is shared, the journal's own order, by time, stands.
    """
    one, other = _parts(cursor), _parts(known)
    try:
        if one["s"] == other["s"]:
            return int(one["i"], 16) > int(other["i"], 16)
        if one["b"] == other["b"] and one["m"] != other["m"]:
            return int(one["m"], 16) > int(other["m"], 16)
        return any(one[key] != other[key] for key in "bmtx")
    except (KeyError, ValueError):  # a cursor is the journal's own affair, and may look otherwise one day
        return cursor != known


def _parts(cursor: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in cursor.split(";") if "=" in part)


def _same_journal(path: str, name: JournalName) -> bool:
    try:
        return replace(JournalName.parse(path), match=()) == replace(name, match=())
    except ValueError:  # from somebody's plain SQL
        return False


def _time(cursor: str) -> int:
    """The moment of a cursor in microseconds since the epoch, 0 where it has none."""
    try:
        return int(_parts(cursor).get("t", "0"), 16)
    except ValueError:
        return 0


class Journals:
    """Every journal that is read, with the interface of `Follower`: see there."""

    def __init__(
        self,
        names: Sequence[str],
        positions: Iterable[Position] = (),
        *,
        block_size: int = 1 << 20,
        from_end: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stored = {position.path: position for position in positions if is_journal(position.path)}
        self._block_size, self._from_end, self._clock = block_size, from_end, clock
        self._poll = select.epoll()
        self._journals: dict[str, Journal] = {}
        self._turns: deque[str] = deque()
        self._warnings: list[str] = []
        self.set_patterns(names)

    def close(self) -> None:
        """End every child. Nothing else may be called afterwards."""
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()
        self._poll.close()

    def fileno(self) -> int:
        """A descriptor that is readable when a journal has something to read."""
        return self._poll.fileno()

    def set_patterns(self, names: Sequence[str]) -> None:
        """Read these from now on. What was read already goes on where it is; what comes back, where it was."""
        for path in self._journals.keys() - set(names):
            journal = self._journals.pop(path)
            journal.close()
            self._warnings += journal.warnings
            if journal.position is not None:
                self._stored[path] = journal.position
        for path in names:
            if path not in self._journals:
                self._journals[path] = self._open(path)
        self._turns = deque(self._journals)

    def _open(self, path: str) -> Journal:
        name = JournalName.parse(path)
        stored = self._stored.pop(path, None)
        return Journal(name, stored or self._beginning(name), self._poll, new=stored is None)

    def _beginning(self, name: JournalName) -> Position | None:
        """Where to begin with what was never read under its name; None for the journal's end.

        What was asked of this journal before, in other words, was read up to its newest position: to begin earlier
        would count again what a filter has counted whose `journalmatch` was changed.
        """
        known = [*self._stored.values(), *(j.position for j in self._journals.values() if j.position)]
        beside = [p.cursor for p in known if _same_journal(p.path, name)]
        if beside or not self._from_end:
            return Position(str(name), 0, 0, 0, "", 0, max(beside, key=_time, default=""))
        return None

    def patterns_of(self, path: str) -> frozenset[str]:
        """The names behind a block of that path: itself."""
        return frozenset({path} & self._journals.keys())

    def read(self) -> Block | None:
        """The next block, of the journal whose turn it is; None when there is nothing at the moment."""
        now = self._clock()
        for _ in range(len(self._turns)):
            path = self._turns[0]
            self._turns.rotate(-1)
            block = self._journals[path].next_block(now, self._block_size)
            if block is not None:
                return block
        return None

    @property
    def at_end(self) -> bool:
        """Whether every journal was read to the end that it had when reading began."""
        return all(journal.at_end for journal in self._journals.values())

    def status(self) -> list[LogStatus]:
        """One entry for each name."""
        return [journal.status() for journal in self._journals.values()]

    def take_warnings(self) -> list[str]:
        """What a person should know, one line each, since the last call."""
        warnings, self._warnings = self._warnings, []
        for journal in self._journals.values():
            warnings += journal.warnings
            journal.warnings = []
        return warnings


def read_journal(name: str, warn: Callable[[str], None]) -> Iterator[bytes]:
    """The lines of those entries that `name` asks of the journal, from its first to the last that there is, in blocks.
    `warn` is given what a person should know, a line each time. Raises DataError when the journal cannot be read."""
    journals = Journals([name])
    try:
        while True:
            block = journals.read()
            for warning in journals.take_warnings():
                warn(warning)
            if block is not None:
                if block.data:
                    yield block.data
            elif journals.at_end:
                break
            else:
                select.select([journals], [], [], LOOK_AGAIN)
        (status,) = journals.status()
        if status.state is not LogState.FOLLOWING:
            raise DataError(f"cannot read {name}: {status.reason}")
    finally:
        journals.close()
