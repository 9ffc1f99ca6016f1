"""What a line must hold for an expression to match: what the scanner looks for first.

Only what is certain is said: of an expression about which nothing is certain nothing is demanded, and it is tried on
every line. Works on the tree that Python's own parser makes of the expression, so it cannot read it differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from math import log2
from typing import Any

from mcban.filters.charsets import NEWLINE, WIDE, members, read_set
from mcban.filters.cut import Cut
from mcban.filters.expression import Expression

Needle = tuple[int, ...]
"""Characters that follow each other in a line: a set (`charsets.py`) for each."""
Demand = frozenset[Needle]
"""Needles of which a line holds at least one."""

_MOST = 48
_LONGEST = 48
_LEAST_WORTH = 9.0
"""Bits: a demand that one line in 500 meets by chance is not worth looking for."""
_PLENTY = 30.0
_ENOUGH = 64.0


@lru_cache(maxsize=4096)
def required_needles(expressions: tuple[Expression, ...], cuts: frozenset[Cut]) -> Demand | None:
    """What any line holds in which all of `expressions` match, or None when nothing is certain.

    The expressions are searched for in the line without its date; `cuts` say where that may have stood.
    """
    demands: list[Demand] = []
    for one in expressions:
        folded = bool(one.flags & re.IGNORECASE) or re.search(r"\(\?[a-zA-Z]*i", one.source) is not None
        tree = one.tree
        if tree is not None:
            demands += _Walk(folded, cuts).demands(tree)
    return _best(demands)


def _best(demands: list[Demand]) -> Demand | None:
    """The demand that the fewest lines meet, as far as one can tell."""
    usable = [demand for demand in demands if len(demand) <= _MOST and _worth(demand) >= _LEAST_WORTH]
    return max(usable, key=lambda demand: (min(_worth(demand), _ENOUGH), -len(demand)), default=None)


def _worth(demand: Demand) -> float:
    return min(map(_total, demand)) - log2(len(demand))


@lru_cache(maxsize=1024)
def _bits(characters: int) -> float:
    """How much one looks less probable by asking for one of these characters: frequent ones tell little."""
    share = sum(_SHARE[code] for code in members(characters)) + (0.02 if characters & WIDE else 0)
    return -log2(min(share, 1.0))


def _shares() -> list[float]:
    share = [0.0002] * 32 + [0.004] * 95 + [0.0002]
    for text, each in (
        (" ", 0.1),
        ("0123456789", 0.028),
        ("etaoinsr", 0.03),
        ("ldcumpfhg", 0.015),
        ("=:.-/[]@", 0.012),
    ):
        for letter in text:
            share[ord(letter)] = each
    return share


_SHARE = _shares()


class _Walk:
    """Collects the demands of one expression's tree."""

    def __init__(self, folded: bool, cuts: frozenset[Cut]) -> None:
        self._folded, self._cuts = folded, cuts

    def demands(self, sequence: Any) -> list[Demand]:
        """For each part of a sequence that must match, the needles of which it holds one."""
        demands: list[Demand] = []
        run: list[int] = []
        for item in self._items(sequence, demands):
            if item is not None and not item & NEWLINE:
                run.append(item)
                continue
            demands += self._pieces(run)
            run = []
        return demands + self._pieces(run)

    def _items(self, sequence: Any, demands: list[Demand]) -> Iterator[int | None]:
        """The characters of a sequence one by one, None where anything may stand between; adds to `demands` what
        its branches demand."""
        for operation, argument in sequence:
            name = str(operation)
            if name in {"AT", "ASSERT", "ASSERT_NOT"}:
                continue
            if name == "SUBPATTERN":
                yield from self._items(argument[3], demands)
            elif name == "ATOMIC_GROUP":
                yield from self._items(argument, demands)
            elif name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
                least, most, inner = argument
                yield from self._repeated(least, most, inner, demands)
            elif name == "BRANCH":
                yield None
                branches = [_best(self.demands(branch)) for branch in argument[1]]
                certain = [branch for branch in branches if branch]
                if len(certain) == len(branches):
                    demands.append(frozenset().union(*certain))
            else:
                yield read_set(name, argument, folded=self._folded)

    def _repeated(self, least: int, most: Any, inner: Any, demands: list[Demand]) -> Iterator[int | None]:
        if least == 0:
            yield None
            return
        items = list(self._items(inner, demands))
        shown = min(least, _LONGEST // (len(items) or 1) + 1)
        yield from items * shown
        if most != least or shown < least:
            # Others may follow before the last ones, which are next to what stands behind.
            yield None
            yield from items * shown

    def _pieces(self, run: list[int]) -> list[Demand]:
        """A run of characters without the places where a date may have been cut out."""
        if not run:
            return []
        ends = [at for at in range(1, len(run)) if any(cut.joins(run[at - 1], run[at]) for cut in self._cuts)]
        pieces: list[Demand] = []
        start = 0
        for end in [*ends, len(run)]:
            piece = _trim(run[start:end])
            if piece:
                pieces.append(frozenset((piece,)))
            start = end
        if len(ends) >= len(run) // 2 > 2:
            # It may have stood nearly everywhere, but only once: one half is whole.
            half = len(run) // 2
            halves = frozenset(filter(None, (_trim(run[:half]), _trim(run[half:]))))
            if len(halves) == 2:
                pieces.append(halves)
        return pieces


def _trim(run: Sequence[int]) -> Needle:
    """A run without what tells nothing at its ends, and not too long. Where its letters alone tell enough, they are
    taken without the classes around them: texts are found faster than expressions."""
    texts = [list(group) for plain, group in groupby(run, _is_plain) if plain]
    text = max(texts, key=_total, default=[])
    if _total(text) >= _PLENTY:
        return tuple(text[:_LONGEST])
    start, end = 0, len(run)
    while start < end and _bits(run[start]) < 1:
        start += 1
    while end > start and _bits(run[end - 1]) < 1:
        end -= 1
    return tuple(run[start : min(end, start + _LONGEST)])


def _total(needle: Sequence[int]) -> float:
    return sum(map(_bits, needle))


@lru_cache(maxsize=1024)
def _is_plain(characters: int) -> bool:
    return not characters & WIDE and len(members(characters)) == 1


def needle_expression(needle: Needle) -> bytes:
    """A needle as an expression on UTF-8 bytes, in the language that Python and Hyperscan share."""
    inner = b"".join(map(_element, needle[1:-1]))
    # Of a character at an end one byte is enough to find it.
    ends = [_class(characters, wide=characters & WIDE > 0) for characters in (needle[0], needle[-1])]
    return ends[0] + inner + ends[1] if len(needle) > 1 else ends[0]


def needle_text(needle: Needle) -> bytes | None:
    """A needle as a plain text, when it is one."""
    codes = [members(characters) for characters in needle]
    if any(len(code) != 1 or characters & WIDE for code, characters in zip(codes, needle, strict=True)):
        return None
    return bytes(code[0] for code in codes)


@lru_cache(maxsize=1024)
def _element(characters: int) -> bytes:
    plain = _class(characters, wide=False)
    if not characters & WIDE:
        return plain
    # One character beyond ASCII is at least one byte, and what is no UTF-8 becomes characters of that kind.
    wide = b"[\\x80-\\xff]+"
    return b"(?:" + plain + b"|" + wide + b")" if members(characters) else wide


def _class(characters: int, *, wide: bool) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % code for code in members(characters)) + (b"\\x80-\\xff]" if wide else b"]")
