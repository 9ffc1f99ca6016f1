"""Reading one finished file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.errors import DataError
from mcban.logs.archive import read_file
from mcban.logs.logfile import LONGEST_LINE


@given(st.binary(max_size=300).map(lambda b: b.replace(b"a", b"\n")), st.integers(1, 40))
def test_blocks_are_whole_lines(tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int) -> None:
    """The blocks are whole lines and together the file, a newline added to an unfinished last line."""
    log = tmp_path_factory.mktemp("file") / "log"
    log.write_bytes(content)
    blocks = list(read_file(str(log), size))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == content + (b"" if content.endswith(b"\n") or not content else b"\n")


def test_long_line_is_cut(tmp_path: Path) -> None:
    """Of a line longer than the limit the beginning is given, and the next line follows whole."""
    log = tmp_path / "log"
    log.write_bytes(b"q" * (LONGEST_LINE + 5000) + b"\nnext\n")
    assert b"".join(read_file(str(log))) == b"q" * LONGEST_LINE + b"\nnext\n"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads standard input."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one\ntwo")))
    assert b"".join(read_file("-")) == b"one\ntwo\n"


@pytest.mark.parametrize(("name", "words"), [("none", "no such file"), ("a.gz", "compressed"), (".", "directory")])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    """A file that is missing, compressed or none gets one clear line."""
    with pytest.raises(DataError, match=words):
        list(read_file(str(tmp_path / name)))
