"""Dates: where one is taken, and which moment it is."""

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.filters.clock import Clock
from mcban.filters.dates import DEFAULT_FORMS, find_date

BERLIN = ZoneInfo("Europe/Berlin")
NOW = int(datetime(2026, 11, 22, 15, 0, tzinfo=UTC).timestamp())


def read(line: str, zone: tzinfo | None = UTC, now: int = NOW) -> tuple[str | None, str]:
    """The moment of a line as ISO text in UTC, and the line without its date."""
    found = find_date(line, DEFAULT_FORMS)
    if not found:
        return None, line
    at = Clock(zone).read(found, now)
    moment = None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return moment, line[: found.start] + line[found.end :]


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
        ("[1795352400] x", "2026-11-22T13:00:00", "[] x"),
        ("2026/11/22 13:00:00.123456789 x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22T13:00:00.123456789Z x", "2026-11-22T13:00:00", " x"),
        ("2026.11.22  8:00:00 x", "2026-11-22T08:00:00", " x"),
        ("2026-11-22 13:00:00 GMT x", "2026-11-22T13:00:00", " x"),
        ("2026-11-22 13:00:00-05 x", "2026-11-22T18:00:00", " x"),
        ("- 2026-11-22 13:00:00: x", "2026-11-22T13:00:00", "- : x"),
        ("Nov 22 13:00:00.123 2026 x", "2026-11-22T13:00:00", " x"),
        ("nov 22 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("Nov 22 13:00:00 20030f2329b8 x", "2026-11-22T13:00:00", " 20030f2329b8 x"),
        ("Nov 22  1:00:00 x", "2026-11-22T01:00:00", " x"),
        ("Nov 22 2026 13:00:00 host x", "2026-11-22T13:00:00", " host x"),
        ("Sun Nov 22 13:00:00 2026 x", "2026-11-22T13:00:00", " x"),
        ("Sun Nov 22 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("Sun Nov 22 2026 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("22/11/2026 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("22/11/26 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("22-11-2026 13:00:00 +0300 x", "2026-11-22T13:00:00", " +0300 x"),
        ("22-Nov-2026 13:00:00.123 x", "2026-11-22T13:00:00", " x"),
        ("[22-Nov-2026 13:00:00 +0200]: x", "2026-11-22T11:00:00", "[]: x"),
        ("22/Nov/2026:13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("11/22/2026:13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("11-22-2026 13:00:00.252 x", "2026-11-22T13:00:00", " x"),
        ("13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("<11/22/26@13:00:00> x", "2026-11-22T13:00:00", " x"),
        ("261122 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("261122  1:00:00 x", "2026-11-22T01:00:00", " x"),
        ("Nov 22, 2026 1:00:00 PM x", "2026-11-22T13:00:00", " x"),
        ("Nov 22, 2026 12:00:00 AM x", "2026-11-22T00:00:00", " x"),
        ("Nov 22, 2026 12:00:00 PM x", "2026-11-22T12:00:00", " x"),
        ("Nov-22-26 13:00:00 x", "2026-11-22T13:00:00", " x"),
        ("20261122T130000 x", "2026-11-22T13:00:00", " x"),
        ("20261122 130000.123+0100 x", "2026-11-22T12:00:00", " x"),
        ("[PST Nov 22 05:00:00] x", "2026-11-22T13:00:00", "[] x"),
        ("+01:00 Nov 22 13:00:00.011 2026 x", "2026-11-22T12:00:00", " x"),
        ("@400000006b02e75007 x", None, "@400000006b02e75007 x"),
        ("@400000006b02e7500a7a9e94 x", "2026-11-22T13:00:00", " x"),
        # behind what daemons and collectors put before their date
        ("<34>1 <34>2026-11-22T13:00:00Z x", "2026-11-22T13:00:00", "<34>1 <34> x"),
        ("[28325:00010-3735542592] 22-11-2026 13:00:00   x", "2026-11-22T13:00:00", "[28325:00010-3735542592]    x"),
        ("[   12.345678] Nov 22 13:00:00 x", "2026-11-22T13:00:00", "[   12.345678]  x"),
        ("WARNING: 2026-11-22 13:00:00 x", "2026-11-22T13:00:00", "WARNING:  x"),
        ("[error] [2026-11-22 13:00:00] x", "2026-11-22T13:00:00", "[error] [] x"),
        ("server mysqld[1000]: 261122  1:00:00 x", "2026-11-22T01:00:00", "server mysqld[1000]:  x"),
        ("mail_1  | Nov 22 13:00:00 host x", "2026-11-22T13:00:00", "mail_1  |  host x"),
        # in structures that no text inside can leave
        ('{"level":"warn","time":"2026-11-22T13:00:00Z","msg":"x"}', "2026-11-22T13:00:00", None),
        ('{"t":{"$date":"2026-11-22T13:00:00.123+00:00"},"s":"I"}', "2026-11-22T13:00:00", None),
        ('time="2026-11-22T13:00:00+01:00" level=error msg="x"', "2026-11-22T12:00:00", 'time="" level=error msg="x"'),
        ('level=info msg="a \\" b" ts=2026-11-22T13:00:00Z x', "2026-11-22T13:00:00", None),
        ("type=USER_LOGIN msg=audit(1795352400.415:4063): x", "2026-11-22T13:00:00", None),
        ("[   12.345678] audit: type=1400 audit(1795352400.415:4063): x", "2026-11-22T13:00:00", None),
        ('192.0.2.1 - - [22/Nov/2026:13:00:00 ] example.com "GET', "2026-11-22T13:00:00", None),
    ],
)
def test_a_date_is_read_as_the_daemons_of_today_write_it(line: str, moment: str | None, rest: str | None) -> None:
    """Every usual form of a date is read, with its offset, and cut out of the line."""
    found_moment, found_rest = read(line)
    assert found_moment == moment
    assert rest is None or found_rest == rest


@pytest.mark.parametrize(
    "line",
    [
        "user 2026-11-22 13:00:00 x",
        "... 2026-11-22 13:00:00 x",
        "Failed login of 2026-11-22 13:00:00 from",
        "x=1 time=2026-11-22T13:00:00Z",
        'msg="a time=2026-11-22T13:00:00Z',
        '{"user":"\\"time\\":\\"2026-11-22T13:00:00Z\\""}',
        '{"user":"2026-11-22T13:00:00Z"}',
        "type=LOGIN acct='audit(1795352400.415:4063)'",
        "Failed login of audit(1795352400.415:4063): from",
        "type=LOGIN acct=a audit(1795352400.415:4063): from",
        "[alice] 2026-11-22 13:00:00 x",
        "[Nov-22-26 13:00:00 x",
        "[<11/22/26@13:00:00> x",
        "PORT Nov 22 13:00:00 x",
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
def test_a_date_elsewhere_is_none(line: str) -> None:
    """A date that does not stand where a daemon writes it is text like any other, and is not cut out."""
    assert read(line) == (None, line)


def test_a_login_name_brings_no_date_into_an_access_log() -> None:
    """The date of an access log is the one before the request, whatever the login name says."""
    line = '192.0.2.1 - x [01/Jan/2020:00:00:00 +0000] y\\" [22/Nov/2026:13:00:00 +0000] "GET / HTTP/1.1" 401 1'
    assert read(line)[0] == "2026-11-22T13:00:00"


@pytest.mark.parametrize("line", ["2026-02-30 13:00:00 x", "Feb 30 13:00:00 x", "2026-11-00 13:00:00 x"])
def test_a_day_that_does_not_exist_has_no_moment(line: str) -> None:
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
def test_a_missing_year_is_the_latest_that_is_not_to_come(now: str, line: str, moment: str) -> None:
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
def test_a_local_time_is_read_in_the_zone_of_the_log(line: str, moment: str) -> None:
    """A time without offset is read in the given zone, in summer and in winter."""
    assert read(line, BERLIN)[0] == moment


def test_the_hour_that_comes_twice_follows_the_clock() -> None:
    """When clocks are set back, a time that came twice is the later one unless that is still to come."""
    first = int(datetime(2026, 10, 25, 0, 30, 5, tzinfo=UTC).timestamp())
    assert read("2026-10-25 02:30:00 x", BERLIN, first)[0] == "2026-10-25T00:30:00"
    assert read("2026-10-25 02:30:00 x", BERLIN, first + 3600)[0] == "2026-10-25T01:30:00"


def test_the_systems_zone_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_what_is_kept_is_what_would_be_calculated(seconds: int, zone: str) -> None:
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
def test_no_text_raises(text: str) -> None:
    """Whatever stands in a line, looking for its date never fails."""
    for line in (text, f"2026-{text}", f"Nov {text}", f"[{text}"):
        found = find_date(line, DEFAULT_FORMS)
        if found:
            Clock(UTC).read(found, NOW)
            assert re.search(r"\d", line[found.start : found.end])


YEAR = 365 * 86_400
MOMENTS = st.integers(
    int(datetime(2001, 1, 2, tzinfo=UTC).timestamp()), int(datetime(2090, 1, 1, tzinfo=UTC).timestamp())
)
NEAR_A_TURN = st.builds(
    lambda turn, seconds: int(turn.timestamp()) + seconds,
    st.sampled_from(
        [
            datetime(2026, 3, 29, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2026, 12, 31, 23, tzinfo=UTC),
            datetime(2027, 1, 1, tzinfo=UTC),
            datetime(2028, 2, 28, 23, tzinfo=UTC),
            datetime(2028, 2, 29, 23, tzinfo=UTC),
        ]
    ),
    st.integers(-10_800, 10_800),
)
"""Moments around the change of the clocks, the turn of the year and the 29th of February."""
WITH_YEAR = [
    "{:%Y-%m-%d %H:%M:%S}",
    "[{:%Y/%m/%d %H:%M:%S}]",
    "<34>1 {:%Y-%m-%dT%H:%M:%S%z}",
    "{:%a %b %d %H:%M:%S %Y}",
    "{:%b %d %Y %H:%M:%S}",
    "{:%d/%m/%Y %H:%M:%S}",
    "{:%d-%b-%Y %H:%M:%S}.123",
    "{:%m/%d/%Y:%H:%M:%S}",
    "<{:%m/%d/%y@%H:%M:%S}>",
    "{:%y%m%d %H:%M:%S}",
    "{:%b %d, %Y %I:%M:%S %p}",
    "{:%b-%d-%y %H:%M:%S}",
    "{:%Y%m%dT%H%M%S}",
    "{:%Y%m%d %H%M%S%z}",
    "WARN: {:%Y-%m-%d %H:%M:%S}",
    '192.0.2.1 - - [{:%d/%b/%Y:%H:%M:%S %z}] "GET',
    '{{"time":"{:%Y-%m-%dT%H:%M:%S%z}"',
    'time="{:%Y-%m-%dT%H:%M:%S%z}"',
]
WITHOUT_YEAR = ["{:%b %d %H:%M:%S}", "<34>{:%b %d %H:%M:%S}", "[{:%a %b %d %H:%M:%S}]"]


def meant(line: str, zone: str, now: int) -> int | None:
    """The moment of a line's date."""
    found = find_date(line, DEFAULT_FORMS)
    assert found, line
    return Clock(ZoneInfo(zone)).read(found, now)


def both(seconds: int, zone: str) -> set[int]:
    """The moments that have the local time of a moment: two while clocks are set back."""
    local = datetime.fromtimestamp(seconds, ZoneInfo(zone))
    return {seconds, int(local.replace(fold=1 - local.fold).timestamp())}


@given(MOMENTS | NEAR_A_TURN, st.sampled_from(WITH_YEAR), st.sampled_from(["Europe/Zurich", "America/New_York", "UTC"]))
def test_a_date_with_its_year_is_read_back(seconds: int, written: str, zone: str) -> None:
    """Any moment, in any of the usual forms and any zone, is read back to the second, whenever it is read."""
    line = written.format(datetime.fromtimestamp(seconds, ZoneInfo(zone))) + " x"
    assert meant(line, zone, seconds) in both(seconds, zone)
    assert meant(line, zone, seconds + YEAR) in both(seconds, zone)


@given(
    MOMENTS | NEAR_A_TURN,
    st.sampled_from(WITHOUT_YEAR),
    st.sampled_from(["Europe/Zurich", "America/New_York", "UTC"]),
    st.integers(0, 11 * 30 * 86_400),
)
def test_a_date_without_its_year_is_read_back(seconds: int, written: str, zone: str, later: int) -> None:
    """A date without a year is read back for as long as no other year fits better, on the 29th of February too."""
    line = written.format(datetime.fromtimestamp(seconds, ZoneInfo(zone))) + " x"
    assert meant(line, zone, seconds + later) in both(seconds, zone)


@settings(max_examples=300)
@given(
    MOMENTS,
    st.sampled_from(WITH_YEAR + WITHOUT_YEAR),
    MOMENTS,
    st.sampled_from(WITH_YEAR + WITHOUT_YEAR + ["{:%Y-%m-%d %H:%M:%SZ}", " audit({:%s}:1): ", "{:%H:%M:%S}"]),
    st.text(alphabet=' "\\[]{}:=,-x0Z@<>()', max_size=12),
    st.text(alphabet=' "\\[]{}:=,-x0Z@<>()', max_size=12),
)
def test_a_date_in_an_attackers_text_changes_nothing(
    seconds: int, written: str, forged: int, forging: str, before: str, after: str
) -> None:
    """Whatever stands behind a line's date, other dates in any disguise included, the same date is found there."""
    line = written.format(datetime.fromtimestamp(seconds, UTC)) + " host x[1]: login of"
    attack = f"{line} {before}{forging.format(datetime.fromtimestamp(forged, UTC))}{after} failed"
    real, found = find_date(line, DEFAULT_FORMS), find_date(attack, DEFAULT_FORMS)
    assert real
    assert found
    assert (found.start, found.end) == (real.start, real.end)
    assert Clock(UTC).read(found, NOW) == Clock(UTC).read(real, NOW)


@given(MOMENTS, st.sampled_from(WITH_YEAR + WITHOUT_YEAR), st.sampled_from(["login ", "user=", "for '", '"', "a b "]))
def test_a_line_without_a_date_is_given_none(seconds: int, written: str, text: str) -> None:
    """A date that an attacker brings into a line that has none is no date."""
    assert find_date(f"Failed {text}{written.format(datetime.fromtimestamp(seconds, UTC))}'", DEFAULT_FORMS) is None


@given(MOMENTS, st.text(alphabet='" \\[]x-Zé', max_size=8), MOMENTS, st.text(alphabet='" \\[]x-Zé', max_size=8))
def test_no_login_moves_an_access_logs_date(seconds: int, before: str, forged: int, after: str) -> None:
    """A login name that holds a date, written as apache and nginx write it, leaves the date of the request alone."""
    login = f"{before}[{datetime.fromtimestamp(forged, UTC):%d/%b/%Y:%H:%M:%S %z}]{after}"
    escaped = login.replace("\\", "\\\\").replace('"', '\\"')
    line = f'192.0.2.1 - {escaped} [{datetime.fromtimestamp(seconds, UTC):%d/%b/%Y:%H:%M:%S %z}] "GET / HTTP/1.1" 401'
    assert meant(line, "UTC", NOW) == seconds
