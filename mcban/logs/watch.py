"""inotify, as far as following logs needs it: which logs have grown, and at which one must look anew.

Everything here is a hint. An event that never comes (a network file system, a full queue, no watches left) costs at
most the second until the follower looks by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ENOSPC

from inotify_simple import INotify, flags

_GROWN = int(flags.MODIFY)
_MOVED = int(
    flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.ATTRIB  # permissions may have been given
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)


@dataclass(slots=True)
class Noticed:
    """What happened since the last look: keys of files that grew, keys to look at, or `everything`."""

    grown: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    everything: bool = False


class Watch:
    """Watches on open files and on directories, each on behalf of a key (a log's path or a pattern)."""

    def __init__(self) -> None:
        self.problem = ""
        self._files: dict[int, set[str]] = {}
        self._directories: dict[int, set[tuple[str, str]]] = {}
        self._inotify: INotify | None = None
        self._pipe: tuple[int, ...] = ()
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            self.problem = f"inotify is not available ({error.strerror}): logs are looked at once a second"
            self._pipe = os.pipe()

    def fileno(self) -> int:
        """Readable when something happened; without inotify, never."""
        return self._pipe[0] if self._inotify is None else int(self._inotify.fileno())

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        for end in self._pipe:
            os.close(end)

    def watch_file(self, descriptor: int, path: str, key: str) -> int:
        """Note under `key` when the open file grows. The answer is for `leave_file`; -1 when it cannot be watched."""
        # The descriptor, not the path: another file may be there by now.
        for name in (f"/proc/self/fd/{descriptor}", path):
            watch = self._add(name, _GROWN)
            if watch >= 0:
                self._files.setdefault(watch, set()).add(key)
                return watch
        return -1

    def leave_file(self, watch: int, key: str) -> None:
        keys = self._files.get(watch)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._files[watch]
                self._remove(watch)

    def watch_directories(self, key: str, places: Iterable[tuple[str, str]]) -> None:
        """Note under `key` what happens in these (directory, name), in place of those given before.

        A name of "" means any. Directories that do not exist are passed over.
        """
        wanted: dict[int, set[tuple[str, str]]] = {}
        for directory, name in places:
            watch = self._add(directory, _MOVED)
            if watch >= 0:
                wanted.setdefault(watch, set()).add((key, name))
        for watch in list(self._directories):
            entries = {entry for entry in self._directories[watch] if entry[0] != key} | wanted.pop(watch, set())
            if entries:
                self._directories[watch] = entries
            else:
                del self._directories[watch]
                self._remove(watch)
        self._directories.update(wanted)

    def take(self) -> Noticed:
        """What happened since the last call; does not wait."""
        noticed = Noticed()
        if self._inotify is None:
            return noticed
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                noticed.everything = True
            elif event.wd in self._files:
                noticed.grown |= self._files[event.wd]
            else:
                gone = event.mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED)
                for key, name in self._directories.get(event.wd, ()):
                    if gone or name in {"", event.name}:
                        noticed.moved.add(key)
            if event.mask & flags.IGNORED:
                self._files.pop(event.wd, None)
                self._directories.pop(event.wd, None)
        return noticed

    def _add(self, path: str, mask: int) -> int:
        if self._inotify is None:
            return -1
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            if error.errno == ENOSPC:
                self.problem = "no inotify watches left (fs.inotify.max_user_watches): looking once a second instead"
            return -1

    def _remove(self, watch: int) -> None:
        if self._inotify is not None:
            with suppress(OSError):  # it went away with its file
                self._inotify.rm_watch(watch)
