"""A filter's `datepattern` as forms of a date.

Each line of it is an expression with strptime's directives, tried in turn. As in fail2ban it may stand anywhere in a
log's line, at the edges of words, unless it says otherwise: `^` or `{^LN-BEG}` (after at most two characters that are
neither letter nor digit), `**` or `{UNB}` for no edge. What is cut out is the first group when there is an unnamed
one, else the whole. `{DATE}` stands for each of the usual dates, `{EPOCH}`, `{LEPOCH}` and `{TAI64N}` for numbers;
`{DEFAULT}`, `{^LN-BEG}`, `{NONE}`, `EPOCH`, `LEPOCH`, `TAI64N` may stand alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache

from mcban.filters.charsets import ALL
from mcban.filters.cut import BETWEEN_WORDS, EDGE_OF_WORD, NEXT_TO_NO_WORD, NOTHING, OPEN, UNKNOWN, read_cut
from mcban.filters.dates import CORES, DEFAULT_FORMS, LINE_FORMS, DateForm
from mcban.filters.directives import EPOCH, FIELDS, LONG_EPOCH, TAI64N, expand_directives, has_names
from mcban.filters.expression import Expression

Fail = Callable[[str], Exception]

_BEGINNING = re.compile(r"\{(\^?LN-BEG|\*?WD-BEG|UNB)\}", re.IGNORECASE)
_END = re.compile(r"\{(\*?WD-END)\}$", re.IGNORECASE)
_WHOLE = re.compile(r"^(\^?)(.*?)((?:(?<!\\)\$)?)$", re.DOTALL)
_GLOBAL_FLAGS = re.compile(r"\(\?([aiLmsux]+)\)")
_DATE = re.compile(r"(?<!\\)\{DATE\}", re.IGNORECASE)
_NUMBERS = {"EPOCH": EPOCH, "LEPOCH": LONG_EPOCH, "TAI64N": TAI64N}
_NUMBER = re.compile(r"(?<!\\)\{(EPOCH|LEPOCH|TAI64N)\}", re.IGNORECASE)
_MISPLACED = re.compile(r"(?<!\\)\{(?:\^?LN-BEG|\*?WD-BEG|\*?WD-END|UNB|NONE|DEFAULT)\}", re.IGNORECASE)

_EDGE = r"(?:(?<!\w)|(?!\w))"
_BEHIND_NO_WORD = r"^\W{0,2}"
_EDGES = {"": OPEN, _EDGE: EDGE_OF_WORD, _BEHIND_NO_WORD: NEXT_TO_NO_WORD}
_HAS_BEGINNING = re.compile(r"(?:\((?:\?:)?)*(?:\^|\*\*)")
_HAS_END = re.compile(r"(?<!\\)(?:\$|\\b|\\s|\*\*)\)*$")
_CLASHING = re.compile(r"\(\?P|\(\?\(|\\\d")
"""Names and numbers of groups: with one date in between they may be sound, with another not."""
_NO_DATE = (DateForm("none", re.compile("()"), NOTHING),)
_ALONE = {
    "{DEFAULT}": DEFAULT_FORMS,
    "DEFAULT": DEFAULT_FORMS,
    "{^LN-BEG}": LINE_FORMS,
    "{LN-BEG}": LINE_FORMS,
    "{NONE}": _NO_DATE,
    "NONE": _NO_DATE,
}


def compile_datepattern(value: str, fail: Fail) -> tuple[DateForm, ...]:
    """The forms of a datepattern; the default ones when it is empty. Raises what `fail` makes of a message."""
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if not lines:
        return DEFAULT_FORMS
    forms: list[DateForm] = []
    for line in lines:
        try:
            forms += (form for form in _compile(line) if form not in forms)
        except ValueError as error:
            raise fail(str(error)) from error
    return tuple(forms)


@lru_cache(maxsize=256)  # filters of one family share theirs, and so the search for it in each line
def _compile(line: str) -> tuple[DateForm, ...]:
    """The forms of one line. Raises ValueError."""
    word = line.upper()
    if word in _ALONE:
        return _ALONE[word]
    if word == "ISO8601":
        return (_compile_line("{DATE}", line, date=CORES["ISO 8601"]),)
    if number := re.fullmatch(r"(\^|\{\^?LN-BEG\})?(EPOCH|LEPOCH|TAI64N)", word):
        return _numbers(number[2], anchored=number[1] is not None)
    if _DATE.search(line):
        return _with_dates(line)
    return (_compile_line(line, line),)


def _with_dates(line: str) -> tuple[DateForm, ...]:
    """The forms of a line with {DATE}, each with one of the usual dates; most are compiled when they are needed."""
    (name, core), *others = CORES.items()
    first = _compile_line(line, f"{line} ({name})", date=core)
    if _CLASHING.search(first.source.replace(_date(core), "")):
        return first, *(_compile_line(line, f"{line} ({name})", date=other) for name, other in others)

    # All of them end as the first does, with a letter or a digit, but not all begin so. And unless a date is cut out as
    # a whole, who knows which part of it is.
    edge_counts = first.anywhere or r"\b" in line
    cut = first.cut._replace(before=ALL) if edge_counts else first.cut
    if not cut.decides:
        cut = UNKNOWN

    def like_first(name: str, other: str) -> DateForm:
        source = first.source.replace(_date(core), _date(other))
        return DateForm(f"{line} ({name})", source, cut, anywhere=first.anywhere, flags=first.flags)

    return first, *(like_first(name, other) for name, other in others)


def _date(core: str) -> str:
    return f"(?a:{core})"


def _numbers(word: str, *, anchored: bool) -> tuple[DateForm, ...]:
    """A number alone: at the line's beginning, perhaps in brackets; an epoch that is not anchored also in audit(…)."""
    text = _NUMBERS[word]
    edge = r"(?!\w)"
    if anchored:
        return (DateForm(word, re.compile(rf"\W{{0,2}}({text}){edge}", re.ASCII), BETWEEN_WORDS),)
    if word == "TAI64N":
        return (DateForm(word, re.compile(rf"(?<!\w)({text}){edge}", re.ASCII), BETWEEN_WORDS, anywhere=True),)
    in_audit = rf"[^'\"(]*+(?<=audit)(?<!\waudit)\(({text})(?=:\d+\))"
    return (
        DateForm(word, re.compile(rf"({text}){edge}", re.ASCII), BETWEEN_WORDS),
        DateForm(f"{word} in brackets", re.compile(rf"\[({text})(?=\])", re.ASCII), BETWEEN_WORDS),
        DateForm(f"{word} in audit", re.compile(in_audit, re.ASCII), BETWEEN_WORDS),
    )


