"""Finds the hits in a block of a log: one pass for all filters.

Most lines match nothing. Which lines could match at all is found out for the block as a whole, by the texts that a
rule's expression demands (`literals.py`); only those lines are cut out, decoded and given to the exact expressions,
and only those that matched have their date calculated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from mcban.filters.dates import Clock, DateForm, FoundDate, find_date
from mcban.filters.filter import Filter
from mcban.filters.literals import STRANGERS, required_literals
from mcban.filters.rules import Rule

OVERLONG = 128 * 1024
"""Bytes; a longer line is not matched, but counted."""


@dataclass(frozen=True, slots=True)
class LineMatch:
    """A hit in a block: the line's index from 0, the filter's index in the scanner, the date's moment or None."""

    line: int
    filter: int
    at: int | None
    ip: str
    user: str | None
    rule: int


class Scanner:
    """Matches blocks of one log with all filters that want it.

    `overlong` counts the lines that were too long to be matched, `dateless` the hits without a date that can be read;
    both since the scanner was made.
    """

    def __init__(self, filters: Sequence[Filter], zone: tzinfo | None = None) -> None:
        self.filters = tuple(filters)
        self.overlong = 0
        self.dateless = 0
        self._clock = Clock(zone)
        # Bit n of a mask stands for the n-th of these pairs, in the order in which they are tried.
        self._rules: list[tuple[int, Rule]] = [
            (index, rule) for index, one in enumerate(self.filters) for rule in one.rules
        ]
        self._always = 0
        self._needles: dict[bytes, int] = {}
        self._folded: dict[bytes, int] = {}
        for bit, (index, rule) in enumerate(self._rules):
            self._demand(1 << bit, index, rule)
        # Filters with the same forms of a date share the search for it.
        forms: dict[tuple[DateForm, ...], int] = {}
        self._forms = [forms.setdefault(one.dates, len(forms)) for one in self.filters]

    def _demand(self, bit: int, index: int, rule: Rule) -> None:
        """Note what a line must hold for a rule to be tried."""
        needles = None
        if all(form.bounded for form in self.filters[index].dates):
            needles = required_literals(rule.pattern)
        if needles is None:
            self._always |= bit
            return
        table = self._folded if needles.folded else self._needles
        for needle in needles.texts:
            table[needle] = table.get(needle, 0) | bit
        if needles.folded:
            for stranger in STRANGERS:
                self._needles[stranger] = self._needles.get(stranger, 0) | bit

    def scan(self, block: bytes, now: int) -> list[LineMatch]:
        """The hits in `block`, whole lines each with its line end, in the order of the lines.

        One line gives at most one hit for each filter. `now` is only for dates without a year.
        """
        self._count_overlong(block)
        matches: list[LineMatch] = []
        counted = line = 0
        for start, mask in self._candidates(block):
            end = block.find(b"\n", start)
            end = len(block) if end < 0 else end
            if end - start > OVERLONG:
                continue
            line += block.count(b"\n", counted, start)
            counted = start
            text = block[start:end].decode("utf-8", "replace").rstrip("\r")
            self._match_line(line, text, mask, now, matches)
        return matches

    def _candidates(self, block: bytes) -> list[tuple[int, int]]:
        """The beginnings of the lines that could match, each with the rules that could."""
        masks: dict[int, int] = {}
        _search(block, self._needles, masks)
        if self._folded:
            _search(block.lower(), self._folded, masks)
        if self._always:
            start = 0
            while start < len(block):
                masks[start] = masks.get(start, 0) | self._always
                start = (block.find(b"\n", start) + 1) or len(block)
        return sorted(masks.items())

    def _match_line(self, line: int, text: str, mask: int, now: int, matches: list[LineMatch]) -> None:
        by_filter: dict[int, list[Rule]] = {}
        while mask:
            low = mask & -mask
            index, rule = self._rules[low.bit_length() - 1]
            by_filter.setdefault(index, []).append(rule)
            mask ^= low
        seen: dict[int, tuple[FoundDate | None, str]] = {}
        for index, rules in by_filter.items():
            one, forms = self.filters[index], self._forms[index]
            if forms not in seen:
                found = find_date(text, one.dates)
                seen[forms] = (found, text[: found.start] + text[found.end :] if found else text)
            found, rest = seen[forms]
            match = one.match_some(rest, rules)
            if match:
                at = self._clock.read(found, now) if found else None
                if at is None:
                    self.dateless += 1
                matches.append(LineMatch(line, index, at, match.ip, match.user, match.rule))

    def _count_overlong(self, block: bytes) -> None:
        start = 0
        while start + OVERLONG < len(block):
            end = block.rfind(b"\n", start, start + OVERLONG + 1)
            if end < 0:
                self.overlong += 1
                end = block.find(b"\n", start)
                if end < 0:
                    return
            start = end + 1


def _search(block: bytes, needles: dict[bytes, int], masks: dict[int, int]) -> None:
    """Add to `masks` the beginning of every line that holds a needle, with the needle's rules."""
    for needle, mask in needles.items():
        at = block.find(needle)
        while at >= 0:
            start = block.rfind(b"\n", 0, at) + 1
            masks[start] = masks.get(start, 0) | mask
            end = block.find(b"\n", at)
            if end < 0:
                break
            at = block.find(needle, end + 1)
