"""A filter's `datepattern` as forms of a date: strptime directives, expressions, and fail2ban's words in braces."""

from __future__ import annotations

import re
from collections.abc import Callable

from mcban.filters.dates import CORES, DEFAULT_FORMS, DateForm

_DIRECTIVES = {
    "Y": r"(?P<Y>(?:19|20|21)\d\d)",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>0[1-9]|1[0-2]|[1-9])",
    "d": r"(?P<d_>0[1-9]|[12]\d|3[01]|[ ]?[1-9])",
    "j": r"(?P<j>\d{1,3})",
    "H": r"(?P<H>[01]\d|2[0-3]|\d)",
    "I": r"(?P<I>0\d|1[0-2]|\d)",
    "M": r"(?P<M>[0-5]?\d)",
    "S": r"(?P<S>[0-5]\d|60|\d)",
    "f": r"\d{1,9}",
    "p": r"(?P<p>[AaPp][Mm])",
    "b": r"(?P<b>(?i:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))",
    "B": r"(?P<b>(?i:January|February|March|April|May|June|July|August|September|October|November|December))",
    "a": r"(?i:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "A": r"(?i:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
    "z": r"(?P<z>Z|UTC|GMT|[+-][01]\d(?::?[0-5]\d)?)",
    "s": r"(?P<E>\d{1,11})",
}
_DIRECTIVES |= {
    "ExY": _DIRECTIVES["Y"],
    "Exy": _DIRECTIVES["y"],
    "Exm": r"(?P<m>0[1-9]|1[0-2])",
    "Exd": r"(?P<d_>0[1-9]|[12]\d|3[01])",
    "ExH": r"(?P<H>[01]\d|2[0-3])",
    "ExM": r"(?P<M>[0-5]\d)",
    "ExS": r"(?P<S>[0-5]\d|60)",
    "Exz": _DIRECTIVES["z"],
    "T": f"{_DIRECTIVES['H']}:{_DIRECTIVES['M']}:{_DIRECTIVES['S']}",
    "F": f"{_DIRECTIVES['Y']}-{_DIRECTIVES['m']}-{_DIRECTIVES['d']}",
}
_DIRECTIVE = re.compile(r"%(%|Ex[YymdHMSz]|.)")
_WORD = re.compile(r"\{(\^?LN-BEG|\*?WD-BEG|\*?WD-END|UNB|DATE|NONE|EPOCH|LEPOCH|TAI64N|DEFAULT)\}", re.IGNORECASE)
_DATE = re.compile(r"\{DATE\}", re.IGNORECASE)
_EPOCH = r"(?P<E>1\d{9})(?:\.\d{1,9})?"
_NOTHING = re.compile(r"(?!)")


def compile_datepattern(value: str, fail: Callable[[str], Exception]) -> tuple[DateForm, ...]:
    """The forms of a datepattern, several lines being tried in turn; the default forms when it is empty."""
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if not lines:
        return DEFAULT_FORMS
    forms: list[DateForm] = []
    for line in lines:
        if line.upper() in {"DEFAULT", "{DEFAULT}", "{^LN-BEG}"}:
            forms += DEFAULT_FORMS
        elif line.upper() in {"{NONE}", "NONE"}:
            forms.append(DateForm("none", _NOTHING))
        elif _DATE.search(line):
            # Each of the usual ways to write a date, at this place.
            forms += [_compile_line(core.join(_DATE.split(line)), fail) for core in CORES.values()]
        else:
            forms.append(_compile_line(line, fail))
    return tuple(forms)


def _compile_line(line: str, fail: Callable[[str], Exception]) -> DateForm:
    at_start = False
    text = line
    while word := _WORD.match(text):
        name = word[1].upper()
        if name in {"EPOCH"}:
            break
        if name in {"^LN-BEG", "LN-BEG"}:
            at_start = True
        elif name not in {"WD-BEG", "*WD-BEG", "UNB"}:
            raise fail(f"datepattern uses {word[0]}, which mcban does not support yet")
        text = text[word.end() :]
    if text.startswith("^"):
        at_start, text = True, text[1:]
    text = re.sub(r"\{\*?WD-END\}$|\$$", "", text)
    text = re.sub(r"\{EPOCH\}|(?<![%\w])EPOCH(?!\w)", lambda _: _EPOCH, text, flags=re.IGNORECASE)
    if word := _WORD.search(text):
        raise fail(f"datepattern uses {word[0]}, which mcban does not support yet")

    def directive(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] not in _DIRECTIVES:
            raise fail(f"datepattern uses {found[0]}, which mcban does not support yet")
        return _DIRECTIVES[found[1]]

    expanded = _DIRECTIVE.sub(directive, text)
    try:
        outer = re.compile(expanded)
        whole = expanded if outer.groups > len(outer.groupindex) else f"(?P<d>{expanded})"
        if "(?P<d>" not in whole:
            whole = re.sub(r"(?<!\\)\((?!\?)", "(?P<d>", whole, count=1)
        begin = r"\W{0,2}?" if at_start and not line.startswith("^") else "" if at_start else r"(?:^|(?<=\W))"
        return DateForm(line, re.compile(rf"{begin}{whole}(?!\d)"), anywhere=not at_start)
    except re.error as error:
        raise fail(f"datepattern does not compile: {error}") from error
