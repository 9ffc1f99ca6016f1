"""Where a line's date stands, and which moment it is.

A date is only taken where a daemon writes it: at the beginning of the line, or in an access log's brackets. So a
date in an attacker's text neither moves a hit in time nor, by being cut out, joins what stood apart. Local times
are read in a given zone, or in the system's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

DAY = 86_400
MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_MONTH = "(?P<b>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = r"(?P<H>[01]\d|2[0-3]):(?P<M>[0-5]\d):(?P<S>[0-5]\d|60)"
_FRACTION = r"(?:[.,]\d{1,9})?"
_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"


@dataclass(frozen=True, slots=True)
class DateForm:
    """One way to write a date.

    The expression is matched at the beginning of the line, or searched for when `anywhere`. Group `d` is what is cut
    out. Its other groups are named as strptime's directives: Y y m b d_ H M S p z j, and E for epoch seconds. Text
    of group `s` and `z`, if there is an `s`, decides the moment: what is the same there is calculated once.
    """

    name: str
    pattern: re.Pattern[str]
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class FoundDate:
    """A date in a line: the part to cut out, and the groups of its form."""

    start: int
    end: int
    key: str
    groups: re.Match[str]


def _form(name: str, text: str) -> DateForm:
    return DateForm(name, re.compile(text, re.ASCII))


CORES = {
    "ISO 8601": r"(?P<s>(?P<Y>\d{4})(?P<sep>[-/])(?P<m>0\d|1[0-2])(?P=sep)(?P<d_>[0-3]\d)[T ]"
    rf"{_TIME}){_FRACTION}(?P<z>Z| ?[+-](?:0\d|1[0-4]):?[0-5]\d)?",
    "syslog": rf"(?P<s>{_MONTH} (?P<d_>[ 0-3]?\d) {_TIME}){_FRACTION}",
    "asctime": rf"{_WEEKDAY} {_MONTH} (?P<d_>[ 0-3]?\d) {_TIME}{_FRACTION}(?: (?P<Y>\d{{4}}))?",
    "access log": rf"(?P<s>(?P<d_>[0-3]\d)/{_MONTH}/(?P<Y>\d{{4}}):{_TIME}) (?P<z>[+-]\d{{4}})",
    "epoch": r"(?P<s>(?P<E>1\d{9}))(?:\.\d{1,9})?",
}
"""How a date is written, wherever it stands."""

DEFAULT_FORMS = (
    # 2026-11-22 13:00:00 · 2026-11-22T13:00:00.123456+01:00 · 2026/11/22 13:00:00 · <34>1 2026-11-22T13:00:00Z
    _form("ISO 8601", rf"(?:<\d{{1,3}}>(?:\d )?)?\[?(?P<d>{CORES['ISO 8601']})(?![\w.,])"),
    # Nov 22 13:00:00 · <34>Nov  2 13:00:00
    _form("syslog", rf"(?:<\d{{1,3}}>)?\[?(?P<d>{CORES['syslog']})(?![\w.,])"),
    # [Sun Nov 22 13:00:00.123456 2026]
    _form("asctime", rf"\[?(?P<d>{CORES['asctime']})(?![\w.,])"),
    # 192.0.2.1 - user [22/Nov/2026:13:00:00 +0000] "GET …: the request's quotation mark follows, and before it, as
    # both servers escape it, no other stands but apache's "" for an empty login; so no login brings its own date.
    _form("access log", rf'(?:[^"\\]|\\.|"")*?\[(?P<d>{CORES["access log"]})\] "'),
    # 1795352400.123 …
    _form("epoch", rf"\[?(?P<d>{CORES['epoch']})(?=[\s\]]|$)"),
)


def find_date(line: str, forms: tuple[DateForm, ...]) -> FoundDate | None:
    """The date of a line in the first of the forms that fits."""
    for form in forms:
        found = form.pattern.search(line) if form.anywhere else form.pattern.match(line)
        if found:
            groups = form.pattern.groupindex
            key = found["s" if "s" in groups else "d"]
            if "z" in groups and found["z"]:
                key += found["z"]
            return FoundDate(found.start("d"), found.end("d"), key, found)
    return None


class Clock:
    """Turns found dates into seconds since the epoch. Keeps the last results: neighbours share their second."""

    MOST_KEPT = 4096

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self._kept: dict[str, int | None] = {}
        self._now = 0

    def read(self, found: FoundDate, now: int) -> int | None:
        """The moment of a found date; None when there is no such day. `now` decides about a missing year."""
        if now != self._now or len(self._kept) > self.MOST_KEPT:
            self._kept.clear()
            self._now = now
        try:
            return self._kept[found.key]
        except KeyError:
            at = self._kept[found.key] = self._calculate(found.groups.groupdict(), now)
            return at

    def _calculate(self, groups: dict[str, str | None], now: int) -> int | None:
        if epoch := groups.get("E"):
            return int(epoch)
        offset = _offset(groups.get("z"))
        year = _year(groups)
        if year is not None:
            return self._moment(year, groups, offset, now)
        this_year = datetime.fromtimestamp(now, UTC).year
        for year in range(this_year + 1, this_year - 9, -1):  # the 29th of February may be eight years back
            at = self._moment(year, groups, offset, now)
            if at is not None and at <= now + DAY:
                return at
        return None

    def _moment(self, year: int, groups: dict[str, str | None], offset: tzinfo | None, now: int) -> int | None:
        zone = offset or self.zone
        try:
            if day_of_year := groups.get("j"):
                day = datetime(year, 1, 1, tzinfo=zone) + timedelta(days=int(day_of_year) - 1)
                month, day_of_month = day.month, day.day
            else:
                month, day_of_month = _month(groups, now), int(groups.get("d_") or 1)
            second = min(int(groups.get("S") or 0), 59)
            local = datetime(year, month, day_of_month, _hour(groups), int(groups.get("M") or 0), second, tzinfo=zone)
            first = int(local.timestamp())
            second_time = int(local.replace(fold=1).timestamp())
        except (ValueError, OverflowError, OSError):
            return None
        # When clocks are set back an hour comes twice: the later one, unless that would be in the future.
        return second_time if first < second_time <= now + 60 else first


def _year(groups: dict[str, str | None]) -> int | None:
    if full := groups.get("Y"):
        return int(full)
    if short := groups.get("y"):
        return int(short) + (2000 if int(short) < 69 else 1900)
    return None


def _month(groups: dict[str, str | None], now: int) -> int:
    if name := groups.get("b"):
        return MONTHS[name[:3].lower()]
    if number := groups.get("m"):
        return int(number)
    return datetime.fromtimestamp(now, UTC).month


def _hour(groups: dict[str, str | None]) -> int:
    hour = int(groups.get("H") or groups.get("I") or 0)
    if half := groups.get("p"):
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    return hour


def _offset(text: str | None) -> tzinfo | None:
    if not text:
        return None
    text = text.strip()
    if text.upper() in {"Z", "UTC", "GMT"}:
        return UTC
    digits = text[1:].replace(":", "")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0))
    return timezone(-size if text[0] == "-" else size)
