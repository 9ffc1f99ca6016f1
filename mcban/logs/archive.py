"""Reading one finished file from its start to its end, plain or compressed: for replays, tests of filters, and
`run --once`."""

from __future__ import annotations

import os
import select
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from glob import glob
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from mcban.errors import DataError, NoPermissionError
from mcban.logs.codec import LONGEST_MAGIC, NoLibraryError, codec_of
from mcban.logs.logfile import ABSENT, HEAD_LENGTH, LONGEST_LINE, hash_head, matches_head, open_regular, reason_of
from mcban.logs.model import BLOCK_SIZE, Block, Position
from mcban.logs.paths import is_glob, is_packed, rotated_from
from mcban.logs.rotation import begin_alike, survey

_STANDARD_INPUT = "standard input"
_RAW_SIZE = 64 << 10
_SILENCE = 500
"""Milliseconds of waiting for more, after which it is looked whether a signal came."""

Seen = Callable[[int], None]
"""Told how many bytes were taken from the file itself, each time some were."""


def read_file(path: str, block_size: int = BLOCK_SIZE, seen: Seen | None = None) -> Iterator[bytes]:
    """Blocks of whole lines of the file at `path`, about `block_size` bytes each; `-` is standard input.

    What is compressed (gzip, bzip2, xz, zstd) is told by its first bytes and read as a stream. A last line without a
    newline gets one. Of a line longer than 4 MiB only the beginning is given.
    Raises DataError when there is no such file, or it is damaged or cut short, after the lines before that; and
    NoPermissionError when it may not be read.
    """
    for data, _ in _blocks(_content(path, block_size, seen)):
        yield data


def size_of(path: str) -> int | None:
    """The bytes that reading `path` will take from the disk; None when nobody can tell."""
    try:
        return os.stat(path).st_size if path != "-" and Path(path).is_file() else None  # noqa: PTH116 - text, as in SQL
    except (OSError, ValueError):
        return None


def _content(path: str, block_size: int, seen: Seen | None) -> Iterator[bytes]:
    """The bytes of the file at `path`, uncompressed, in pieces of at most `block_size`."""
    with _open(path) as source:
        yield from _unpacked(source, _STANDARD_INPUT if path == "-" else path, block_size, seen)


def _open(path: str) -> BinaryIO:
    try:
        if path == "-":
            return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
        return Path(path).open("rb", buffering=0)
    except PermissionError as error:
        raise NoPermissionError(f"cannot read {path}: {reason_of(error)}") from error
    except OSError as error:
        what = "there is no such file" if error.errno in ABSENT else reason_of(error)
        raise DataError(f"cannot read {path}: {what}") from error


def _unpacked(source: BinaryIO, name: str, block_size: int, seen: Seen | None) -> Iterator[bytes]:
    head = b""
    chunks = _raw(source, name, block_size, seen)
    for chunk in chunks:  # a pipe may give less than the magic at once
        head += chunk
        if len(head) >= LONGEST_MAGIC:
            break
    codec = codec_of(head)
    if codec is None:
        yield from chain((head,) if head else (), chunks)
        return
    try:
        yield from codec.unpack(chain((head,), chunks), block_size)
    except _ReadError as error:
        raise DataError(str(error)) from error
    except NoLibraryError as error:
        raise DataError(f"{name}: {error}; or: {_by_hand(codec.program, name)}") from error
    except DataError as error:
        raise DataError(f"{name} {error}; what can be had of it: {_by_hand(codec.program, name)}") from error


def _by_hand(program: str, name: str) -> str:
    source = f"… | {program} -dc" if name == _STANDARD_INPUT else f"{program} -dc {shlex.quote(name)}"
    return f"{source} | mcban … -"


class _ReadError(DataError):
    """The system cannot read the file: nothing that the compressed data is to blame for."""


def _raw(source: BinaryIO, name: str, block_size: int, seen: Seen | None) -> Iterator[bytes]:
    size = min(_RAW_SIZE, block_size)
    content = select.poll()
    content.register(source, select.POLLIN)
    while True:
        # A pipe may be silent for ever, and of a signal that came in the instant before a read that waits Python would
        # hear nothing until there is something to read.
        while not content.poll(_SILENCE):
            pass
        try:
            chunk = source.read(size)
        except OSError as error:
            raise _ReadError(f"cannot read {name}: {reason_of(error)}") from error
        if not chunk:
            return
        if seen:
            seen(len(chunk))
        yield chunk
        size = block_size


