"""strptime's directives, and fail2ban's further ones, as expressions whose groups are the fields of a date.

A field's group has the name of its directive, so that an expression may as well name a group itself: Y y m b B d j H I
p M S f z Z a A u w U W G V. Two are ours: `_epoch`, seconds since the epoch, and `_tai`, a TAI64N label's seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MONTHS: tuple[str, ...] = ("January", "February", "March", "April", "May", "June")
MONTHS += ("July", "August", "September", "October", "November", "December")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MINUTE_FIELDS = frozenset((*"YymbBdjHIpMzZaAuwUWGV", "_epoch", "_tai"))
"""The fields that decide a date's minute; S tells the second in it, f is dropped."""
FIELDS = MINUTE_FIELDS | {"S", "f"}

EPOCH = r"(?P<_epoch>\d{10,11})\b(?:\.\d{3,9})?"
LONG_EPOCH = r"(?P<_epoch>\d{10,11})(?:\d{3}(?:\.\d{1,6}|\d{3})?)?"
"""As EPOCH, or in milliseconds (13 digits) or microseconds (16 digits)."""
TAI64N = r"@4[0-9a-f](?P<_tai>[0-9a-f]{14})[0-9a-f]{8}"


def _names(group: str, names: tuple[str, ...], length: int | None = None) -> str:
    # The look at the first letter saves trying all names on each line.
    first = "".join(sorted({name[0] for name in names}))
    return f"(?=[{first}])(?P<{group}>{'|'.join(name[:length] for name in names)})"


_OFFSET = r"[+-](?:0\d|1[0-4])(?::?[0-5]\d)?"
_EXPRESSIONS = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>0[1-9]|1[0-2]|[1-9])",
    "d": r"(?P<d>0[1-9]|[12]\d|3[01]| ?[1-9])",
    "j": r"(?P<j>36[0-6]|3[0-5]\d|[0-2]?\d?\d)",
    "H": r"(?P<H>[01]\d|2[0-3]|\d)",
    "I": r"(?P<I>0\d|1[0-2]|\d)",
    "k": r" ?(?P<H>[01]\d|2[0-3]|\d)",
    "l": r" ?(?P<I>0\d|1[0-2]|\d)",
    "M": r"(?P<M>[0-5]\d|\d)",
    "S": r"(?P<S>[0-5]\d|6[01]|\d)",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>[AP]M)",
    "b": _names("b", MONTHS, 3),
    "B": _names("B", MONTHS),
    "a": _names("a", WEEKDAYS, 3),
    "A": _names("A", WEEKDAYS),
    "u": r"(?P<u>[1-7])",
    "w": r"(?P<w>[0-6])",
    "U": r"(?P<U>5[0-3]|[0-4]\d|\d)",
    "W": r"(?P<W>5[0-3]|[0-4]\d|\d)",
    "G": r"(?P<G>\d{4})",
    "V": r"(?P<V>5[0-3]|0[1-9]|[1-4]\d|\d)",
    # Zones are written in capitals, also where case is ignored: "13:00:00 error" has none.
    "z": rf"(?-i:(?P<z>Z|UTC|GMT|{_OFFSET}))",
    "Z": r"(?-i:(?P<Z>Z|[A-Z]{3,5}))",
    "s": EPOCH,
    "ExY": r"(?P<Y>(?:19[7-9]|20\d|21\d)\d)",
    "Exm": r"(?P<m>0[1-9]|1[0-2])",
    "Exd": r"(?P<d>0[1-9]|[12]\d|3[01])",
    "ExH": r"(?P<H>[01]\d|2[0-3])",
    "ExM": r"(?P<M>[0-5]\d)",
    "ExS": r"(?P<S>[0-5]\d|6[01])",
    "ExZ": r"(?-i:(?P<Z>[A-Z]{3,5}|[A-Z]))",
    "Exz": rf"(?-i:(?P<z>(?:[A-Z]{{3,5}}|[A-Z])?{_OFFSET}|[A-Z]{{3,5}}|[A-Z]))",
}
_EXPRESSIONS |= {f"Ex{name}": _EXPRESSIONS[name] for name in "yklI"}
_COMPOSED = {
    "T": "%H:%M:%S",
    "R": "%H:%M",
    "F": "%Y-%m-%d",
    "D": "%m/%d/%y",
    "e": "%d",
    "c": "%a %b %d %H:%M:%S %Y",
    "x": "%m/%d/%y",
    "X": "%H:%M:%S",
}
_DIRECTIVE = re.compile(r"%(Ex[YymdHMSzZklI]|.|$)", re.DOTALL)
_LETTERS = re.compile(r"(?<!%)(?:%%)*%[aAbBpc]")


def expand_directives(text: str, fail: Callable[[str], Exception]) -> str:
    """An expression with its directives expanded; raises what `fail` makes of a message when one is unknown.

    What a directive takes is ASCII, whatever the rest of the expression means by `\\w` and its like.
    """

    def expand(found: re.Match[str]) -> str:
        name = found[1]
        if name == "%":
            return "%"
        if name in _COMPOSED:
            return expand_directives(_COMPOSED[name], fail)
        if name not in _EXPRESSIONS:
            raise fail(f"datepattern uses {found[0]}, which is no directive of a date")
        return f"(?a:{_EXPRESSIONS[name]})"

    return _DIRECTIVE.sub(expand, text)


def has_names(text: str) -> bool:
    """Whether an unexpanded expression takes names of months or days, or AM and PM: then its case is ignored."""
    return _LETTERS.search(text) is not None
