"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.duration import LONGEST, about, format_duration, lasting, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), ("90s", 90), ("15m", 900), ("3h", 10_800), ("1d", 86_400), ("1w", 604_800), ("180d", 15_552_000),
     ("1mo", 2_592_000), ("1y", 31_536_000), ("-1", -1), (" 1D ", 86_400), ("1MO", 2_592_000), ("007", 7)],
)  # fmt: skip
def test_a_duration_is_what_the_interface_says(text: str, seconds: int) -> None:
    """Every form of the interface, in either case."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0d", "-2", "-1d", "1.5h", "1h30m", "d", "1 d", "1x", "for ever", "101y", "9" * 13, "1\u0665"]
)
def test_what_is_no_duration_is_refused_in_one_line(text: str) -> None:
    """With what was written."""
    with pytest.raises(ValueError, match=r"duration|out of range") as caught:
        parse_duration(text)
    assert repr(text.strip()) in str(caught.value)


@given(st.integers(1, LONGEST))
def test_a_duration_shown_is_read_back(seconds: int) -> None:
    """What `jail show` prints can be typed."""
    assert parse_duration(format_duration(seconds)) == seconds


def test_for_ever_is_said_in_words() -> None:
    """-1 is for ever."""
    assert format_duration(-1) == "for ever"
    assert format_duration(0) == "0s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (59, "59s"), (3600, "1h"), (604_799, "6d 23h"), (2_595_600, "30d 1h"), (31_536_000 + 5, "1y 5s")],
)
def test_a_rest_of_time_is_said_in_its_two_largest_units(seconds: int, said: str) -> None:
    """6d 23h, not 604799."""
    assert about(seconds) == said


@given(st.integers(1, 40_000).map(lambda days: 86_400 * days) | st.sampled_from([604_800, 2_592_000, 31_536_000]))
def test_a_ban_of_whole_days_is_as_long_wherever_it_is_told(seconds: int) -> None:
    """1w, in the words of the jail's own row, not 7d."""
    assert about(seconds) == format_duration(seconds)


def test_what_is_to_last_is_said_in_the_same_words() -> None:
    """By commands, and in the engine's log."""
    assert [lasting(seconds) for seconds in (604_800, 5_400, -1)] == ["for 1w", "for 90m", "for ever"]


def test_many_weeks_are_days() -> None:
    """The original's "year" was one of 238 days."""
    assert [format_duration(n * 604_800) for n in (1, 4, 5, 34)] == ["1w", "4w", "35d", "238d"]