def _blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Whole lines, each time with the offset behind them."""
    rest: list[bytes] = []  # the beginning of a line whose newline did not come yet
    kept = offset = 0
    for chunk in chunks:
        offset += len(chunk)
        first = chunk.find(b"\n")
        if first < 0:
            kept = _keep(rest, kept, chunk)
            continue
        last = chunk.rfind(b"\n") + 1
        end = offset - len(chunk) + last
        if rest:
            _keep(rest, kept, chunk[:first])
            rest.append(chunk[first:last])
            yield b"".join(rest), end
        else:
            yield chunk[:last], end
        rest, kept = [], 0
        kept = _keep(rest, kept, chunk[last:])
    if kept:
        yield b"".join([*rest, b"\n"]), offset


def _keep(rest: list[bytes], kept: int, part: bytes) -> int:
    part = part[: max(0, LONGEST_LINE - kept)]
    if part:
        rest.append(part)
    return kept + len(part)


# Archives among the logs of a jail


class InDoubtError(DataError):
    """An archive is left alone, since its lines may have been counted, or will be, as part of another log."""


def is_archive(path: str) -> bool:
    """Whether there is a compressed file at `path`; by its name when it cannot be looked into."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        return error.errno not in ABSENT and is_packed(path)
    except DataError:
        return False
    try:
        return codec_of(os.pread(descriptor, LONGEST_MAGIC, 0)) is not None
    except OSError:
        return is_packed(path)
    finally:
        os.close(descriptor)


def find_archives(patterns: Iterable[str]) -> list[str]:
    """The archives that `patterns` (paths, globs, journals) name one by one.

    Those that a glob happens to match are left alone: they are what rotation made of a log that the glob matches too,
    and whether their lines were counted nobody could tell.
    """
    return [p for p in patterns if p.startswith("/") and not is_glob(p) and is_archive(p)]


def read_archive(
    path: str, positions: Collection[Position], logs: Collection[str], seen: Seen | None = None
) -> Iterator[Block]:
    """What is new in the archive at `path`, in blocks, each with the position to be committed with it.

    `positions` are the committed ones of all logs, `logs` the paths that are followed. The content decides what is
    new, not the name, since rotation renames: a position of a file that began in the same way, followed or archived,
    under whatever name, says how far it was read. In doubt lines are left out rather than counted twice: what may have
    been read under another name raises InDoubtError. Raises DataError or NoPermissionError when the archive cannot be
    read to its end; the blocks before that hold, and the next time goes on after them.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are text here, as they are in SQL
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    content = _content(path, BLOCK_SIZE, seen)
    head = b""
    for chunk in content:
        head += chunk
        if len(head) >= HEAD_LENGTH:
            break
    begin = head[:HEAD_LENGTH]
    if not begin:
        return
    read_to = _read_to(begin, positions)
    if read_to is None:
        _check_unread(path, begin, positions, logs)

    def position(offset: int) -> Position:
        return Position(path, status.st_dev, status.st_ino, len(begin), hash_head(begin), offset)

    if read_to is not None and position(read_to) not in positions:
        yield Block(path, b"", position(read_to))  # it got here by another name, under which it may be forgotten
    for data, end in _after(_blocks(chain((head,), content)), read_to or 0):
        yield Block(path, data, position(end))


def _read_to(begin: bytes, positions: Iterable[Position]) -> int | None:
    """How far the file that begins like this was read; None when none is known that did."""
    same = [p for p in positions if p.head_length and p.offset and matches_head(begin, p)]
    return max((p.offset for p in same), default=None)


def _check_unread(path: str, begin: bytes, positions: Iterable[Position], logs: Iterable[str]) -> None:
    """Raises InDoubtError when the archive may hold lines that were, or will be, read as part of a log."""
    base = _base_of(path)
    if base is not None and any(position.path == base for position in positions):
        raise InDoubtError(
            f"{path} is left alone: it comes from {base}, which was followed, so its lines may have been counted; "
            "`mcban replay` reads it without counting"
        )
    for log in filter(os.path.isabs, logs):  # the others are journals
        for found in glob(log) if is_glob(log) else [log]:  # noqa: PTH207 - Path.glob knows no absolute patterns
            for file in [found, *(other.path for other in survey(found, ()) if not other.packed)]:
                if begin_alike(begin, _begin_of(file)):
                    raise InDoubtError(f"{path} is left alone: it begins like {file}, which is read")


def _base_of(path: str) -> str | None:
    folder, _, name = path.rpartition("/")
    base = rotated_from(name)
    if base is None and is_packed(name):
        base = name.rpartition(".")[0]
    return None if base is None else f"{folder}/{base}"


def _begin_of(path: str) -> bytes:
    try:
        descriptor = open_regular(path)
    except (OSError, DataError):
        return b""
    try:
        return os.pread(descriptor, HEAD_LENGTH, 0)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _after(blocks: Iterable[tuple[bytes, int]], read_to: int) -> Iterator[tuple[bytes, int]]:
    """`blocks` without the lines before `read_to`, nor a line that it lies in the midst of."""
    for data, end in blocks:
        new = end - read_to
        if new <= 0:
            continue
        if new < len(data):
            whole = data[-new - 1 : -new] == b"\n"
            data = data[-new:] if whole else data[data.find(b"\n", len(data) - new) + 1 :]  # noqa: PLW2901
        if data:
            yield data, end
