"""Where a line's date stands.

fail2ban looks for the usual dates anywhere in a line and learns from a log where they tend to stand. So a date in an
attacker's text can become the hit's, which moves it out of every window; and when the text is cut out, what stood
apart is joined. Here the same line always has the same date, whatever came before it, and a date counts only where a
daemon writes it. The usual ways to write one are recognised

1. at the beginning of the line, after at most two characters that are neither letter nor digit: `[`, `- `, `@`;
2. after what daemons and collectors put before their date: a priority (`<34>1 `), a number in brackets (process,
   thread, the kernel's uptime), a level (`WARN: `), `host program[pid]: `, `container | `;
3. in an access log's brackets, behind the client's address and a dash, before the quoted request: servers escape
   the quotation marks of a login;
4. in the `audit(1795352400.123:42)` with which auditd and the kernel begin such a line;
5. as a JSON object's or a logfmt line's value under one of the usual names (`time`, `ts`, `@timestamp`…). Both are
   read by their structure, so that no text inside of a value can bring a name of its own.

A filter whose dates stand elsewhere says so by its `datepattern`, and is taken at its word: it may search the whole
line. Then the leftmost date counts. `{^LN-BEG}` alone means the first of these places, `{DEFAULT}` all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mcban.filters.cut import BETWEEN_WORDS, Cut
from mcban.filters.directives import EPOCH, MINUTE_FIELDS, MONTHS, TAI64N, WEEKDAYS, expand_directives
from mcban.filters.zones import ABBREVIATIONS

FLAGS = re.ASCII | re.IGNORECASE
_COMPILED = {"look", "minute", "names", "second", "fraction"}


class DateForm:
    """One way to write a date, at one kind of place.

    The expression is matched at the beginning of the line; or behind what `after` matches there; or searched for,
    when `anywhere`. Its first group is what is cut out; groups named as strptime's directives are the date's fields
    (see `directives.py`). A form without fields says that the lines it matches have no date of their own.

    The text of an expression is compiled with `flags` when it is first needed: most forms are never tried, and to
    compile them all takes as long as to read ten thousand lines.

    `cut` says what is certain of what is cut out.
    """

    __slots__ = (
        "after",
        "anywhere",
        "cut",
        "flags",
        "fraction",
        "look",
        "minute",
        "name",
        "names",
        "second",
        "source",
    )

    look: Callable[..., re.Match[str] | None]
    minute: tuple[int, ...]
    names: tuple[str, ...]
    second: int
    fraction: int

    def __init__(
        self,
        name: str,
        pattern: re.Pattern[str] | str,
        cut: Cut,
        *,
        anywhere: bool = False,
        after: re.Pattern[str] | None = None,
        flags: int = FLAGS,
    ) -> None:
        self.name = name
        self.anywhere = anywhere
        self.after = after
        self.cut = cut
        if isinstance(pattern, str):
            self.source, self.flags = pattern, flags
        else:
            self.source, self.flags = pattern.pattern, pattern.flags
            self._take(pattern)

    def __getattr__(self, name: str) -> Any:
        """What the expression gives, compiled when it is first asked for."""
        if name not in _COMPILED:
            raise AttributeError(name)
        self._take(re.compile(self.source, self.flags))
        return getattr(self, name)

    def _take(self, pattern: re.Pattern[str]) -> None:
        fields = sorted((number, field) for field, number in pattern.groupindex.items() if field in MINUTE_FIELDS)
        self.names = tuple(field for _, field in fields)
        self.minute = tuple(number for number, _ in fields)
        self.second = pattern.groupindex.get("S", 0)
        self.fraction = pattern.groupindex.get("f", 0)
        self.look = pattern.search if self.anywhere else pattern.match

    def __repr__(self) -> str:
        return f"DateForm({self.name!r})"


class FoundDate(NamedTuple):
    """A date in a line: the part to cut out, its form, and what the form's expression matched."""

    start: int
    end: int
    form: DateForm
    groups: re.Match[str]


