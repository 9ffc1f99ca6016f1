"""One log under one path: the file it is in now, those it was in before, and the order in which they are read.

A renamed file is read on until it has been quiet for a while and a new one is there. The files of a log are read
strictly in their order, and before anything of a file is handed out, a position of each earlier one has been: so a
stored position of a file says that the earlier ones are stored too, and a new start needs to look only after it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from mcban.errors import DataError
from mcban.logs.logfile import ABSENT, HEAD_LENGTH, LogFile, Truncated, open_log, reason_of
from mcban.logs.model import Block, LogState, LogStatus, Position
from mcban.logs.paths import places
from mcban.logs.rotation import Identity, came_between, find_copy, identity_at, look_back, open_found, survey
from mcban.logs.watch import Watch

GRACE = 300.0
"""Seconds without growth after which a rotated file counts as finished; a daemon may be told late to reopen its log."""

MOST_OPEN = 64
"""Descriptors per log. With more rotated files to be read, the older ones are read first."""

_ROOMY = MOST_OPEN // 2  # as long as more are open, more are not looked for: each look goes through all that lie beside
_CROWD = 16  # with more open files than this, a second without growth is enough
_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE, which gives files their times; the finer clock runs ahead of it
_MOST_REMEMBERED = 64


class Log:
    """Follows one path. `look` notices rotation, `next_block` reads; neither blocks.

    `stored` are the committed positions of this path. With `from_end` a log without any that exists at the first look
    is read from its end. `now` is seconds on any steady clock.
    """

    def __init__(
        self, path: str, stored: Iterable[Position], watch: Watch, *, from_end: bool = False, grace: float = GRACE
    ) -> None:
        self.path = path
        self.state, self.reason = LogState.WAITING, ""
        self.warnings: list[str] = []
        self.more = False  # whether `next_block` has more to do though it gave None
        self.amid_line = False  # whether that is the rest of a line that is too long
        self._watch, self._grace = watch, grace
        self._known: dict[Identity, Position] = {(p.device, p.inode): p for p in stored}
        self._from_end = from_end and not self._known
        self._files: list[LogFile] = []  # in the order of reading
        self._current: LogFile | None = None  # the one that was at the path when we last looked; then also the last
        self._outbox: deque[Block] = deque()
        self._finished: list[Position] = []
        self._past_heads: deque[bytes] = deque(maxlen=_MOST_REMEMBERED)  # of contents that were cut away
        self._first = True
        self._again = False  # look again when some files have been read
        self._failed = False  # reading failed, and has not succeeded since
        self._seen: int | None = None  # ns since 1970: until then the current file was at the path
        self._bytes = self._blocks = self._rotations = self._cut_lines = 0

    @property
    def known(self) -> list[Position]:
        """The newest position handed out of each file that is remembered."""
        return list(self._known.values())

    @property
    def at_end(self) -> bool:
        """Whether every file was read up to the size it had when it was opened."""
        sizes = self._sizes()
        behind = any(file.scanned < min(file.goal, size) for file, size in zip(self._files, sizes, strict=True))
        return not (behind or self._outbox or self._again)

    def close(self) -> None:
        for file in list(self._files):
            self._close(file)

    def status(self) -> LogStatus:
        sizes = self._sizes()
        return LogStatus(
            self.path,
            self.state,
            self.reason,
            self._files[-1].offset if self._files else 0,
            sizes[-1] if sizes else 0,
            sum(max(0, size - file.offset) for file, size in zip(self._files, sizes, strict=True)),
            self._bytes,
            self._blocks,
            self._rotations,
            self._cut_lines + sum(file.lines_cut for file in self._files),
        )

    def _sizes(self) -> list[int]:
        try:
            return [file.stat().st_size for file in self._files]
        except OSError as error:
            self._fail(error)
            return []

    # Looking: which files are the log's

    def look(self, now: float) -> None:
        """Compare the path with the file that is read: renamed, replaced, cut, or there at last?"""
        try:
            self._look(now)
        except OSError as error:
            self._fail(error)

    def _look(self, now: float) -> None:
        self._watch.watch_directories(self.path, places(self.path))
        if self._again and len(self._files) > _ROOMY:
            return
        self._again = False
        seen = time.clock_gettime_ns(_FILE_CLOCK)
        current = self._current
        try:
            same = current is not None and identity_at(self.path) == current.identity
            new = None if same else open_log(self.path)
        except (DataError, OSError) as error:  # what is open is read on
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            if isinstance(error, OSError) and error.errno in ABSENT:
                self._absent(now, reason)
            else:
                self.state, self.reason = LogState.UNREADABLE, reason
            return
        if new is not None:
            self._arrive(new, now, seen)
        elif current is not None:
            self._check(current, now)
            self._seen = seen  # after the check: what was cut before it lies before `seen`
        if not self._failed:  # else the next reading tells
            self.state, self.reason = LogState.FOLLOWING, ""

    def _absent(self, now: float, reason: str) -> None:
        self.state, self.reason, self._failed = LogState.WAITING, reason, False
        self._from_end = False  # what appears from now on is new
        if self._first and self._known:
            self._arrive(None, now, None)
        self._first = False
        current = self._current
        if current is not None and current.stat().st_nlink == 0:
            self._retire(current, now)  # deleted: nobody will find it again, so do not hold it for ever

    def _check(self, file: LogFile, now: float) -> None:
        """Find out whether `file` was emptied, and act on it."""
        try:
            if file.unscanned() < 0:
                raise Truncated
            file.check()
        except Truncated:
            self._emptied(file, now)

    def _emptied(self, file: LogFile, now: float) -> None:
        if file is self._current:
            self._cut(file, now)
        else:
            self._drop(file)

    def _arrive(self, new: LogFile | None, now: float, seen: int | None) -> None:
        """`new` is at the path, and it is not the file that was: find what lies between them."""
        back = next((file for file in self._files if new is not None and file.identity == new.identity), None)
        if back is not None and new is not None:  # a link that was switched back, a file renamed back
            new.close()
            self._adopt(back, now, seen)
            return
        opened: list[LogFile] = [] if new is None else [new]
        try:
            self._admit(new, opened, now, seen)
        except (Truncated, DataError, OSError) as error:  # renamed or cut while we looked: everything anew, soon
            if isinstance(error, OSError) and error.errno not in ABSENT:
                raise
            self._again = True
        finally:
            for file in opened:
                if file not in self._files:
                    file.close()

    def _admit(self, new: LogFile | None, opened: list[LogFile], now: float, seen: int | None) -> None:
        for file in list(self._files):
            self._check(file, now)  # it may have been cut before it was renamed
        room = MOST_OPEN - len(self._files)
        link = os.path.islink(self.path)  # noqa: PTH114
        present = {file.identity for file in self._files}
        known = [position for identity, position in self._known.items() if identity not in present]
        beside = os.path.realpath(self.path) if link else self.path
        listing = survey(beside, {(p.device, p.inode) for p in known}) if known or self._files else []
        past = look_back(self.path, listing, known, new, after_absence=self._first)
        since = self._seen or max([past.newest or 0, *(file.stat().st_mtime_ns for file in self._files)])
        between = past.unread
        if since and past.resume is None and not link:
            files = [*self._files, *([new] if new is not None else [])]
            between += came_between(listing, since, between, files, self.known, self._past_heads)
        between.sort(key=lambda entry: entry[0].modified)
        files = [open_found(file, offset, opened) for file, offset in between[: max(0, room)]]
        # From here on nothing fails: the plan is carried out.
        self._rotations += int(bool(self._files) or bool(between))
        self.warnings += past.warnings
        self._first = False
        for position in past.gone if not link else []:  # a link may come back to what it showed before
            self._forget((position.device, position.inode))
        for identity in [*self._known][: max(0, len(self._known) - _MOST_REMEMBERED)]:
            if identity not in present:
                self._forget(identity)
        if self._current is not None:
            self._retire(self._current, now)
        for file in files:
            file.active_at = now - file.quiet_for()
            self._follow(file)
        if len(between) > room:
            self._again = True
            if files:  # those before it are dealt with, also when they are forgotten
                self._seen = max(since, between[len(files) - 1][0].modified)
        elif new is not None:
            self._begin(new, past.resume)
            self._adopt(new, now, seen)
            if not self._known:  # so that it is known from now on, also before its first line
                self._outbox.append(self._block(new, b""))

    def _begin(self, new: LogFile, resume: int | None) -> None:
        if resume is not None:
            new.offset = new.scanned = resume
            new.reported = True
            if new.unscanned() < 0:  # shorter, and yet the same beginning: what is left was read
                new.skip_to_end()
        elif self._from_end:
            new.skip_to_end()
        else:
            self._known.pop(new.identity, None)  # of another file, which had this inode; its row will be replaced
        self._from_end = False

    def _adopt(self, file: LogFile, now: float, seen: int | None) -> None:
        """Make `file` the current one."""
        if self._current is not None and self._current is not file:
            self._retire(self._current, now)
        if file in self._files:
            self._files.remove(file)
            self._files.append(file)
        else:
            self._follow(file)
        self._current, self._seen = file, seen

    def _retire(self, file: LogFile, now: float) -> None:
        file.active_at = now
        if file is self._current:
            self._current = None

    def _follow(self, file: LogFile) -> None:
        if file.watch < 0:
            file.watch = self._watch.watch_file(file.descriptor, self.path, self.path)
        self._files.append(file)
        position = self._known.get(file.identity)
        file.reported = file.reported or (position is not None and position.offset == file.offset)

    def _cut(self, current: LogFile, now: float) -> None:
        """The current file was emptied: read the rest of its old content from its copy, then begin it anew."""
        self._rotations += 1
        old = current.position(self.path)
        listing = survey(self.path, ())
        copy = find_copy(listing, old, sure=b"\n" in current.head or len(current.head) == HEAD_LENGTH)
        for file in list(self._files):  # `copy` overwrote the file of an earlier one, which is open
            if copy is not None and file.identity == copy.identity and file is not current:
                self._drop(file)
        whole = current.head
        if current.shorten():
            return
        self._past_heads.append(whole)
        between = [(copy, old.offset)] if copy else []
        if self._seen:
            between += came_between(listing, self._seen, between, self._files, self.known, self._past_heads)
        current.restart()
        opened: list[LogFile] = []
        self._files.remove(current)
        for found, offset in sorted(between, key=lambda entry: entry[0].modified):
            with suppress(OSError, DataError, Truncated):
                file = open_found(found, offset, opened)
                file.active_at = now - file.quiet_for()
                self._follow(file)
        self._files.append(current)
        for file in opened:
            if file not in self._files:
                file.close()

    # Reading

    def next_block(self, now: float, limit: int) -> Block | None:
        """The next whole lines, or a position alone; None when there is nothing at the moment (but see `more`)."""
        if self._again and len(self._files) <= _ROOMY:
            self.look(now)
        self.more = self.amid_line = False
        try:
            self._read_on(now, limit)
        except OSError as error:
            self._fail(error)
        self.more = self.more or (self._again and len(self._files) <= _ROOMY)
        return self._outbox.popleft() if self._outbox else None

    def _read_on(self, now: float, limit: int) -> None:
        index = 0
        success = False
        while not self._outbox and not self.more and index < len(self._files):
            file = self._files[index]
            try:
                index += self._advance(file, now, limit)
                success = True
            except Truncated:
                self.more = file is self._current
                self._emptied(file, now)
        if success and self._failed:
            self._failed, self.state, self.reason = False, LogState.FOLLOWING, ""

    def _advance(self, file: LogFile, now: float, limit: int) -> int:
        """Read on in `file`. 1 when it has nothing more at the moment, so that the next file's turn comes."""
        before = file.scanned
        data = file.read(limit)
        if file.scanned != before:  # reading late what was written long ago is no activity
            file.active_at = now if file is self._current else now - file.quiet_for()
        if data:
            self._hand_out(file, data)
        elif file.scanned != before:
            self.more = self.amid_line = file.unscanned() > 0
            return int(not self.more)
        elif self._is_over(file, now):
            data = file.read_unfinished()
            if data or not file.reported:
                self._hand_out(file, data)
            else:
                self._close(file)
        else:
            return 1
        return 0

    def _is_over(self, file: LogFile, now: float) -> bool:
        if file is self._current:
            return False
        if now - file.active_at < (self._grace if len(self._files) <= _CROWD else min(1.0, self._grace)):
            return False
        # `_again`: there are newer files, for which there was no room
        return self._current is not None or self._again or file.stat().st_nlink == 0

    def _hand_out(self, file: LogFile, data: bytes) -> None:
        for earlier in self._files:
            if earlier is file:
                break
            if not earlier.reported:
                self._outbox.append(self._block(earlier, b""))
        self._outbox.append(self._block(file, data))
        self._bytes += len(data)
        self._blocks += 1

    def _block(self, file: LogFile, data: bytes) -> Block:
        position = file.position(self.path)
        file.reported = True
        self._known[file.identity] = position
        # A finished file's inode may have come back with another file, whose row has replaced the old one.
        finished = tuple(p for p in self._finished if (p.device, p.inode) not in self._known)
        self._finished = []
        return Block(self.path, data, position, finished)

    # Letting go

    def _close(self, file: LogFile) -> None:
        """Stop reading `file`. Its position is kept as long as it can be found again, so that it never counts twice."""
        with suppress(OSError):
            if file.stat().st_nlink == 0:
                self._forget(file.identity)
        self._let_go(file)

    def _let_go(self, file: LogFile) -> None:
        self._watch.leave_file(file.watch, self.path)
        file.close()
        self._files.remove(file)
        self._cut_lines += file.lines_cut
        if file is self._current:
            self._current = None

    def _fail(self, error: OSError) -> None:
        """Reading failed: close everything, and at the next look begin as a new start does, from what was handed out.

        With the other files too, since they are read in their order, and only a new start finds out what became of all.
        """
        for file in list(self._files):
            self._let_go(file)
        self._first, self._seen, self._again, self.more, self.amid_line = True, None, False, False, False
        other = f"{error.filename}: " if error.filename not in {None, self.path} else ""
        self._failed, self.state, self.reason = True, LogState.UNREADABLE, other + reason_of(error)

    def _drop(self, file: LogFile) -> None:
        """`file` was rotated away and then overwritten: what it holds now is none of this log's."""
        self._past_heads.append(file.head)
        self._forget(file.identity)
        self._close(file)

    def _forget(self, identity: Identity) -> None:
        position = self._known.pop(identity, None)
        if position is not None:
            self._finished.append(position)
