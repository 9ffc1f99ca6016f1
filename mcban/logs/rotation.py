"""What lies beside a log: finding the files that it was in before it was rotated.

In doubt, all of this chooses what never counts a line twice.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from mcban.logs.logfile import HEAD_LENGTH, LogFile, Truncated, hash_head, matches_head
from mcban.logs.model import Position
from mcban.logs.paths import is_packed, rotated_from

Identity = tuple[int, int]
"""Device and inode."""


def identity_at(path: str) -> Identity:
    status = os.stat(path)  # noqa: PTH116 - paths are text here, as they are in SQL
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Found:
    """A file beside the log. `modified` is in nanoseconds since 1970; `rotated`: it has a rotated name of the log."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    rotated: bool
    packed: bool

    @property
    def identity(self) -> Identity:
        return self.device, self.inode

    def head(self) -> bytes:
        """The file's first bytes, b"" when it cannot be read."""
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                return file.read(HEAD_LENGTH)
        except OSError:
            return b""

    def is_of(self, position: Position) -> bool:
        """Whether this is the file of `position`, under whatever name: same inode, same beginning."""
        if self.identity != (position.device, position.inode):
            return False
        if position.head_length == 0:  # it was empty: only the name can vouch for it
            return self.rotated
        return matches_head(self.head(), position)


def begin_alike(head: bytes, other: bytes) -> bool:
    """Whether two files with these first bytes can be a file and its copy; an empty one is like none."""
    return bool(head and other) and (head.startswith(other) or other.startswith(head))


def survey(path: str, wanted: Collection[Identity]) -> list[Found]:
    """The regular files beside the log at `path` that have a rotated name of it, or one of the `wanted` identities.

    Oldest first, by the time of the last write. The log itself is among them only if wanted. A directory that is being
    renamed in can hide an entry from one pass over it, so it is read until two passes agree.
    """
    directory, _, name = path.rpartition("/")
    before: dict[tuple[int, str], os.DirEntry[str]] = {}
    for _ in range(5):
        entries = _entries(directory or "/", name, {inode for _, inode in wanted})
        if entries.keys() == before.keys():
            break
        before = entries
    found = []
    for entry in before.values():
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # renamed since: an event or the next look brings it
        if S_ISREG(status.st_mode):
            rotated = rotated_from(entry.name) == name
            found.append(
                Found(
                    entry.path,
                    status.st_dev,
                    status.st_ino,
                    status.st_size,
                    status.st_mtime_ns,
                    rotated,
                    is_packed(entry.name),
                )
            )
    return sorted(found, key=lambda file: file.modified)


