"""The scanner's blocks beside the lines one by one, which say what is right."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo

import pytest

from mcban.filters import Filter, LineMatch, Scanner
from mcban.filters.demands import Needle
from mcban.filters.prefilter import Finder, make_hyperscan_finder, make_plain_finder

_MISSING = importlib.util.find_spec("hyperscan") is None and not os.environ.get("CI")
FINDERS = [
    pytest.param(make_hyperscan_finder, marks=pytest.mark.skipif(_MISSING, reason="pip install hyperscan")),
    make_plain_finder,
]
"""Both ways to search a block."""
MakeFinder = Callable[[Sequence[Needle]], Finder]


def one_by_one(filters: Sequence[Filter], lines: Sequence[bytes], now: int, zone: tzinfo) -> list[LineMatch]:
    """What the scanner must find: each line given to each filter alone, in order."""
    expected = []
    matchers = [one.matcher() for one in filters]
    for number, line in enumerate(lines):
        text = line.decode("utf-8", "replace")
        for index, one in enumerate(filters):
            told = one.explain(text, now, zone, matcher=matchers[index])
            if told.match:
                match = told.match
                expected.append(LineMatch(number, index, told.at, match.ip, match.user, match.rule))
    return expected


def in_blocks(scanner: Scanner, blocks: Iterable[bytes], now: int) -> list[LineMatch]:
    """The hits of several blocks, their lines counted on."""
    found: list[LineMatch] = []
    lines = 0
    for block in blocks:
        found += (match._replace(line=match.line + lines) for match in scanner.scan(block, now))
        lines += block.count(b"\n")
    return found
