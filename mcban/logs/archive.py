"""Reading one finished file from its start to its end, for replays and tests of filters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mcban.errors import DataError, NoPermissionError
from mcban.logs.logfile import ABSENT, LONGEST_LINE, reason_of

BLOCK_SIZE = 1 << 20

_COMPRESSED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


def read_file(path: str, block_size: int = BLOCK_SIZE) -> Iterator[bytes]:
    """Blocks of whole lines of the file at `path`, about `block_size` bytes each; `-` is standard input.

    A last line without a newline gets one. Of a line longer than 4 MiB only the beginning is given.
    Raises DataError when there is no such file or it is compressed, NoPermissionError when it may not be read.
    """
    if path == "-":
        yield from _blocks(sys.stdin.buffer, block_size)
        return
    with _open(path) as source:
        try:
            yield from _blocks(source, block_size)
        except OSError as error:
            raise DataError(f"cannot read {path}: {reason_of(error)}") from error


def _open(path: str) -> BinaryIO:
    suffix = Path(path).suffix
    if suffix in _COMPRESSED:
        raise DataError(f"{path} is compressed: uncompress it first ({_COMPRESSED[suffix]} -dc {path} | … -)")
    try:
        return Path(path).open("rb", buffering=0)
    except PermissionError as error:
        raise NoPermissionError(f"cannot read {path}: {reason_of(error)}") from error
    except OSError as error:
        what = "there is no such file" if error.errno in ABSENT else reason_of(error)
        raise DataError(f"cannot read {path}: {what}") from error


def _blocks(source: BinaryIO, block_size: int) -> Iterator[bytes]:
    rest: list[bytes] = []  # the beginning of a line whose newline did not come yet
    kept = 0
    while chunk := source.read(block_size):
        first = chunk.find(b"\n")
        if first < 0:
            kept = _keep(rest, kept, chunk)
            continue
        last = chunk.rfind(b"\n") + 1
        if rest:
            _keep(rest, kept, chunk[:first])
            rest.append(chunk[first:last])
            yield b"".join(rest)
        else:
            yield chunk[:last]
        rest, kept = [], 0
        kept = _keep(rest, kept, chunk[last:])
    if kept:
        yield b"".join([*rest, b"\n"])


def _keep(rest: list[bytes], kept: int, part: bytes) -> int:
    part = part[: max(0, LONGEST_LINE - kept)]
    if part:
        rest.append(part)
    return kept + len(part)
