"""Time zones: what an administrator may name, and what a log calls its own."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.filters.zones import parse_zone, read_named

WINTER = datetime(2026, 1, 15, 12, 0)  # noqa: DTZ001  # a local time
SUMMER = datetime(2026, 7, 15, 12, 0)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "winter", "summer"),
    [
        ("UTC", 0, 0),
        ("Z", 0, 0),
        ("GMT", 0, 0),
        ("UTC+0200", 2, 2),
        ("UTC-0430", -4.5, -4.5),
        ("GMT+12", 12, 12),
        ("+02:00", 2, 2),
        ("-4", -4, -4),
        (" +0100 ", 1, 1),
        ("CET", 1, 1),
        ("CEST", 2, 2),
        ("CET+0130", 2.5, 2.5),
        ("CEST-01", 1, 1),
        ("Europe/Zurich", 1, 2),
        ("America/St_Johns", -3.5, -2.5),
        ("Etc/GMT+5", -5, -5),
        ("CST6CDT", -6, -5),
    ],
)
def test_a_zone_is_an_offset_an_abbreviation_or_a_name(text: str, winter: float, summer: float) -> None:
    """Offsets and abbreviations hold the whole year, names of places know their summer time."""
    zone = parse_zone(text)
    assert zone.utcoffset(WINTER) == timedelta(hours=winter)
    assert zone.utcoffset(SUMMER) == timedelta(hours=summer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "WRONG",
        "Europe",
        "Europe/Nowhere",
        "../etc/passwd",
        "/etc/passwd",
        "+15",
        "UTC+9999",
        "CET-1CEST",
        "\x1b[0m",
    ],
)
def test_what_is_no_zone_is_refused(text: str) -> None:
    """Anything else is refused in one line that names it and says what to give."""
    with pytest.raises(ValueError, match=r"\S is no time zone: give UTC, an offset") as refusal:
        parse_zone(text)
    assert str(refusal.value).isprintable()


def named(name: str, at: datetime, zone: tzinfo) -> datetime:
    """A local time with the zone that its log names, which must be known."""
    found = read_named(name, at, zone)
    assert found is not None
    return found


def test_an_abbreviation_is_first_what_the_log_calls_itself() -> None:
    """IST is India's in a log of India's, Israel's in Israel's, and unknown elsewhere."""
    for zone, hours in (("Asia/Kolkata", 5.5), ("Asia/Jerusalem", 2)):
        assert named("IST", WINTER, ZoneInfo(zone)).utcoffset() == timedelta(hours=hours)
    assert read_named("IST", WINTER, UTC) is None
    assert named("PDT", SUMMER, UTC).utcoffset() == timedelta(hours=-7)


def test_a_name_tells_the_two_hours_apart() -> None:
    """When clocks are set back, CEST is the first of the two hours and CET the second."""
    twice = datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001
    first, second = (named(name, twice, ZoneInfo("Europe/Zurich")) for name in ("CEST", "CET"))
    assert second.timestamp() - first.timestamp() == 3600


@given(st.text(max_size=12))
def test_any_text_is_a_zone_or_refused(text: str) -> None:
    """No text does anything but name a zone or be refused."""
    try:
        zone = parse_zone(text)
    except ValueError:
        return
    offset = zone.utcoffset(WINTER)
    assert offset is not None and abs(offset) <= timedelta(hours=14)
