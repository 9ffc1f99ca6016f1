"""One open file: whole lines from an offset."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.errors import DataError
from mcban.logs.logfile import LONGEST_LINE, LogFile, Truncated


def read_all(file: LogFile, limit: int = 1 << 20) -> bytes:
    parts = []
    while file.unscanned() > 0:
        parts.append(file.read(limit))
    return b"".join(parts)


def test_bytes_pass_untouched(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, NUL bytes and carriage returns are handed on as they are."""
    log = tmp_path / "log"
    content = b"\xff\xfe\x00 caf\xe9\r\nnext\x00\n"
    log.write_bytes(content)
    assert LogFile(str(log)).read(1 << 20) == content


def test_half_line_waits(tmp_path: Path) -> None:
    """A half-written last line is handed out once, whole, when its newline has come."""
    log = tmp_path / "log"
    log.write_bytes(b"one\nhal")
    file = LogFile(str(log))
    assert file.read(1 << 20) == b"one\n"
    assert file.read(1 << 20) == b""
    assert file.position("p").offset == 4
    with log.open("ab") as out:
        out.write(b"f")
    assert file.read(1 << 20) == b""
    with log.open("ab") as out:
        out.write(b" line\nthree\n")
    assert file.read(1 << 20) == b"half line\nthree\n"
    assert file.position("p").offset == log.stat().st_size


@pytest.mark.parametrize("limit", [64, 1 << 20])
@pytest.mark.parametrize("half", [b"", b"hal"])
def test_the_rest_of_a_line_is_no_line(tmp_path: Path, limit: int, half: bytes) -> None:
    """In a log that was cut and has grown beyond where it was read, and begins as before, reading goes on with the next
    line: the end of one, which an attacker may have written, is never handed out as one."""
    log = tmp_path / "log"
    header = b"#" * 300 + b"\n"
    log.write_bytes(header + b"one\n" + half)
    file = LogFile(str(log))
    assert read_all(file) == header + b"one\n"
    log.write_bytes(header + b"a new line, of which the rest looks like a line" * 5 + b"\nnext\nlast\n")
    assert read_all(file, limit) == b"next\nlast\n"
    assert file.position("p").offset == log.stat().st_size


def test_megabyte_line(tmp_path: Path) -> None:
    """A line of three megabytes is one line, also when it comes in pieces."""
    log = tmp_path / "log"
    line = b"x" * (3 << 20) + b"\n"
    log.write_bytes(b"a\n" + line + b"b\n")
    assert read_all(LogFile(str(log)), 64 << 10) == b"a\n" + line + b"b\n"


def test_endless_line_is_cut_and_memory_bounded(tmp_path: Path) -> None:
    """Of a line over the limit the beginning is handed out, its rest is never taken for a line, memory stays small."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        for _ in range(48):
            out.write(b"y" * (1 << 20))
        out.write(b"\nnext\n")
    file = LogFile(str(log))
    tracemalloc.start()
    data = read_all(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data == b"y" * LONGEST_LINE + b"\nnext\n"
    assert file.lines_cut == 1
    assert peak < 4 * LONGEST_LINE


def test_cut_and_regrown_file_is_noticed(tmp_path: Path) -> None:
    """A file that was emptied and has grown past the old offset again is known by its beginning."""
    log = tmp_path / "log"
    log.write_bytes(b"old one\n")
    file = LogFile(str(log))
    assert file.read(100) == b"old one\n"
    log.write_bytes(b"new one\nnew two\n")
    with pytest.raises(Truncated):
        file.read(100)
    file.restart()
    assert file.read(100) == b"new one\nnew two\n"


def test_skip_to_end_stops_at_a_line(tmp_path: Path) -> None:
    """Starting at the end of a log never starts in the midst of a line."""
    log = tmp_path / "log"
    log.write_bytes(b"one\n" + b"z" * 200_000)
    file = LogFile(str(log))
    file.skip_to_end()
    assert file.offset == 4


def test_other_things_are_not_opened(tmp_path: Path) -> None:
    """A FIFO, a directory and a device are refused by what they are, without being opened."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in [(fifo, "a FIFO"), (tmp_path, "a directory"), (Path("/dev/null"), "a device")]:
        with pytest.raises(DataError, match=words):
            LogFile(str(path))


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=30),
    st.integers(1, 50),
    st.integers(1, 64),
)
def test_any_writes_any_blocks(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], piece: int, limit: int
) -> None:
    """However a writer cuts its writes and a reader its blocks, the lines come out as they went in."""
    log = tmp_path_factory.mktemp("any") / "log"
    content = b"".join(line + b"\n" for line in lines)
    log.touch()
    file = LogFile(str(log))
    seen = b""
    with log.open("ab", buffering=0) as out:
        for start in range(0, len(content), piece):
            out.write(content[start : start + piece])
            data = read_all(file, limit)
            assert data == b"" or data.endswith(b"\n")
            seen += data
    file.close()
    assert seen == content
