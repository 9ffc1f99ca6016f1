"""Durations as people write them: `90s`, `15m`, `3h`, `1d`, `1w`, `1mo` (30 days), `1y` (365 days), `-1` for ever."""

from __future__ import annotations

import re
from functools import lru_cache

FOREVER_DURATION = -1
"""As a `bantime`: without end."""

LONGEST = 100 * 365 * 86_400
"""A hundred years: anything longer is a slip of the keyboard."""

_UNITS = {"y": 31_536_000, "mo": 2_592_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_FORM = re.compile(r"(\d{1,12})(y|mo|w|d|h|m|s)?", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> int:
    """Seconds in `text`; -1 for ever. Raises ValueError with one clear line when it is no duration."""
    text = text.strip()
    if text == "-1":
        return FOREVER_DURATION
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write 3600, 90s, 15m, 3h, 1d, 1w, 1mo, 1y, or -1 for ever")
    seconds = int(match[1]) * _UNITS[(match[2] or "s").lower()]
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"{text!r} is out of range: from 1 second to 100 years, or -1 for ever")
    return seconds


@lru_cache(maxsize=256)
def format_duration(seconds: int) -> str:
    """`seconds` in the largest unit that divides them: 604800 is `1w`, 5400 is `90m`. Weeks beyond a month are days:
    who knows how long 34 of them are?"""
    if seconds == FOREVER_DURATION:
        return "for ever"
    for unit, size in _UNITS.items():
        if unit == "w" and seconds > _UNITS["mo"]:
            continue
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def lasting(seconds: int) -> str:
    """`for 1w`, `for ever`: how long something is to last."""
    return f"for {format_duration(seconds).removeprefix('for ')}"


@lru_cache(maxsize=128)  # the bans of a batch end at few different times
def about(seconds: int) -> str:
    """`seconds` that pass, for a person: whole days as settings say them (`format_duration`), all else in the two
    largest of years, days, hours, minutes and seconds: `1w`, `6d 23h`."""
    if seconds % _UNITS["d"] == 0:
        return format_duration(seconds)
    parts = []
    for unit, size in _UNITS.items():
        if unit in {"mo", "w"}:
            continue
        whole, seconds = divmod(seconds, size)
        if whole:
            parts.append(f"{whole}{unit}")
    return " ".join(parts[:2])
