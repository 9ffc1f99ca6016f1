"""Which moment a found date is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from mcban.filters.dates import DateForm, FoundDate
from mcban.filters.directives import MONTHS, WEEKDAYS
from mcban.filters.zones import fixed_zone, read_named

_DAY = 86_400
_TOLERANCE = 60
"""Seconds by which a log's clock may be ahead of ours."""
_MOMENTS = range(-62_135_596_800, 253_402_300_800)
"""Years 1 to 9999 in UTC: other moments cannot be shown, nor can a log have them."""
_MONTH = {name[:3].lower(): number for number, name in enumerate(MONTHS, start=1)}
_WEEKDAY = {name[:3].lower(): number for number, name in enumerate(WEEKDAYS)}

Fields = dict[str, str]


class Clock:
    """Turns found dates into seconds since the epoch.

    Times without an offset are local times of `zone`, or of the system when it is None. Keeps what it read for each
    text, and what it calculated for each minute: neighbours share theirs, and within a minute no zone changes its
    offset.
    """

    MOST_KEPT = 4096

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self._read: dict[tuple[DateForm, str], int | None] = {}
        self._minutes: dict[object, int | None] = {}
        self._now = 0

    def read(self, found: FoundDate, now: int) -> int | None:
        """The moment of a found date, whole seconds; None when there is no such day or time, its zone is unknown, its
        form has no fields, or it is outside of the years 1 to 9999.

        `now`, in seconds since the epoch, decides about what the date leaves out. A date without a year belongs to
        the latest year that puts it no more than a day into the future; so does one that has the day alone, with its
        month. A time alone, or with a weekday, is the latest that is not over a minute in the future. A local time
        that comes twice, as clocks are set back, is the later one unless that is still to come.
        """
        form, groups = found.form, found.groups
        if not form.minute:
            return None
        if now != self._now or len(self._read) + len(self._minutes) > self.MOST_KEPT:
            self._read.clear()
            self._minutes.clear()
            self._now = now
        # What is cut out is all that decides, and does not differ from line to line.
        text = None
        if form.cut.decides and not (form.fraction and groups[form.fraction]):
            text = (form, groups[1])
            try:
                return self._read[text]
            except KeyError:
                pass
        try:
            at = self._read_minute(form, groups, now)
        except (ValueError, OverflowError):
            # A filter that names its groups itself may take for a field what is no number, or a minute 77.
            at = None
        if text:
            self._read[text] = at
        return at

    def _read_minute(self, form: DateForm, groups: re.Match[str], now: int) -> int | None:
        second = int(groups[form.second] or 0) if form.second else 0
        if not 0 <= second <= 59:
            second = 59  # of a leap second, too
        fields = groups.group(*form.minute)
        key = (form, fields)
        try:
            start = self._minutes[key]
        except KeyError:
            values = fields if isinstance(fields, tuple) else (fields,)
            given = {name: text for name, text in zip(form.names, values, strict=True) if text}
            start = self._calculate(given, 0, now)
            end = self._calculate(given, 59, now)
            if start is not None and start not in _MOMENTS:
                start = None
            elif start is not None and end != start + 59:  # in this minute the second matters
                return self._calculate(given, second, now)
            self._minutes[key] = start
        return None if start is None else start + second

    def _calculate(self, fields: Fields, second: int, now: int) -> int | None:
        if epoch := fields.get("_epoch"):
            return int(epoch) + second
        if label := fields.get("_tai"):
            # As fail2ban reads it. daemontools' clocks begin ten seconds earlier: of no weight here.
            return int(label, 16) + second
        zone = self.zone
        name = fields.get("Z")
        if offset := fields.get("z"):
            zone, name = fixed_zone(offset), None
            if zone is None:
                return None
        today = datetime.fromtimestamp(now, zone).date()
        days, latest = _days(fields, today, now)
        clock = time(_hour(fields), int(fields.get("M") or 0), second)
        for day in days:
            try:
                at = _moment(datetime.combine(day, clock), zone, name, now)
            except (ValueError, OverflowError, OSError):
                continue
            if at is not None and (latest is None or at <= latest):
                return at
        return None