def _entries(directory: str, name: str, inodes: set[int]) -> dict[tuple[int, str], os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return {
                (entry.inode(), entry.name): entry
                for entry in entries
                if entry.inode() in inodes or rotated_from(entry.name) == name
            }
    except OSError:
        return {}


def find_copy(listing: Iterable[Found], position: Position, *, sure: bool = False) -> Found | None:
    """The copy made of the file of `position` before it was cut: same beginning, at least as long as it was read.

    The newest, if several are. A file of which no line was read cannot be told from others (its
    beginning may be that of a time stamp): None, unless the caller is `sure` that it is more.
    """
    if position.offset == 0 and not sure:
        return None
    for file in reversed(list(listing)):
        if file.rotated and not file.packed and file.size >= position.offset and matches_head(file.head(), position):
            return file
    return None


def unread_in_packed(listing: Iterable[Found], position: Position) -> int | None:
    """Bytes after `position` in a compressed (.gz) copy of its file; None when no such copy is found."""
    if position.head_length == 0:
        return None
    for file in listing:
        if file.rotated and file.path.endswith(".gz"):
            try:
                with gzip.open(file.path) as unpacked:
                    if not matches_head(unpacked.read(HEAD_LENGTH), position):
                        continue
                with Path(file.path).open("rb") as packed:
                    packed.seek(-4, os.SEEK_END)
                    size = int.from_bytes(packed.read(4), "little")  # modulo 4 GiB, as gzip keeps it
            except (OSError, EOFError, zlib.error):
                continue
            return max(0, size - position.offset)
    return None


@dataclass(slots=True)
class Past:
    """What became of the files that a log is known to have been in.

    `unread` are files to be opened at an offset; `gone` positions to be forgotten; `resume` the offset at which the
    present file goes on, None when it is a new one; `newest` the time of the last write (ns) to a file still there.
    """

    unread: list[tuple[Found, int]] = field(default_factory=list)
    gone: list[Position] = field(default_factory=list)
    resume: int | None = None
    newest: int | None = None
    warnings: list[str] = field(default_factory=list)


def look_back(
    path: str, listing: list[Found], known: Iterable[Position], present: LogFile | None, *, after_absence: bool
) -> Past:
    """Find the files of `known` positions (none of them open) among `listing` and the `present` file of the log.

    `after_absence`: nobody followed the log meanwhile, so a file that is gone may have been cut or compressed with
    lines in it that were not read: its copy is looked for, and what cannot be read is said in `warnings`.
    """
    past = Past()
    positions = {(position.device, position.inode): position for position in known}
    lost = []
    for identity, position in positions.items():
        if present is not None and identity == present.identity:
            if position.head_length and matches_head(present.head, position):
                past.resume = position.offset
            elif position.head_length:
                lost.append(position)  # cut and written anew, or another file that got the inode
            continue
        found = next((file for file in listing if file.is_of(position)), None)
        if found is None:
            lost.append(position)
            past.gone.append(position)
            continue
        past.newest = max(past.newest or 0, found.modified)
        if found.size > position.offset:
            past.unread.append((found, position.offset))
    if after_absence:
        _look_for_copies(path, listing, positions, lost, past)
    return past


def _look_for_copies(
    path: str, listing: list[Found], positions: dict[Identity, Position], lost: list[Position], past: Past
) -> None:
    taken = {file.identity for file, _ in past.unread}
    vanished = 0
    for position in lost:
        copy = find_copy(listing, position)
        if copy is None:
            missing = unread_in_packed(listing, position)
            if missing:
                past.warnings.append(
                    f"{path}: {missing} bytes were not read: the file that holds them was compressed meanwhile"
                )
            vanished += missing is None
            continue
        past.newest = max(past.newest or 0, copy.modified)
        own = positions.get(copy.identity)
        if copy.identity not in taken and not (own is not None and copy.is_of(own)):
            taken.add(copy.identity)
            past.unread.append((copy, position.offset))
    # Of several files the older ones vanish as a matter of course; when nothing is left, the last one is missing too.
    if vanished and past.newest is None and past.resume is None and not past.warnings:
        past.warnings.append(f"{path}: the file that it was is gone: lines after its last known position were not read")


def never_read(
    listing: Iterable[Found],
    since: int,
    open_files: Collection[Identity],
    known: Iterable[Position],
    heads: Iterable[bytes],
) -> list[tuple[Found, bytes]]:
    """Files that were the log between its last known file and the present one, oldest first, each with its head.

    They have a rotated name, were written at or after `since` (nanoseconds), are neither open nor known, and are no
    copies: a copy begins like a file whose `heads` or positions we know. (A position at 0 has counted nothing, and may
    know no more than the beginning of a time stamp.)
    """
    heads = list(heads)
    prints: dict[int, set[str]] = defaultdict(set)
    for position in known:
        if position.offset:
            prints[position.head_length].add(position.head_hash)
    files = []
    for file in listing:
        if not file.rotated or file.packed or file.size == 0 or file.modified < since or file.identity in open_files:
            continue
        head = file.head()
        if not head or any(begin_alike(head, other) for other in heads):
            continue
        if any(len(head) >= length and hash_head(head[:length]) in some for length, some in prints.items()):
            continue
        files.append((file, head))
    return files


def came_between(
    listing: Iterable[Found],
    since: int,
    found: list[tuple[Found, int]],
    files: Collection[LogFile],
    known: Iterable[Position],
    past_heads: Iterable[bytes],
) -> list[tuple[Found, int]]:
    """Files that came and went since `since`, each to be read from 0; without copies of other files.

    `files` are open, `found` are to be opened.
    """
    taken = {file.identity for file in files} | {file.identity for file, _ in found}
    heads = [*past_heads, *(file.head() for file, _ in found)]
    unknown = never_read(listing, since, taken, known, heads)
    # What a copy began with when we looked, its original begins with when we look after it.
    for file in files:
        try:
            file.check()
        except Truncated:
            file.restart()
    return [(file, 0) for file, head in unknown if not any(other.head.startswith(head) for other in files)]


def open_found(found: Found, offset: int, opened: list[LogFile]) -> LogFile:
    """Open it, also noting it in `opened`. Raises Truncated when another file is there by now."""
    file = LogFile(found.path, offset)
    opened.append(file)
    if file.identity != found.identity:
        raise Truncated
    return file
