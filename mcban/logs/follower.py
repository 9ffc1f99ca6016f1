"""All logs that are followed: patterns to logs, fair reading, waiting.

What happens to one log is `log.py`'s business; what inotify tells, `watch.py`'s.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from glob import glob
from types import TracebackType

from mcban.logs.log import GRACE, Log
from mcban.logs.model import BLOCK_SIZE, Block, LogState, LogStatus, Position
from mcban.logs.paths import expand, fixed_directory, is_glob
from mcban.logs.watch import Watch

POLL = 1.0
"""Seconds between two looks at everything, for events that never come."""

_TRIES = 64  # times in one `read` that a log may have more to do without a block, as in the midst of a very long line


class Follower:
    """Follows logs across rotation, from positions that were committed, and hands out their lines in blocks.

    `patterns` are absolute paths or globs; `positions` the committed ones (of whatever paths). A log without a position
    is read from its start, or, with `from_end` (for all, or for these paths) and if it exists when it is first looked
    at, from its end. `block_size` is in bytes, `clock` and `grace` (how long a rotated file must be quiet to count as
    finished) in seconds.

    Wait for `fileno()` to be readable, but at most POLL seconds, and call `read` until it gives None. Commit each
    block's position and the removal of its `finished` ones, in the order of the blocks, together with what the lines
    led to. Whoever starts again from the committed positions gets each line once. In doubt (a copy and its original
    that begin alike, a file that is gone, a log cut again before a line of it was seen) lines are left out rather than
    handed out twice.

    Not for several threads at once.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        positions: Iterable[Position] = (),
        *,
        block_size: int = BLOCK_SIZE,
        from_end: bool | Collection[str] = False,
        clock: Callable[[], float] = time.monotonic,
        grace: float = GRACE,
    ) -> None:
        self._stored: dict[str, list[Position]] = {}
        for position in positions:
            self._stored.setdefault(position.path, []).append(position)
        self._block_size, self._from_end, self._clock, self._grace = block_size, from_end, clock, grace
        self._watch = Watch()
        self._logs: dict[str, Log] = {}
        self._patterns: dict[str, list[str]] = {}
        self._ready: dict[str, None] = {}  # paths that may have something to read, whose turn is next first
        self._warnings: list[str] = []
        self._polled = clock()
        self.set_patterns(patterns)

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor. Nothing else may be called afterwards."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        self._watch.close()

    def fileno(self) -> int:
        """A descriptor that is readable when something happened to a log."""
        return self._watch.fileno()

    def set_patterns(self, patterns: Sequence[str]) -> None:
        """Follow these from now on. What was followed already goes on where it is; what comes back, where it was."""
        for pattern in self._patterns.keys() - set(patterns):
            self._watch.watch_directories(pattern, ())
        self._patterns = {pattern: self._patterns.get(pattern, []) for pattern in patterns}
        self._expand(self._patterns, from_end=self._from_end)
        wanted = {path for paths in self._patterns.values() for path in paths}
        for path in self._logs.keys() - wanted:
            log = self._logs.pop(path)
            log.close()
            self._stored[path] = log.known
            self._warnings += log.warnings
            self._ready.pop(path, None)
            self._watch.watch_directories(path, ())

    def patterns_of(self, path: str) -> frozenset[str]:
        """The patterns that led to the log at `path`: whose lines a block of that path holds."""
        return frozenset(pattern for pattern, paths in self._patterns.items() if path in paths)

    def read(self) -> Block | None:
        """The next block, of the log whose turn it is; None when there is nothing at the moment. Does not wait."""
        now = self._clock()
        self._notice(now)
        for path in list(self._ready):
            log = self._logs[path]
            del self._ready[path]
            for _ in range(_TRIES):
                block = log.next_block(now, self._block_size)
                if block is not None or not log.more:
                    break
            if block is not None or log.more:
                self._ready[path] = None
            if block is not None:
                return block
        return None

    @property
    def amid_line(self) -> bool:
        """Whether `read` gave None in the midst of a line that is too long, with more of it there: nobody need wait."""
        return any(log.amid_line for log in self._logs.values())

    def wait(self, timeout: float) -> None:
        """Return when something happened, when it is time to look again anyway, or after `timeout` seconds."""
        rest = max(0.0, min(timeout, self._polled + POLL - self._clock()))
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.poll(rest * 1000)

    @property
    def at_end(self) -> bool:
        """Whether every log was read up to the size that it had when it was opened: enough for one pass over all."""
        return all(log.at_end for log in self._logs.values())

    def status(self) -> list[LogStatus]:
        """One entry for each log, and one for each glob that matches nothing."""
        empty = [
            LogStatus(pattern, LogState.WAITING, "no file matches")
            for pattern, paths in self._patterns.items()
            if not paths
        ]
        return sorted([*(log.status() for log in self._logs.values()), *empty], key=lambda status: status.path)

    def take_warnings(self) -> list[str]:
        """What a person should know, one line each, since the last call: lines that could not be read, no inotify."""
        warnings, self._warnings = self._warnings, []
        for log in self._logs.values():
            warnings += log.warnings
            log.warnings = []
        if self._watch.problem:
            warnings.append(self._watch.problem)
            self._watch.problem = ""
        return warnings

    def _notice(self, now: float) -> None:
        noticed = self._watch.take()
        if noticed.everything or not 0 <= now - self._polled < POLL:
            self._polled = now
            self._expand(self._patterns)
            noticed.moved |= self._logs.keys()
        else:
            self._expand(noticed.moved & self._patterns.keys())
        for path in noticed.moved & self._logs.keys():
            self._logs[path].look(now)
            self._ready[path] = None
        for path in noticed.grown & self._logs.keys():
            self._ready[path] = None

    def _expand(self, patterns: Iterable[str], *, from_end: bool | Collection[str] = False) -> None:
        now = self._clock()
        for pattern in patterns:
            if not is_glob(pattern):
                self._patterns[pattern] = [pattern]
            else:
                paths = self._patterns[pattern]
                bases = {*self._logs, *self._stored, *self._patterns}
                paths += [path for path in expand(pattern, bases) if path not in paths]
                folders = {fixed_directory(pattern), *glob(pattern.rpartition("/")[0])}  # noqa: PTH207
                self._watch.watch_directories(pattern, [(folder, "") for folder in folders])
            for path in self._patterns[pattern]:
                if path not in self._logs:
                    stored = self._stored.pop(path, ())
                    at_end = from_end if isinstance(from_end, bool) else path in from_end
                    log = Log(path, stored, self._watch, from_end=at_end, grace=self._grace)
                    self._logs[path] = log
                    log.look(now)
                    self._ready[path] = None