def _moment(local: datetime, zone: tzinfo | None, name: str | None, now: int) -> int | None:
    if name:
        named = read_named(name, local, zone)
        return None if named is None else int(named.timestamp())
    if zone is UTC:
        return int(local.replace(tzinfo=UTC).timestamp())
    local = local.replace(tzinfo=zone)
    first = int(local.timestamp())
    again = int(local.replace(fold=1).timestamp())
    return again if first < again <= now + _TOLERANCE else first


def _days(fields: Fields, today: date, now: int) -> tuple[Iterator[date], int | None]:
    """The days that a date can mean, the latest first, and the moment up to which one is taken."""
    if "G" in fields and "V" in fields:
        return _iso_week(fields), None
    year = _year(fields)
    if year is not None:
        return _in_years(fields, range(year, year + 1)), None
    if fields.keys() & {"m", "b", "B", "j", "U", "W"}:
        # The 29th of February may be eight years back.
        return _in_years(fields, range(today.year + 1, today.year - 9, -1)), now + _DAY
    if "d" in fields:
        return _in_months(int(fields["d"]), today), now + _DAY
    weekday = _weekday(fields)
    # In the zone that a date names, today may be the day before or after ours.
    around = (today + timedelta(days=days) for days in range(1, -9, -1))
    return (day for day in around if weekday is None or day.weekday() == weekday), now + _TOLERANCE


def _in_years(fields: Fields, years: range) -> Iterator[date]:
    for year in years:
        try:
            if month := _month(fields):
                yield date(year, month, int(fields.get("d") or 1))
            elif "j" in fields:
                day = date(year, 1, 1) + timedelta(days=int(fields["j"]) - 1)
                if day.year == year:
                    yield day
            elif (weekday := _weekday(fields)) is not None and fields.keys() & {"U", "W"}:
                yield _in_week(year, fields, weekday)
            else:
                yield date(year, 1, int(fields.get("d") or 1))
        except (ValueError, OverflowError):
            continue  # a 29th of February that this year does not have


def _in_months(day_of_month: int, today: date) -> Iterator[date]:
    """This day of the month, next month's first; two months are never both without it."""
    for back in range(-1, 4):
        months = today.year * 12 + today.month - 1 - back
        try:
            yield date(months // 12, months % 12 + 1, day_of_month)
        except ValueError:
            continue


def _in_week(year: int, fields: Fields, weekday: int) -> date:
    """A weekday in the n-th week that begins with a Sunday (U) or a Monday (W); week 0 comes before the first."""
    first_weekday = 6 if "U" in fields else 0
    january = date(year, 1, 1)
    first = january + timedelta(days=(first_weekday - january.weekday()) % 7)
    week = int(fields.get("U") or fields["W"])
    return first + timedelta(days=7 * (week - 1) + (weekday - first_weekday) % 7)


def _iso_week(fields: Fields) -> Iterator[date]:
    try:
        yield date.fromisocalendar(int(fields["G"]), int(fields["V"]), (_weekday(fields) or 0) + 1)
    except ValueError:
        return


def _year(fields: Fields) -> int | None:
    if full := fields.get("Y"):
        return int(full)
    # As in fail2ban, two digits are of this century: no log is older.
    return 2000 + int(fields["y"]) if "y" in fields else None


def _month(fields: Fields) -> int | None:
    if name := fields.get("b") or fields.get("B"):
        return _MONTH.get(name[:3].lower())
    return int(fields["m"]) if "m" in fields else None


def _weekday(fields: Fields) -> int | None:
    """0 is Monday."""
    if name := fields.get("a") or fields.get("A"):
        return _WEEKDAY.get(name[:3].lower())
    if "u" in fields:
        return int(fields["u"]) - 1
    return (int(fields["w"]) - 1) % 7 if "w" in fields else None


def _hour(fields: Fields) -> int:
    hour = int(fields.get("H") or fields.get("I") or 0)
    if "H" not in fields and "I" in fields and hour == 12:
        hour = 0  # without AM or PM it is AM
    if half := fields.get("p"):
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    return hour
