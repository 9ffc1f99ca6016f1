"""The texts of which a line must hold at least one for an expression to match: what the scanner looks for first.

Only what is certain is said: an expression about which nothing is certain has no such texts, and is tried on every
line. Works on the tree that Python's own parser makes of the expression, so it cannot read it differently.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_SHORTEST = 3
_MOST = 24
_MEANINGFUL = 16
_CUT = re.compile(rb"(?<=\W)(?=\W)")

STRANGERS = tuple(letter.encode() for letter in "\u0130\u0131\u017f\u212a")
"""Where case is ignored, Python takes i, s and k also for these: two Turkish i's, the long s, the Kelvin sign."""

_Demand = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Needles:
    """Texts of which a matching line holds one; if `folded`, in its lower case form, or else one of STRANGERS."""

    texts: frozenset[bytes]
    folded: bool


def required_literals(pattern: re.Pattern[str]) -> Needles | None:
    """What any line holds that `pattern` matches once its date was cut out, or None when nothing is certain."""
    folded = bool(pattern.flags & re.IGNORECASE) or re.search(r"\(\?[a-z]*i", pattern.pattern) is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = import_module("re._parser").parse(pattern.pattern, pattern.flags)
    except Exception:  # noqa: BLE001  # the tree is Python's private affair: when it changes, there is no short cut
        return None
    best = _best(_demands(tree))
    if best is None:
        return None
    return Needles(frozenset(text.lower() for text in best) if folded else best, folded)


def _best(demands: list[_Demand]) -> _Demand | None:
    """The demand that the fewest lines meet, as far as lengths tell."""

    def rank(demand: _Demand) -> tuple[float, int]:
        shortest = min(map(len, demand))
        return (min(shortest, _MEANINGFUL) / len(demand), shortest)

    usable = [demand for demand in demands if len(demand) <= _MOST and min(map(len, demand)) >= _SHORTEST]
    return max(usable, key=rank, default=None)


def _demands(sequence: Any) -> list[_Demand]:
    """For each part of a sequence that must match, the texts of which it holds one."""
    demands: list[_Demand] = []
    run = bytearray()
    for operation, argument in sequence:
        name = str(operation)
        if name == "LITERAL" and 0 < argument < 128 and argument != ord("\n"):
            run.append(argument)
            continue
        demands += _pieces(bytes(run))
        run.clear()
        if name == "SUBPATTERN":
            demands += _demands(argument[3])
        elif name == "ATOMIC_GROUP":
            demands += _demands(argument)
        elif name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"} and argument[0] > 0:
            demands += _demands(argument[2])
        elif name == "BRANCH":
            branches = [_best(_demands(branch)) for branch in argument[1]]
            certain = [branch for branch in branches if branch]
            if len(certain) == len(branches):
                demands.append(frozenset().union(*certain))
    return demands + _pieces(bytes(run))


def _pieces(run: bytes) -> list[_Demand]:
    """A text without the places where a date may have been cut out: see `DateForm.bounded`."""
    return [frozenset((piece,)) for piece in _CUT.split(run) if piece]
