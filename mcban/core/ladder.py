"""The ladder: one number of hits gives four tiers, and what "ascending" means.

Rule: the specification's "The ladder".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mcban.core.duration import format_duration, lasting
from mcban.core.model import Kind

BLACKLIST_SUFFIX = "-bl"


@dataclass(frozen=True, slots=True)
class Step:
    """One tier's numbers: hits, look-back and ban, the latter two in seconds (`bantime` -1: for ever)."""

    suffix: str
    maxretry: int
    findtime: int
    bantime: int


# Each tier looks back over twice the ban of the tier below, and wants that many times the hits of one day. A month
# bans for 30 days; the year looks back over two of them.
_RUNGS = (
    ("1d", 1, 3_600, 86_400),
    ("1w", 2, 172_800, 604_800),
    ("1m", 3, 1_209_600, 2_592_000),
    ("1y", 4, 5_184_000, 31_536_000),
)
LONGEST_LOOK_BACK = max(findtime for _, _, findtime, _ in _RUNGS)
"""Seconds for which a generated ladder asks for a hit."""
TIER_SUFFIXES = tuple(suffix for suffix, *_ in _RUNGS)


def generate(hits: int) -> tuple[Step, ...]:
    """The four tiers for `hits` in one day's tier; raises ValueError when it is below 1."""
    if hits < 1:
        raise ValueError(f"a ladder wants at least 1 hit, not {hits}")
    return tuple(Step(suffix, times * hits, findtime, bantime) for suffix, times, findtime, bantime in _RUNGS)


def tier_name(group: str, suffix: str) -> str:
    """The jail of a group's tier: `mc-exim`, `1w` give `mc-exim-1w`."""
    return f"{group}-{suffix}"


def split_name(jail: str) -> tuple[str, Kind, str]:
    """A jail's name as (group, kind, tier suffix).

    `mc-exim-1w` is the tier `1w` of `mc-exim`, `mc-exim-bl` its blacklist; any other name is a custom jail, a group
    of its own.
    """
    group, dash, suffix = jail.rpartition("-")
    if dash and group:
        if suffix in TIER_SUFFIXES:
            return group, Kind.TIER, suffix
        if suffix == "bl":
            return group, Kind.BLACKLIST, ""
    return jail, Kind.CUSTOM, ""


def rank(jail: str) -> int:
    """The place of a tier in its ladder, from 0; a custom jail is the only one of its group."""
    _, kind, suffix = split_name(jail)
    return TIER_SUFFIXES.index(suffix) if kind is Kind.TIER else 0


def faults(steps: Sequence[Step]) -> list[str]:
    """What does not ascend strictly from tier to tier, each naming the offending value; empty when all is well."""
    said = []
    for low, high in pairwise(steps):
        for word, value_low, value_high in (
            ("maxretry", low.maxretry, high.maxretry),
            ("findtime", low.findtime, high.findtime),
            ("bantime", _length(low.bantime), _length(high.bantime)),
        ):
            if not value_low < value_high:
                shown = [
                    format_duration(value) if word == "bantime" and value < 0 else value
                    for value in (getattr(high, word), getattr(low, word))
                ]
                said.append(f"{word} {shown[0]} of {high.suffix} is not above {shown[1]} of {low.suffix}")
    return said


def table(steps: Iterable[Step]) -> str:
    """A ladder in one line: `1d 5 in 1h for 1d, 1w 10 in 2d for 1w`."""
    return ", ".join(
        f"{step.suffix} {step.maxretry} in {format_duration(step.findtime)} {lasting(step.bantime)}" for step in steps
    )


def _length(bantime: int) -> float:
    return float("inf") if bantime < 0 else bantime


@dataclass(frozen=True, slots=True)
class Shipped:
    """A group that comes with mcban: its hits for one day, ports, filter and logs (Debian's places)."""

    name: str
    hits: int
    port: str
    filter: str
    logpath: str


SHIPPED = (
    Shipped("mc-ssh", 3, "22", "mc-sshd-filter", "/var/log/auth.log"),
    Shipped("mc-exim", 5, "25,465,587", "mc-exim-filter", "/var/log/exim4/mainlog"),
    Shipped("mc-webauth", 5, "80,443", "mc-webauth-filter", "/var/log/apache2/access.log /var/log/nginx/access.log"),
)
"""The groups of the original. One web log per server: a failed login stands in its access log and in its error log,
and would count twice."""

DEFAULT_MAX_COUNT = 3
"""Bans in one jail after which the next goes to the blacklist."""
