"""Reading one finished file, plain or compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.errors import DataError
from mcban.logs import Follower, LogState
from mcban.logs.archive import find_archives, read_archive, read_file
from mcban.logs.logfile import HEAD_LENGTH, LONGEST_LINE, hash_head
from mcban.logs.model import Position
from tests.patience import PATIENCE

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    # with its sum, as the program writes it
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}
LINES = b"".join(b"%d a line of a log, from 192.0.2.%d\n" % (n, n % 250) for n in range(20_000))
codecs = pytest.mark.parametrize("codec", PACK)


@given(st.binary(max_size=300).map(lambda b: b.replace(b"a", b"\n")), st.integers(1, 40))
def test_blocks_are_whole_lines(tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int) -> None:
    """The blocks are whole lines and together the file, a newline added to an unfinished last line."""
    log = tmp_path_factory.mktemp("file") / "log"
    log.write_bytes(b"-" + content)
    blocks = list(read_file(str(log), size))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == b"-" + content + (b"" if content.endswith(b"\n") else b"\n")


def test_long_line_is_cut(tmp_path: Path) -> None:
    """Of a line longer than the limit the beginning is given, and the next line follows whole."""
    log = tmp_path / "log"
    log.write_bytes(b"q" * (LONGEST_LINE + 5000) + b"\nnext\n")
    assert b"".join(read_file(str(log))) == b"q" * LONGEST_LINE + b"\nnext\n"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads standard input, compressed or not."""
    for content in (b"one\ntwo", gzip.compress(b"one\ntwo")):
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        with os.fdopen(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert b"".join(read_file("-")) == b"one\ntwo\n"


def test_a_signal_just_before_a_read_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a pipe that says nothing is stopped by a signal that does not interrupt the wait itself."""
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))

    def send() -> None:  # it arrives here, so that the main thread's call into the system goes on
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    sender, late = threading.Thread(target=send), threading.Timer(PATIENCE, os.close, (writing,))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender.start()
    late.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(read_file("-"))
        assert late.is_alive()
    finally:
        late.cancel()
        sender.join()
        late.join()
        signal.signal(signal.SIGINT, before)
        sys.stdin.close()
        os.close(writing)


@pytest.mark.parametrize(("name", "words"), [("none", "no such file"), ("a.gz", "no such file"), (".", "directory")])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    """A file that is missing or none gets one clear line."""
    with pytest.raises(DataError, match=words):
        list(read_file(str(tmp_path / name)))


@codecs
@pytest.mark.parametrize("size", [700, 1 << 20])
def test_compressed_logs_read_as_they_were(tmp_path: Path, codec: str, size: int) -> None:
    """A compressed log gives the lines of the plain one, whatever its name; several streams in one file follow one
    another, as `cat a.gz b.gz` makes them."""
    log = tmp_path / "rotated"
    log.write_bytes(PACK[codec](LINES) + PACK[codec](b"") + PACK[codec](b"the end"))
    taken: list[int] = []
    assert b"".join(read_file(str(log), size, taken.append)) == LINES + b"the end\n"
    assert sum(taken) == log.stat().st_size


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_what_the_programs_write_is_read(tmp_path: Path, program: str) -> None:
    """What logrotate's `compresscmd` makes is read, also by the strongest level."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    for level in ("-1", "-9"):
        packed = subprocess.run([program, level, "-c"], input=LINES, capture_output=True, check=True).stdout
        log = tmp_path / "log"
        log.write_bytes(packed)
        assert b"".join(read_file(str(log))) == LINES, level


@codecs
@settings(deadline=None)
@given(data=st.data())
def test_an_archive_cut_short_is_said(
    tmp_path_factory: pytest.TempPathFactory, codec: str, data: st.DataObject
) -> None:
    """Wherever the file ends before its time: lines from the beginning, then an error, never a false end."""
    packed = PACK[codec](LINES[:30_000])
    cut = data.draw(st.integers(10, len(packed) - 1))
    log = tmp_path_factory.mktemp("file") / "log"
    log.write_bytes(packed[:cut])
    got = b""
    with pytest.raises(DataError, match=r"is cut short: its \w+ data ends in the middle; .*-dc"):
        for block in read_file(str(log)):
            got += block
    assert LINES.startswith(got)


def test_what_can_be_had_of_an_archive_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that the error offers is one for a shell: names are quoted, and standard input is none."""
    log = tmp_path / "my log.gz"
    log.write_bytes(PACK["gzip"](LINES)[:-9])
    with pytest.raises(DataError) as refusal:
        list(read_file(str(log)))
    command = str(refusal.value).partition("what can be had of it: ")[2].partition(" | ")[0]
    assert shlex.split(command) == ["gzip", "-dc", str(log)]
    with log.open() as stdin, pytest.raises(DataError, match=r"had of it: … \| gzip -dc \| mcban … -"):
        monkeypatch.setattr("sys.stdin", stdin)
        list(read_file("-"))


@codecs
def test_a_damaged_archive_is_said(tmp_path: Path, codec: str) -> None:
    """A flipped bit, or something else behind the stream, is found out and named."""
    packed = bytearray(PACK[codec](LINES))
    log = tmp_path / "log"
    log.write_bytes(packed + b"this is no stream")
    with pytest.raises(DataError, match="is damaged"):
        list(read_file(str(log)))
    packed[len(packed) // 2] ^= 0x55
    packed[len(packed) // 2 + 1] ^= 0x55
    log.write_bytes(packed)
    with pytest.raises(DataError, match=r"is (damaged|cut short)"):
        list(read_file(str(log)))


@codecs
def test_a_bomb_takes_no_memory(tmp_path: Path, codec: str) -> None:
    """150 MB of one letter, from a file of a few kilobytes, are read in pieces: lines are cut, memory is bounded."""
    log = tmp_path / "bomb"
    half = PACK[codec](b"x" * (50 << 20))
    log.write_bytes(half * 3)
    tracemalloc.start()
    try:
        total = sum(len(block) for block in read_file(str(log)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == LONGEST_LINE + 1
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("head", "program"), [(b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d\x90", "uncompress"), (b"LZIP\1", "lzip")]
)
def test_what_mcban_cannot_unpack_is_named(tmp_path: Path, head: bytes, program: str) -> None:
    """Other formats are told with the program that reads them, never read as if they were text."""
    log = tmp_path / "log"
    log.write_bytes(head + bytes(50))
    with pytest.raises(DataError, match=f"{program} -dc"):
        list(read_file(str(log)))


def test_zstd_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed, it is told what installs it, and what to do without it."""
    log = tmp_path / "log.zst"
    log.write_bytes(zstd.compress(LINES))
    for name in ("compression", "backports"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"/bin/pip'? install backports\.zstd; or: zstd -dc"):
        list(read_file(str(log)))


# Archives among the logs of a jail


def position(path: str, content: bytes, offset: int, inode: int = 7) -> Position:
    """What is stored of a file with that content."""
    head = content[:HEAD_LENGTH]
    return Position(path, 1, inode, len(head), hash_head(head), offset)


def test_an_archive_is_known_under_its_new_name(tmp_path: Path) -> None:
    """What was read under another name is noted under this one, too, before the other place holds something else."""
    archive = tmp_path / "mail.2.gz"
    archive.write_bytes(gzip.compress(LINES))
    known = [position("/elsewhere/mail.1.gz", LINES, len(LINES))]
    (block,) = read_archive(str(archive), known, [])
    assert (block.data, block.position.path, block.position.offset) == (b"", str(archive), len(LINES))
    assert list(read_archive(str(archive), [block.position], [])) == []


def read_all(archive: Path, positions: list[Position], logs: list[str] | None = None) -> tuple[bytes, list[Position]]:
    """What an archive gives, and the positions after it."""
    blocks = list(read_archive(str(archive), positions, logs or []))
    return b"".join(block.data for block in blocks), [*positions, *(block.position for block in blocks[-1:])]


@codecs
def test_an_archive_is_read_once(tmp_path: Path, codec: str) -> None:
    """Once, also when it was renamed meanwhile, or packed again by another program; another content is read."""
    one, two = tmp_path / "mail.1.gz", tmp_path / "mail.2.gz"
    one.write_bytes(PACK[codec](LINES))
    data, known = read_all(one, [])
    assert data == LINES
    assert read_all(one, known) == (b"", known)
    two.write_bytes(lzma.compress(LINES))
    one.write_bytes(PACK[codec](LINES[5_000:]))
    assert read_all(two, known)[0] == b""
    assert read_all(one, known)[0] == LINES[5_000:]


@settings(deadline=None)
@given(st.integers(1, len(LINES) - 1))
def test_what_was_followed_before_it_was_compressed_is_not_read_again(
    tmp_path_factory: pytest.TempPathFactory, offset: int
) -> None:
    """An archive of a file that was followed goes on where following stopped, at the beginning of a line."""
    archive = tmp_path_factory.mktemp("file") / "mail.log.1.gz"
    archive.write_bytes(gzip.compress(LINES, 1))
    data, _ = read_all(archive, [position("/var/log/mail.log", LINES, offset)])
    assert LINES.endswith(data)
    start = len(LINES) - len(data)
    assert start >= offset
    assert start == offset or b"\n" not in LINES[offset : start - 1]


def test_in_doubt_an_archive_is_left_alone(tmp_path: Path) -> None:
    """What rotation made of a log that was followed is not read when its own position is not known any more; nor is a
    copy of what is read anyway, live or as a rotated file."""
    archive = tmp_path / "mail.log.3.gz"
    archive.write_bytes(gzip.compress(LINES))
    live = tmp_path / "mail.log"
    with pytest.raises(DataError, match=f"it comes from {live}, which was followed"):
        read_all(archive, [position(str(live), b"2 quite another beginning\n", 26)])
    live.write_bytes(b"young\n")
    assert read_all(archive, [], [str(live)])[0] == LINES
    (tmp_path / "mail.log.1").write_bytes(LINES)
    for pattern in (str(live), str(tmp_path / "mail.lo?")):
        with pytest.raises(DataError, match="begins like"):
            read_all(archive, [], [pattern])


def test_only_an_archive_that_is_named_is_one(tmp_path: Path) -> None:
    """Globs never lead to archives; what is named is told by its content, not by its name."""
    packed, plain = tmp_path / "packed", tmp_path / "plain.gz"
    packed.write_bytes(gzip.compress(LINES))
    plain.write_bytes(LINES)
    names = [str(tmp_path / name) for name in ("packed", "plain.gz", "pac*", "absent.xz", "absent")]
    assert find_archives(names) == [names[0]]


def test_archives_are_not_followed(tmp_path: Path) -> None:
    """An engine that follows logs passes over an archive, whatever its name, and says what reads it; the log beside it
    is followed, and so is a log that later comes to that place."""
    archive, live = tmp_path / "old", tmp_path / "live"
    archive.write_bytes(gzip.compress(LINES))
    live.write_bytes(b"one\n")
    with Follower([str(archive), str(live)]) as follower:
        blocks = [block.data for block in iter(follower.read, None)]
        assert b"".join(blocks) == b"one\n"
        states = {status.path: status for status in follower.status()}
        assert states[str(archive)].state is LogState.UNREADABLE
        assert "compressed (gzip)" in states[str(archive)].reason
        assert "run --once" in states[str(archive)].reason
        archive.unlink()
        archive.write_bytes(b"two\n")
        deadline = time.monotonic() + PATIENCE
        got = b""
        while not got and time.monotonic() < deadline:
            block = follower.read()
            got += block.data if block else b""
            if block is None:
                follower.wait(0.1)
        assert got == b"two\n"