def find_date(line: str, forms: tuple[DateForm, ...]) -> FoundDate | None:
    """The date of a line: of the first form that fits at its place, or what stands left of it by a searched form."""
    best: FoundDate | None = None
    after: re.Pattern[str] | None = None
    place = -1
    for form in forms:
        if form.after is None:
            found = form.look(line)
        else:
            if form.after is not after:
                after = form.after
                prefix = after.match(line)
                place = prefix.end() if prefix else -1
            found = form.look(line, place) if place >= 0 else None
        if found is None:
            continue
        start, end = found.span(1)
        if best is None or (start < best.start and form.source != "()"):  # {NONE} is for lines without a date
            # The group of a pattern's other branch is at -1: then nothing is cut out.
            best = FoundDate(max(start, 0), max(end, 0), form, found)
        if not form.anywhere:
            break
    return best


# The ways to write a date, in the order in which they are tried; fail2ban's, so that its filters see the same rest.
_CLOCK = "%k:%M:%S"
_ZONES = "|".join(ABBREVIATIONS)
_ANYWHERE = {
    # 2026-11-22 13:00:00 · 2026-11-22T13:00:00.123456+01:00 · 2026/11/22 13:00:00,123 · 2026.11.22  8:00:00 Z
    "ISO 8601": r"%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T| {1,2})%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    # Nov 22 13:00:00 · Sun Nov 22 13:00:00.123 2026
    "syslog": rf"(?:%a )?%b %d {_CLOCK}(?:\.%f)?(?: %ExY)?",
    # Nov 22 2026 13:00:00
    "syslog with year": rf"(?:%a )?%b %d %ExY {_CLOCK}(?:\.%f)?",
    # 22/11/2026 13:00:00 · 22-11-26 13:00:00
    "day, month, year": rf"%d(?P<_sep>[-/])%m(?P=_sep)(?:%ExY|%Exy) {_CLOCK}",
    # 22/Nov/2026:13:00:00 +0100 · 22-Nov-2026 13:00:00.123
    "access log": r"%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
    # 11/22/2026:13:00:00
    "month, day, year:": r"%m/%d/%ExY:%H:%M:%S",
    # 11-22-2026 13:00:00.123
    "month, day, year": rf"%m-%d-%ExY {_CLOCK}(?:\.%f)?",
    # 261122 13:00:00
    "MySQL": r"%Exy%Exm%Exd {1,2}%H:%M:%S",
    # Nov 22, 2026 1:00:00 PM
    "Tomcat": r"%b %d, %ExY %I:%M:%S %p",
    # 20261122T130000.123+0100
    "ISO 8601, short": r"%ExY%Exm%Exd(?:T| {1,2})%ExH%ExM%ExS(?:[.,]%f)?(?:\s*%z)?",
    # CET Nov 22 13:00:00
    "zone, syslog": rf"(?-i:(?P<Z>{_ZONES})) (?:%a )?%b %d {_CLOCK}(?:\.%f)?(?: %ExY)?",
    # +01:00 Nov 22 13:00:00
    "offset, syslog": rf"%z (?:%a )?%b %d {_CLOCK}(?:\.%f)?(?: %ExY)?",
    # @40000000507de9c10b1e1a9c
    "TAI64N": TAI64N,
}
_AT_BEGINNING = {
    # 1795352400.123; an uptime, a process or a telephone number are none
    "epoch": EPOCH.replace(r"\d{10,11}", r"[1-4]\d{9}"),
    # 13:00:00
    "time": "%H:%M:%S",
    # <11/22/26@13:00:00>
    "<month/day/year@time>": r"<%m/%d/%Exy@%H:%M:%S>(?!\w)",
    # Nov-22-26 13:00:00
    "ASSP": rf"%b-%d-%Exy {_CLOCK}",
}


def _refuse(message: str) -> Exception:
    return ValueError(message)


CORES = {name: expand_directives(text, _refuse) for name, text in (_ANYWHERE | _AT_BEGINNING).items()}
"""How a date is written, wherever it stands: expressions, to be compiled with `FLAGS`."""