def _compile_line(line: str, name: str, date: str = "") -> DateForm:
    """The form of one line; `date` is what stands for {DATE}. Raises ValueError."""
    text, opening, end = _split_words(line)
    # What a filter's author writes himself means what it means in his rules: `\w` is any letter, not those of ASCII.
    flags = re.IGNORECASE if date or has_names(text) else 0
    while own := _GLOBAL_FLAGS.search(text):
        flags |= re.IGNORECASE if "i" in own[1] else 0
        flags |= re.VERBOSE if "x" in own[1] else 0
        text = text[: own.start()] + text[own.end() :]
    if misplaced := _MISPLACED.search(text):
        raise ValueError(
            f"datepattern has {misplaced[0]} where it has no meaning: it belongs to the beginning or the end"
        )
    if _HAS_BEGINNING.match(text) and opening == _EDGE:
        opening = ""
    if _HAS_END.search(text) and end:
        end = ""
    text = re.sub(r"^(\(*)\*\*", r"\1", text)
    text = re.sub(r"(?<!\\)\*\*(\)*)$", r"\1", text)
    # With a number, everything the line says is cut out, as fail2ban does.
    whole = _NUMBER.search(text) is not None
    expanded = expand_directives(text, ValueError)
    expanded = _NUMBER.sub(lambda found: f"(?a:{_NUMBERS[found[1].upper()]})", expanded)
    expanded = _DATE.sub(lambda _: _date(date), expanded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inner = Expression(expanded, flags)
            whole = whole or inner.groups == len(inner.groupindex)
            if whole:
                expanded = _WHOLE.sub(r"\1(\2)\3", expanded)
            pattern = re.compile(f"{opening}{expanded}{end}", flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"datepattern does not compile: {error}") from error
    # `^a|b` is not held to the beginning as a whole.
    at_beginning = opening.startswith("^") or (expanded.startswith("^") and "|" not in text)
    fields = [number for field, number in inner.groupindex.items() if field in FIELDS]
    cut = UNKNOWN if inner.tree is None else read_cut(inner.tree, fields, _EDGES[opening], _EDGES[end], whole=whole)
    return DateForm(name, pattern, cut, anywhere=not at_beginning)


def _split_words(line: str) -> tuple[str, str, str]:
    """A line without the words in braces around it, and the expressions that stand for them."""
    opening, end = _EDGE, _EDGE
    while word := _BEGINNING.match(line):
        match word[1].upper():
            case "UNB":
                opening = end = ""
            case "*WD-BEG":
                opening = ""
            case "^LN-BEG" | "LN-BEG":
                opening = _BEHIND_NO_WORD
        line = line[word.end() :]
    while word := _END.search(line):
        end = "" if word[1].startswith("*") else end
        line = line[: word.start()]
    return line, opening, end


__all__ = ["compile_datepattern"]
