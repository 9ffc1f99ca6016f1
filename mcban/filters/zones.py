"""Time zones as logs and administrators write them: offsets, abbreviations, names."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from mcban.errors import printable

_HOURS = {
    # What the IANA database calls them, where a name has one meaning or one that is far more usual. IST (India,
    # Ireland, Israel) has none: it is understood in a log whose own zone has that name.
    name: hours
    for hours, names in (
        (-11, "SST"), (-10, "HST"), (-9, "AKST HDT"), (-8, "PST AKDT"), (-7, "MST PDT"), (-6, "CST MDT"),
        (-5, "EST CDT COT PET"), (-4, "AST EDT CLT BOT VET"), (-3.5, "NST"), (-3, "ADT ART BRT CLST UYT"),
        (-2.5, "NDT"), (0, "Z UT UTC GMT WET"), (1, "CET MET WEST BST WAT"), (2, "CEST MEST EET CAT SAST"),
        (3, "EEST MSK EAT IDT"), (4, "MSD"), (5, "PKT"), (5.75, "NPT"), (7, "ICT WIB"), (8, "AWST HKT SGT PHT WITA"),
        (9, "JST KST WIT"), (9.5, "ACST"), (10, "AEST"), (10.5, "ACDT"), (11, "AEDT"), (12, "NZST"), (13, "NZDT"),
    )
    for name in names.split()
}  # fmt: skip
# The military letters; J is the reader's own time.
_HOURS |= {letter: hours for hours, letter in enumerate("ABCDEFGHIKLM", start=1)}
_HOURS |= {letter: -hours for hours, letter in enumerate("NOPQRSTUVWXY", start=1)}
ABBREVIATIONS = tuple(sorted(name for name in _HOURS if len(name) > 1))
"""The abbreviations of two letters and more that are understood anywhere."""

_FIXED = re.compile(r"([A-Z]{1,5})?(?:([+-])(\d{1,2})(?::?([0-5]\d))?)?", re.ASCII)
_FARTHEST = timedelta(hours=14)


def parse_zone(text: str) -> tzinfo:
    """The zone that an administrator names: `UTC+0200`, `+02:00`, `CEST`, or `Europe/Zurich`.

    As in fail2ban an abbreviation is a fixed offset, the whole year through, and what follows it is added to it:
    `CET+0100` is two hours ahead of UTC. Names of the IANA database follow their summer time. Raises ValueError with
    one clear line for anything else.
    """
    text = text.strip()
    fixed = fixed_zone(text)
    if fixed is not None:
        return fixed
    try:
        if re.fullmatch(r"[\w+-]+(?:/[\w+-]+)*", text, re.ASCII):
            return ZoneInfo(text)
    except (ValueError, KeyError, OSError):
        pass
    raise ValueError(
        f"{printable(text) or 'an empty text'} is no time zone: give UTC, an offset such as UTC+0200, or a name such "
        "as Europe/Zurich (package tzdata)"
    )


@lru_cache(maxsize=256)
def fixed_zone(text: str) -> tzinfo | None:
    """The fixed offset that an abbreviation, an offset or both mean; None for anything else."""
    found = _FIXED.fullmatch(text)
    if not found or not text:
        return None
    name, sign, hours, minutes = found.groups()
    if name is not None and name not in _HOURS:
        return None
    offset = timedelta(hours=_HOURS[name] if name else 0)
    if sign:
        size = timedelta(hours=int(hours), minutes=int(minutes or 0))
        offset += -size if sign == "-" else size
    if abs(offset) > _FARTHEST:
        return None
    return timezone(offset) if offset else UTC


def read_named(name: str, local: datetime, zone: tzinfo | None) -> datetime | None:
    """A local time in the zone that a log calls `name`; None when nothing is known of that name.

    What the log's own zone calls itself at that time comes first: it decides about IST, and about which of the two
    hours is meant when clocks are set back. `zone` None is the system's.
    """
    for fold in (0, 1):
        own = local.replace(tzinfo=zone, fold=fold) if zone else local.replace(fold=fold).astimezone()
        if own.tzname() == name:
            return own
    fixed = fixed_zone(name)
    return local.replace(tzinfo=fixed) if fixed else None
