"""Names of logs: the `logpath` column of a jail, globs, and the names that rotation gives."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mcban.core.model import LONGEST_PATH
from mcban.logs.journal_name import JOURNAL, JournalName

_WORDS = re.compile(rf"{JOURNAL}\[[^\]]*\]|[^\s,]+")
_COMPRESSED = r"(?:\.(?:gz|bz2|xz|zst|lz4|lzma|lz|lzo|Z))"
_STAMP = r"[.\-_](?:\d[\d.\-_:T+Z]*|old|bak|prev)"
_ROTATED = re.compile(rf"(?P<stem>.+?){_STAMP}(?P<extension>\.[A-Za-z]\w*)??(?P<packed>{_COMPRESSED})?", re.DOTALL)


def split_logpath(text: str) -> list[str]:
    """The absolute paths, globs and journals in a jail's `logpath`, in their order, each once.

    They are separated by newlines, white space or commas; ` head` or ` tail` after a path, which fail2ban writes, is
    dropped: where reading starts is known from the stored position. A journal is `systemd-journal`, perhaps with
    parameters in brackets: see `JournalName`. Raises ValueError with one line for a person.
    """
    paths: dict[str, None] = {}
    for line in text.splitlines():
        for index, word in enumerate(_WORDS.findall(line)):
            if index > 0 and word in {"head", "tail"}:
                continue
            if word == JOURNAL or word.startswith(JOURNAL + "["):
                paths[str(JournalName.parse(word))] = None
                continue
            if not word.startswith("/"):
                raise ValueError(f"logpath {word!r} is not an absolute path: write it from / on")
            if "\0" in word:
                raise ValueError(f"logpath {word!r} holds a NUL byte")
            fault = length_fault(word)
            if fault:
                raise ValueError(f"logpath {word[:60]!r}…: {fault}")
            paths[word] = None
    if not paths:
        raise ValueError("logpath is empty: name at least one log file")
    return list(paths)


def length_fault(path: str) -> str | None:
    """Why `path` is too long for a position of it to be kept, in words; None when it is not. A backslash, or a byte
    that is no UTF-8, takes more than one character there."""
    length = sum(4 if "\udc80" <= c <= "\udcff" else 2 if c == "\\" else 1 for c in path)
    if length <= LONGEST_PATH:
        return None
    return f"a path of {length} characters, and positions are kept of {LONGEST_PATH} at the most: shorten it by a link"


def is_glob(path: str) -> bool:
    """Whether `path` holds wildcards."""
    return glob.has_magic(path)


def fixed_directory(pattern: str) -> str:
    """The longest directory at the beginning of a glob that has no wildcards in it."""
    parts = PurePosixPath(pattern).parts
    fixed = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return str(PurePosixPath(*fixed)) if fixed else "/"


def rotated_from(name: str) -> str | None:
    """The name that the log had before it was rotated to `name`, or None when `name` is not of a rotated file.

    `mainlog.1`, `mainlog-20261122`, `mainlog.2.gz`, `access.log.old` and, with logrotate's `extension`,
    `access-20261122.log` are such names; `mail.err` is not one of `mail`.
    """
    match = _ROTATED.fullmatch(name)
    if match is None:
        return None
    return match["stem"] + (match["extension"] or "")


def is_packed(name: str) -> bool:
    """Whether `name` is that of a compressed file."""
    return re.search(_COMPRESSED + r"\Z", name) is not None


def expand(pattern: str, logs: Iterable[str]) -> list[str]:
    """The paths that a glob matches now, without those that are rotated predecessors of another match or of `logs`.

    A predecessor is read as part of its log; as a log of its own, its lines would count twice.
    """
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob knows no absolute patterns
    bases = {*found, *logs}
    kept = []
    for path in found:
        folder, _, name = path.rpartition("/")
        base = rotated_from(name)
        if is_packed(name) or (base is not None and f"{folder}/{base}" in bases):
            continue
        kept.append(path)
    return kept


def places(path: str) -> list[tuple[str, str]]:
    """The directories to watch for the log at `path`, each with the name in it that matters ("" for any)."""
    paths = [path]
    if os.path.islink(path):  # noqa: PTH114 - paths are text here, as they are in SQL
        paths.append(os.path.realpath(path))
    return [_nearest(path) for path in paths]


def _nearest(path: str) -> tuple[str, str]:
    """The directory to watch for `path`: its own with its name, or the nearest that exists."""
    directory, _, name = path.rpartition("/")
    while directory and not os.path.isdir(directory):  # noqa: PTH112
        directory, name = directory.rpartition("/")[0], ""
    return directory or "/", name
