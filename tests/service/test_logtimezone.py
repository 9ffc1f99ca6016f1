"""A jail may say in which zone its log's times are: by the command, or by plain SQL."""

from __future__ import annotations

import pytest

from mcban.core.model import Hit
from mcban.errors import DataError
from mcban.service import upkeep
from mcban.service.context import Context
from mcban.service.replay import choose_sources, replay
from mcban.service.sources import Intake, find_sources
from tests.service.desk import NOON, execute
from tests.service.jail_desk import alter, faults, insert, made, rows

LINE = b"%s login authenticator failed for (x) [203.0.113.7]: 535 Incorrect authentication data (set_id=a)\n"


def read(context: Context, log: str, line: bytes) -> list[Hit]:
    """What the engine would record of one line of a log."""
    sources, wrong = find_sources(context, upkeep.take_over(context)[0].book)
    assert not wrong
    return sorted(Intake(sources).hits(log, line, (log,), NOON))


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("UTC", 0), ("UTC+0200", 2), ("-0330", -3.5), ("CET", 1), ("Europe/Zurich", 1), ("Asia/Tokyo", 9)],
)
def test_times_are_read_in_the_zone_of_the_jail(context: Context, zone: str, hours: float) -> None:
    """A local time is that of the zone; a time that brings its offset needs none. Without a zone it is the system's."""
    insert(context, made(logpath="/x.log"))
    alter(context, "my-jail", "logtimezone", zone)
    (hit,) = read(context, "/x.log", LINE % b"2026-01-15 13:00:00")
    assert hit.at == 1_768_482_000 - 3600 * hours
    (hit,) = read(context, "/x.log", LINE % b"2026-01-15 13:00:00 +0000")
    assert hit.at == 1_768_482_000


def test_two_jails_may_read_one_log_in_two_zones(context: Context) -> None:
    """Each has the time that its own zone makes of the line, and both have their hit."""
    insert(context, made("here", logpath="/x.log", logtimezone="UTC"))
    insert(context, made("there", logpath="/x.log", logtimezone="UTC+01:00"))
    here, there = sorted(read(context, "/x.log", LINE % b"2026-01-15 13:00:00"), key=lambda hit: hit.group)
    assert (here.group, there.group) == ("here", "there")
    assert here.at - there.at == 3600


def test_replay_reads_in_the_zone_of_the_group(context: Context) -> None:
    """What a ladder would have done is on the same clock as what it does."""
    alter(context, "mc-exim", "logtimezone", "UTC-0500")
    world = upkeep.take_over(context)[0]
    lines = LINE % b"2026-01-15 02:00:00" * 5
    group = world.book.groups["mc-exim"]
    sources = choose_sources(context, group, ["x"])
    (ban,) = replay(context, group, world.allow, sources, iter([("x", lines)])).bans
    assert ban.since == 1_768_442_400 + 18_000


def test_a_zone_that_is_none_is_refused_or_reported(context: Context) -> None:
    """By the command it is refused in one line; written by plain SQL it is a fault by name. Taking it out helps."""
    with pytest.raises(DataError, match="logtimezone Nowhere/City is no time zone: give UTC"):
        alter(context, "mc-ssh", "logtimezone", "Nowhere/City")
    execute(context, "UPDATE fail2ban_jail SET logtimezone = 'CEST+' WHERE name = 'mc-ssh-1d'")
    assert faults(context)["mc-ssh-1d"].startswith("logtimezone CEST+ is no time zone")
    said = alter(context, "mc-ssh-1d", "logtimezone", "")
    assert list(said.done) == ["mc-ssh-1d: logtimezone CEST+ is now the system's"]
    assert faults(context) == {}


def test_the_zone_of_a_group_is_one(context: Context) -> None:
    """The group's option sets it for all of its jails; tiers that disagree are reported. The default is no zone."""
    assert {row.logtimezone for row in rows(context).values()} == {""}
    alter(context, "mc-exim-1d", "logtimezone", "Europe/Zurich")
    assert faults(context)["mc-exim"].startswith("its tiers name different values of logtimezone: that of mc-exim-1d")
    alter(context, "mc-exim", "logtimezone", "Europe/Zurich")
    assert faults(context) == {}
    assert {row.logtimezone for name, row in rows(context).items() if name.startswith("mc-exim")} == {"Europe/Zurich"}
