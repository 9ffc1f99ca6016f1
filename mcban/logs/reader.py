"""All that is read, files and journals alike: one thing to wait for, one source of blocks."""

from __future__ import annotations

import select
from collections.abc import Collection, Iterable, Sequence

from mcban.logs.follower import POLL, Follower
from mcban.logs.journal import Journals
from mcban.logs.journal_name import is_journal
from mcban.logs.model import Block, LogStatus, Position


class LogReader:
    """A `Follower` for files and `Journals` for the journal, with the interface that both have: see `Follower`."""

    def __init__(
        self, patterns: Sequence[str], positions: Iterable[Position] = (), *, from_end: bool | Collection[str] = False
    ) -> None:
        positions = list(positions)
        names, files = _split(patterns)
        self._follower = Follower(files, [p for p in positions if not is_journal(p.path)], from_end=from_end)
        self._journals = Journals(names, positions, from_end=from_end is not False)
        self._poll = select.epoll()
        self._poll.register(self._follower.fileno(), select.EPOLLIN)
        self._poll.register(self._journals.fileno(), select.EPOLLIN)
        self._journal_first = False

    def close(self) -> None:
        """Close every descriptor and end every child. Nothing else may be called afterwards."""
        self._poll.close()
        self._journals.close()
        self._follower.close()

    def fileno(self) -> int:
        """A descriptor that is readable when something happened to a log."""
        return self._poll.fileno()

    def set_patterns(self, patterns: Sequence[str]) -> None:
        """Read these paths, globs and journals from now on."""
        names, files = _split(patterns)
        self._follower.set_patterns(files)
        self._journals.set_patterns(names)

    def patterns_of(self, path: str) -> frozenset[str]:
        """The patterns that led to the log at `path`: whose lines a block of that path holds."""
        return self._journals.patterns_of(path) if is_journal(path) else self._follower.patterns_of(path)

    def read(self) -> Block | None:
        """The next block, of files and journals in turn; None when there is nothing at the moment. Does not wait."""
        self._journal_first = not self._journal_first
        if self._journal_first:
            return self._journals.read() or self._follower.read()
        return self._follower.read() or self._journals.read()

    @property
    def amid_line(self) -> bool:
        """Whether `read` gave None in the midst of a line that is too long, with more of it there: nobody need wait."""
        return self._follower.amid_line

    def wait(self, timeout: float) -> None:
        """Return when something happened, when it is time to look again anyway, or after `timeout` seconds."""
        self._poll.poll(max(0.0, min(timeout, POLL)))

    @property
    def at_end(self) -> bool:
        """Whether every log was read to the end that it had when it was opened: enough for one pass over all."""
        return self._follower.at_end and self._journals.at_end

    def status(self) -> list[LogStatus]:
        """One entry for each log and journal, and one for each glob that matches nothing."""
        return sorted([*self._follower.status(), *self._journals.status()], key=lambda status: status.path)

    def take_warnings(self) -> list[str]:
        """What a person should know, one line each, since the last call."""
        return [*self._follower.take_warnings(), *self._journals.take_warnings()]


def _split(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of journals among `patterns`, and the others."""
    names = [pattern for pattern in patterns if is_journal(pattern)]
    return names, [pattern for pattern in patterns if not is_journal(pattern)]
