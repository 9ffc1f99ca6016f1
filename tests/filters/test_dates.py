"""Dates: where one is taken, and which moment it is."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.filters.dates import DEFAULT_FORMS, Clock, find_date

BERLIN = ZoneInfo("Europe/Berlin")
NOW = int(datetime(2026, 11, 22, 15, 0, tzinfo=UTC).timestamp())


def read(line, zone=UTC, now=NOW):
    """The moment of a line as ISO text in UTC, and the line without its date."""
    found = find_date(line, DEFAULT_FORMS)
    if not found:
        return None, line
    at = Clock(zone).read(found, now)
    return at and datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S"), line[: found.start] + line[found.end :]


@pytest.mark.parametrize(
    ("line", "moment", "rest"),
    [
        ("2026-11-22 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22 13:00:00.123 x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22 13:00:00,123 x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22 13:00:00 +0100 x", "2026-11-22T12:00:00", " x"),
        ("2026-11-22 13:00:00.123 +0000 [17] x", "2026-11-22T13:00:00", " [17] x"),
        ("2026-11-22T13:00:00Z x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22T13:00:00.123456+01:00 host x", "2026-11-22T12:00:00", " host x"),
        ("2026-11-22T13:00:00-0330 x", "2026-11-22T16:30:00", " x"),
        ("<34>1 2026-11-22T13:00:00.003Z host x", "2026-11-22T13:00:00", "<34>1  host x"),
        ("2026/11/22 13:00:00 [error] x", "2026-11-22T13:00:00", " [error] x"),
        ("Nov 22 13:00:00 host x", "2026-11-22T13:00:00", " host x"),
        ("Nov  2 13:00:00 host x", "2026-11-02T13:00:00", " host x"),
        ("<34>Nov 22 13:00:00 host x", "2026-11-22T13:00:00", "<34> host x"),
        ("[Sun Nov 22 13:00:00.123456 2026] [core] x", "2026-11-22T13:00:00", "[] [core] x"),
        ("[Sun Nov 22 13:00:00 2026] x", "2026-11-22T13:00:00", "[] x"),
        ('192.0.2.1 - - [22/Nov/2026:13:00:00 +0100] "GET', "2026-11-22T12:00:00", '192.0.2.1 - - [] "GET'),
        ('192.0.2.1 - a b [22/Nov/2026:13:00:00 +0000] "GET', "2026-11-22T13:00:00", '192.0.2.1 - a b [] "GET'),
        ("1795352400 x", "2026-11-22T13:00:00", " x"),
        ("1795352400.123    45 x", "2026-11-22T13:00:00", "    45 x"),
    ],
)
def test_a_date_is_read_as_the_daemons_of_today_write_it(line, moment, rest):
    """Every usual form of a date is read, with its offset, and cut out of the line."""
    assert read(line) == (moment, rest)


@pytest.mark.parametrize(
    "line",
    [
        "user 2026-11-22 13:00:00 x",
        " 2026-11-22 13:00:00 x",
        "x Nov 22 13:00:00 x",
        "192.0.2.1 [22/Nov/2026:13:00:00 +0000] x",
        '192.0.2.1 - "[22/Nov/2026:13:00:00 +0000] "GET',
        "12026-11-22 13:00:00 x",
        "2026-11-22 13:00:00x",
        "2026-11-22 25:00:00 x",
        "2026-13-22 13:00:00 x",
        "17953524001 x",
        "",
    ],
)
def test_a_date_elsewhere_is_none(line):
    """A date that does not stand where a daemon writes it is text like any other, and is not cut out."""
    assert read(line) == (None, line)


def test_a_login_name_brings_no_date_into_an_access_log():
    """The date of an access log is the one before the request, whatever the login name says."""
    line = '192.0.2.1 - x [01/Jan/2020:00:00:00 +0000] y\\" [22/Nov/2026:13:00:00 +0000] "GET / HTTP/1.1" 401 1'
    assert read(line)[0] == "2026-11-22T13:00:00"


@pytest.mark.parametrize("line", ["2026-02-30 13:00:00 x", "Feb 30 13:00:00 x", "2026-11-00 13:00:00 x"])
def test_a_day_that_does_not_exist_has_no_moment(line):
    """A day that no calendar has gives no moment rather than another day."""
    assert read(line)[0] is None


@pytest.mark.parametrize(
    ("now", "line", "moment"),
    [
        ("2027-01-01T00:00:05", "Dec 31 23:59:59 x", "2026-12-31T23:59:59"),
        ("2026-12-31T23:59:50", "Jan  1 00:00:01 x", "2027-01-01T00:00:01"),
        ("2026-12-31T12:00:00", "Jan  2 00:00:01 x", "2026-01-02T00:00:01"),
        ("2026-11-22T15:00:00", "Nov 23 14:59:59 x", "2026-11-23T14:59:59"),
        ("2026-11-22T15:00:00", "Nov 23 15:00:01 x", "2025-11-23T15:00:01"),
        ("2028-03-01T00:00:00", "Feb 29 12:00:00 x", "2028-02-29T12:00:00"),
        ("2026-11-22T15:00:00", "Feb 29 12:00:00 x", "2024-02-29T12:00:00"),
        ("2103-11-22T15:00:00", "Feb 29 12:00:00 x", "2096-02-29T12:00:00"),
    ],
)
def test_a_missing_year_is_the_latest_that_is_not_to_come(now, line, moment):
    """A date without a year belongs to the latest year that puts it no more than a day into the future."""
    at = int(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp())
    assert read(line, now=at)[0] == moment


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("2026-07-01 12:00:00 x", "2026-07-01T10:00:00"),
        ("2026-11-22 12:00:00 x", "2026-11-22T11:00:00"),
        ("Mar 29 03:30:00 x", "2026-03-29T01:30:00"),
        ("Mar 29 01:30:00 x", "2026-03-29T00:30:00"),
    ],
)
def test_a_local_time_is_read_in_the_zone_of_the_log(line, moment):
    """A time without offset is read in the given zone, in summer and in winter."""
    assert read(line, BERLIN)[0] == moment


def test_the_hour_that_comes_twice_follows_the_clock():
    """When clocks are set back, a time that came twice is the later one unless that is still to come."""
    first = int(datetime(2026, 10, 25, 0, 30, 5, tzinfo=UTC).timestamp())
    assert read("2026-10-25 02:30:00 x", BERLIN, first)[0] == "2026-10-25T00:30:00"
    assert read("2026-10-25 02:30:00 x", BERLIN, first + 3600)[0] == "2026-10-25T01:30:00"


def test_the_systems_zone_is_the_default(monkeypatch):
    """Without a zone, local times are those of the system."""
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert read("2026-07-01 12:00:00 x", None)[0] == "2026-07-01T16:00:00"
        assert read("Nov 22 08:00:00 x", None)[0] == "2026-11-22T13:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(631_152_000, 4_070_908_800), st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "UTC"]))
def test_what_is_kept_is_what_would_be_calculated(seconds, zone):
    """Reading a date again, in any order, gives the same moment as reading it for the first time."""
    moment = datetime.fromtimestamp(seconds, UTC)
    kept = Clock(ZoneInfo(zone))
    for line in (f"{moment:%Y-%m-%d %H:%M:%S} x", f"{moment:%b %d %H:%M:%S} x", f"{moment:%Y-%m-%d %H:%M:%S} +0200 x"):
        found = find_date(line, DEFAULT_FORMS)
        assert found
        expected = Clock(ZoneInfo(zone)).read(found, NOW)
        assert kept.read(found, NOW) == expected
        assert kept.read(found, NOW) == expected


@given(st.text(max_size=80))
def test_no_text_raises(text):
    """Whatever stands in a line, looking for its date never fails."""
    for line in (text, f"2026-{text}", f"Nov {text}", f"[{text}"):
        found = find_date(line, DEFAULT_FORMS)
        if found:
            Clock(UTC).read(found, NOW)
            assert re.search(r"\d", line[found.start : found.end])