_LEVELS = "trace|debug|info|notice|warn(?:ing)?|err(?:or)?|severe|crit(?:ical)?|fatal|alert|emerg(?:ency)?"
_PREFIX = re.compile(
    r"(?:<\d{1,3}>(?:\d )?"
    r"|\[ {0,12}\d[\da-f.:#/-]{0,40}\]\s{0,8}"
    rf"|\[?(?:{_LEVELS})(?!\w)\]?:?\s{{1,8}}"
    r"|(?:[\w.-]{1,64}+ )?[\w./-]{1,64}+\[\d{1,10}\]:\s{1,8}"
    r"|[\w.-]{1,64}+\s{0,32}\|\s{1,8}"
    r"){1,3}+",
    FLAGS,
)
_KEYS = r"(?:@?timestamp|time|ts|t|@t|date|datetime|asctime|eventtime)"
_STRING = r'"(?:[^"\\]|\\.)*+"'
_JSON = re.compile(rf'\s*\{{(?:[^"]++|{_STRING})*?"{_KEYS}"\s*:\s*(?:\{{\s*"\$date"\s*:\s*)?"', FLAGS)
_LOGFMT = re.compile(
    rf'(?:(?:level|lvl|severity|logger|caller|source|app|service|host|pid|msg)=(?:{_STRING}|[^\s"]*+)\s+)*+{_KEYS}="?',
    FLAGS,
)


def _forms_after(prefix: re.Pattern[str], what: str, opening: str) -> Iterator[DateForm]:
    for name in _ANYWHERE:
        yield DateForm(f"{name}, {what}", rf"{opening}({CORES[name]})(?!\w)", BETWEEN_WORDS, after=prefix)


_ORDER = list(_ANYWHERE)
_ORDER[7:7] = ["epoch", "time", "<month/day/year@time>"]
_ORDER.insert(_ORDER.index("ISO 8601, short"), "ASSP")

# How all but the first two begin: most lines without a date at their beginning are told by one look.
_LIKELY = re.compile(
    r"(?=\W{0,3}(?:\d{1,2}[-/:]|\d\d(?::?\d\d)? |\d{6}|4[\da-f]{23}"
    rf"|(?:{'|'.join(name[:3] for name in (*MONTHS, *WEEKDAYS))})[ -]|(?:{_ZONES}|Z) ))",
    FLAGS,
)

_STRICT = {"<month/day/year@time>", "ASSP"}
"""These stand at the very beginning, or are none."""

LINE_FORMS = tuple(
    DateForm(
        name,
        ("" if name in _STRICT else r"\W{0,2}") + rf"({CORES[name]})(?!\w)",
        BETWEEN_WORDS,
        after=_LIKELY if place > 1 else None,
    )
    for place, name in enumerate(_ORDER)
)
"""The usual dates at a line's beginning: what `{^LN-BEG}` means."""

_QUOTED = (
    r'(?:(?=[^\s.:]*[.:])\S++ ++)?[\w.:%-]++ ++- (?:[^"\\\[]++|\\.|""|\[)*?'
    rf'\[({CORES["access log"]})\s?\](?= (?:[^\s"\\\[\]]+ ){{0,2}}")'
)
_AUDIT = rf"(?:node=\S+ )?(?:type=\w+ msg=|(?:\[[ \d.]+\] )?audit: type=\d+ )audit\(({EPOCH})(?=:\d+\))"

DEFAULT_FORMS = (
    *LINE_FORMS,
    DateForm("access log before the request", _QUOTED, BETWEEN_WORDS),
    DateForm("audit", _AUDIT, BETWEEN_WORDS),
    *_forms_after(_PREFIX, "after a prefix", r"\W{0,2}"),
    *_forms_after(_JSON, "in JSON", ""),
    *_forms_after(_LOGFMT, "in logfmt", ""),
)
"""The usual dates at all the places where daemons write them: what no datepattern, and `{DEFAULT}`, mean."""

__all__ = ["CORES", "DEFAULT_FORMS", "FLAGS", "LINE_FORMS", "DateForm", "FoundDate", "find_date"]
