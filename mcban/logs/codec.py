"""Compressed data as a stream: which program wrote it, and what it holds, piece by piece.

Told by the first bytes, whatever the file is called. Memory is bounded: by the piece asked for, and by what the format
itself needs (at most `_XZ_MEMORY`; 128 MiB of window for zstd, more than any level of its program takes unasked).
"""

from __future__ import annotations

import bz2
import lzma
import re
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mcban.errors import DataError

_XZ_MEMORY = 256 << 20
"""Bytes; `xz -9` makes files that take 65 MiB."""

LONGEST_MAGIC = 10
"""Bytes that are enough to tell the format."""


class _Stream(Protocol):
    """One compressed stream, as bz2, lzma and zstd of the standard library have it."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes; b"" for `data` asks for more of what was given before."""
        ...


class _GzipStream:
    """zlib's decompressor by the manners of the others; it checks the sum at the stream's end."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class NoLibraryError(DataError):
    """The format is known, but what reads it is not installed."""


def _zstd_stream() -> _Stream:
    try:
        from compression import zstd  # noqa: PLC0415  # Python 3.14 and later
    except ImportError:
        try:
            from backports import zstd  # noqa: PLC0415  # an optional extra
        except ImportError:
            pip = Path(sys.prefix) / "bin/pip"
            typed = f"{shlex.quote(str(pip))} install backports.zstd"
            raise NoLibraryError(f"zstd wants a library that is not installed: {typed}") from None
    stream: _Stream = zstd.ZstdDecompressor()
    return stream


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to compress: the program that undoes it, the first bytes, and how we do (None: not at all)."""

    program: str
    magic: re.Pattern[bytes]
    open: Callable[[], object] | None

    def unpack(self, chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
        """What the streams in `chunks` hold, one after the other, in pieces of at most `most` bytes.

        Raises DataError, the words of which follow on the file's name: cut short, damaged, not to be read here.
        """
        stream: _Stream | None = None
        for chunk in chunks:
            rest = chunk
            while rest:
                if stream is None:
                    rest = rest.lstrip(b"\0")  # padding behind a stream, as on tapes
                    if not rest:
                        break
                    stream = self._begin()
                yield from self._pieces(stream, rest, most)
                rest = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream = None
        if stream is not None:
            raise DataError(f"is cut short: its {self.program} data ends in the middle")

    def _begin(self) -> _Stream:
        if self.open is None:
            raise DataError(f"is compressed by {self.program}, which mcban does not read")
        return self.open()  # type: ignore[return-value]  # each of them is one, which mypy cannot see of C's classes

    def _pieces(self, stream: _Stream, data: bytes, most: int) -> Iterator[bytes]:
        while True:
            try:
                piece = stream.decompress(data, most)
            except MemoryError:
                raise
            except Exception as error:  # zlib.error, LZMAError, OSError, ZstdError: none has a base
                raise DataError(f"is damaged: {error or 'no ' + self.program + ' data'}") from error
            if piece:
                yield piece
            if stream.eof or stream.needs_input:
                return
            data = b""


def _xz_stream() -> object:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _lzma_stream() -> object:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY)


CODECS = (
    Codec("gzip", re.compile(rb"\x1f\x8b\x08"), _GzipStream),
    Codec("xz", re.compile(rb"\xfd7zXZ\x00"), _xz_stream),
    Codec("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
    # the frame itself, or one to be skipped, with which the parallel program begins
    Codec("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd_stream),
    # xz's forerunner has no magic, but what its program always writes: no text begins so
    Codec("lzma", re.compile(rb"\x5d\0\0"), _lzma_stream),
    Codec("lz4", re.compile(rb"\x04\x22\x4d\x18"), None),
    Codec("lzip", re.compile(rb"LZIP[\0\1]"), None),
    Codec("lzop", re.compile(rb"\x89LZO\0"), None),
    Codec("uncompress", re.compile(rb"\x1f\x9d"), None),
    Codec("unzip", re.compile(rb"PK\x03\x04"), None),
)


def codec_of(head: bytes) -> Codec | None:
    """The codec of data that begins with `head` (LONGEST_MAGIC bytes of it are enough); None for plain text."""
    return next((codec for codec in CODECS if codec.magic.match(head)), None)
