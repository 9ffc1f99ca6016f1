"""Which characters one element of an expression takes, as sets in one number each.

Bits 0 to 127 of a set are the ASCII characters, bit 128 stands for all others at once. Where Python's rules for the
others are not worth following, the set is larger than the truth, never smaller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

WIDE = 1 << 128
"""Any character beyond ASCII."""
ASCII = WIDE - 1
ALL = ASCII | WIDE
NEWLINE = 1 << 10


def make_set(characters: Iterable[int]) -> int:
    """The set of these code points."""
    result = 0
    for character in characters:
        result |= 1 << character if character < 128 else WIDE
    return result


def _category(expression: str) -> int:
    """The ASCII characters of a class, without the others."""
    pattern = re.compile(expression)
    return make_set(code for code in range(128) if pattern.match(chr(code)))


_SPACE, _DIGIT, WORD = (_category(text) for text in (r"\s", r"\d", r"\w"))
_CATEGORIES = {
    "CATEGORY_SPACE": _SPACE | WIDE,
    "CATEGORY_NOT_SPACE": ALL & ~_SPACE,
    "CATEGORY_DIGIT": _DIGIT | WIDE,
    "CATEGORY_NOT_DIGIT": ALL & ~_DIGIT,
    "CATEGORY_WORD": WORD | WIDE,
    "CATEGORY_NOT_WORD": ALL & ~WORD,
}
# Where case is ignored, Python takes i, s and k also for two Turkish i's, the long s and the Kelvin sign.
_STRANGE = make_set(map(ord, "iskISK"))
_LOWER = make_set(range(ord("a"), ord("z") + 1))
_UPPER = _LOWER >> 32


def read_set(operation: str, argument: Any, *, folded: bool) -> int | None:
    """What a node of the tree of Python's own parser takes as one character; None when it is no such node."""
    if operation == "LITERAL":
        return _fold(make_set([argument]), folded)
    if operation == "NOT_LITERAL":
        characters = make_set([argument])
        return ALL & ~(_both_cases(characters) if folded else characters) | WIDE
    if operation == "ANY":
        return ALL  # perhaps without the newline, which decides nothing here
    if operation == "IN":
        return _read_class(argument, folded)
    return None


def _read_class(members: Any, folded: bool) -> int:
    result = 0
    negated = False
    for kind, value in members:
        name = str(kind)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            result |= make_set([value])
        elif name == "RANGE":
            low, high = value
            result |= make_set(range(low, min(high, 127) + 1)) | (WIDE if high > 127 else 0)
        elif str(value) in _CATEGORIES:
            result |= _CATEGORIES[str(value)]
        else:
            return ALL
    if negated:
        # What is left out must not be more than the truth, so the strangers do not count here.
        return ALL & ~(_both_cases(result) if folded else result) | WIDE
    return _fold(result, folded)


def _both_cases(characters: int) -> int:
    return characters | (characters & _LOWER) >> 32 | (characters & _UPPER) << 32


def _fold(characters: int, folded: bool) -> int:
    if not folded:
        return characters
    both = _both_cases(characters)
    if both & WIDE:
        both |= _STRANGE  # the strangers' plain forms
    return both | WIDE if both & _STRANGE else both


@lru_cache(maxsize=1024)
def members(characters: int) -> tuple[int, ...]:
    """The ASCII characters of a set."""
    return tuple(code for code in range(128) if characters >> code & 1)
