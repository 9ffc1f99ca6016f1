"""Finds the lines of a block that could match, and for which rules, by what the rules demand of a line.

Two ways with one result. Hyperscan looks for all needles in one pass at some gigabytes a second, whatever their
number; without it each needle is a pass of its own. docs/matching.md has the figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mcban.filters.demands import Demand, Needle, needle_expression, needle_text

Finder = Callable[[bytes], list[tuple[int, int]]]
"""From a block to pairs of an offset in a line (or its end) and a needle's number: every line that holds the needle at
least once, in the order of the offsets."""
Candidate = tuple[int, int, int]
"""A line that could match: where it begins, where it ends without its line end, and a mask; bit n stands for rule n."""


class Prefilter:
    """Says of a block which lines hold what rules demand; rules without a demand may match any line."""

    def __init__(self, demands: Sequence[Demand | None], make_finder: Callable[[Sequence[Needle]], Finder]) -> None:
        self._always = 0
        masks: dict[Needle, int] = {}
        for number, demand in enumerate(demands):
            if demand is None:
                self._always |= 1 << number
            else:
                for needle in demand:
                    masks[needle] = masks.get(needle, 0) | 1 << number
        self._masks = list(masks.values())
        self._find = make_finder(list(masks)) if masks else None

    def find(self, block: bytes) -> list[Candidate]:
        """The candidates in the order of the lines."""
        found = self._lines(block, self._find(block)) if self._find else []
        return self._all_lines(block, found) if self._always else found

    def _lines(self, block: bytes, found: list[tuple[int, int]]) -> list[Candidate]:
        candidates: list[Candidate] = []
        masks, size = self._masks, len(block)
        start = mask = 0
        end = -1
        for offset, number in found:
            if offset <= end:
                mask |= masks[number]
                continue
            if mask:
                candidates.append((start, end, mask))
            start = block.rfind(b"\n", 0, offset) + 1
            end = block.find(b"\n", offset)
            if end < 0:
                end = size
            mask = masks[number]
        if mask:
            candidates.append((start, end, mask))
        return candidates

    def _all_lines(self, block: bytes, found: Iterable[Candidate]) -> list[Candidate]:
        masks = {start: mask for start, _, mask in found}
        candidates: list[Candidate] = []
        start, size = 0, len(block)
        while start < size:
            end = block.find(b"\n", start)
            if end < 0:
                end = size
            candidates.append((start, end, masks.get(start, 0) | self._always))
            start = end + 1
        return candidates


def make_finder(needles: Sequence[Needle]) -> Finder:
    """The fastest way to find these needles that this system has."""
    try:
        return make_hyperscan_finder(needles)
    except ImportError:
        return make_plain_finder(needles)


def make_hyperscan_finder(needles: Sequence[Needle]) -> Finder:
    """All needles in one pass; raises ImportError where Hyperscan is missing, or cannot be used on this processor."""
    import hyperscan  # noqa: PLC0415  # optional

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    numbers = list(range(len(needles)))
    try:
        database.compile([needle_expression(needle) for needle in needles], numbers, len(needles), [0] * len(needles))
    except hyperscan.error as error:
        raise ImportError(f"Hyperscan cannot be used: {error}") from error
    found: list[tuple[int, int]] = []
    add = found.append

    def note(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
        add((end, number))

    def find(block: bytes) -> list[tuple[int, int]]:
        found.clear()
        database.scan(block, match_event_handler=note)
        found.sort()
        return found

    return find


def make_plain_finder(needles: Sequence[Needle]) -> Finder:
    """One pass for each needle, with nothing but Python."""
    texts: list[tuple[int, bytes]] = []
    patterns: list[tuple[int, re.Pattern[bytes]]] = []
    for number, needle in enumerate(needles):
        text = needle_text(needle)
        if text is None:
            patterns.append((number, re.compile(needle_expression(needle))))
        else:
            texts.append((number, text))

    def find(block: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for number, text in texts:
            offset = block.find(text)
            while offset >= 0:
                found.append((offset, number))
                end = block.find(b"\n", offset)
                offset = block.find(text, end) if end >= 0 else -1
        for number, pattern in patterns:
            found += ((match.start(), number) for match in pattern.finditer(block))
        found.sort()
        return found

    return find
