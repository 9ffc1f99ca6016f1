"""What the rules speak of: hits, jails, groups, bans. Frozen values, no behaviour beyond reading themselves.

Times in hits and bans are whole seconds since the epoch, UTC: they are compared for every line of a log. The edges
turn them into aware datetimes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

FOREVER: int = 253_402_300_799
"""The end of a ban that has none: 9999-12-31T23:59:59Z, which every database can hold."""


class Kind(Enum):
    """What a row of `fail2ban_jail` is in its group."""

    TIER = "tier"
    BLACKLIST = "blacklist"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Ports:
    """Which TCP ports a jail closes; no ranges at all means every port of every protocol."""

    ranges: tuple[tuple[int, int], ...]

    @property
    def everything(self) -> bool:
        """Whether all ports and protocols are closed."""
        return not self.ranges

    def __str__(self) -> str:
        if self.everything:
            return "all"
        return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Jail:
    """One usable row of `fail2ban_jail`. Durations are seconds; a `bantime` of -1 is for ever."""

    name: str
    group: str
    kind: Kind
    enabled: bool
    maxretry: int
    findtime: int
    bantime: int
    max_count: int
    ports: Ports
    filter: str
    banaction: str
    logpath: str
    drop: bool | None = None
    """Whether packets are dropped or rejected; None leaves that to the settings."""
    v6_prefix: int = 128
    """The length of the networks by which IPv6 attackers are counted and banned."""
    share_hits: bool = True
    """Whether the hits of several nodes add up; their bans are shared in any case."""
    logtimezone: str = ""
    """The zone of the log's times that name none; empty for the system's."""


AT_NODE = "@"
"""Between a group's name, which holds none, and the node that counts for itself."""


def of_group(name: str, group: str) -> bool:
    """Whether hits of `group` are counted under `name`, at whatever node."""
    return name.partition(AT_NODE)[0] == group


@dataclass(frozen=True, slots=True)
class Group:
    """A service: its tiers from the lowest to the highest, and its blacklist jail if it has one.

    A custom jail is a group with one tier, of the same name.
    """

    name: str
    tiers: tuple[Jail, ...]
    blacklist: Jail | None
    # Asked for each hit: worked out once.
    fewest_hits: int = field(init=False, repr=False, compare=False)
    """The hits of one address below which no tier fires."""
    most_hits: int = field(init=False, repr=False, compare=False)
    """The hits of one address that any tier can ask for: what is worth keeping."""
    longest_look_back: int = field(init=False, repr=False, compare=False)
    """Seconds after which a hit counts for no tier."""
    rules: int = field(init=False, repr=False, compare=False)
    """A number that tells these tiers from others, in this process."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fewest_hits", min((tier.maxretry for tier in self.tiers), default=0))
        object.__setattr__(self, "most_hits", max((tier.maxretry for tier in self.tiers), default=0))
        object.__setattr__(self, "longest_look_back", max((tier.findtime for tier in self.tiers), default=0))
        object.__setattr__(self, "rules", hash((self.tiers, self.blacklist)))

    @property
    def jails(self) -> tuple[Jail, ...]:
        """The tiers, and the blacklist jail after them."""
        return self.tiers if self.blacklist is None else (*self.tiers, self.blacklist)

    @property
    def v6_prefix(self) -> int:
        """The length of the networks by which IPv6 attackers are counted and banned: the lowest enabled tier's."""
        tier = next((tier for tier in self.tiers if tier.enabled), None) or next(iter(self.tiers), None)
        return 128 if tier is None else tier.v6_prefix

    def counted_as(self, node: str) -> str:
        """Under which name hits at `node` are counted: the group's, or one of the node's own. As the lowest enabled
        tier says, which speaks for the group."""
        tier = next((tier for tier in self.tiers if tier.enabled), None) or next(iter(self.tiers), None)
        return self.name if tier is None or tier.share_hits else f"{self.name}{AT_NODE}{node}"


class Hit(NamedTuple):
    """A line that a jail's filter recognised. `at` is the log's own time, in seconds.

    A tuple, for there are hundreds of thousands in a second.
    """

    at: int
    ip: str
    group: str
    login: str | None = None


NUMBER_BITS = 48
NUMBERS = (1 << NUMBER_BITS) - 1
"""The highest number that a hit can have."""


def stamp(at: int, number: int) -> int:
    """A hit's time and number in one, in the order of the times and then of the numbers: a hundred thousand hits are
    remembered so, in half of the memory that pairs take."""
    return at << NUMBER_BITS | number


def time_of(stamped: int) -> int:
    """The time in a stamp, in seconds since the epoch."""
    return stamped >> NUMBER_BITS


def number_of(stamped: int) -> int:
    """The number in a stamp."""
    return stamped & NUMBERS


LONGEST_PATH = 500
"""Characters of a log's path that SQL keeps with a position."""
LONGEST_CURSOR = 255
"""Characters of a journal's cursor that SQL keeps with a position; systemd's have about 150."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log was read.

    A path does not name a file for ever: `device`, `inode` and a fingerprint of the file's first bytes
    (`head_length` of them, hashed in `head_hash`) do. `offset` is the byte after the last whole line dealt with.

    Of the journal, `path` is its name with what is asked of it, `cursor` the journal's own name of the last entry dealt
    with (empty before the first), and `offset` how many entries that were; the rest is empty.
    """

    path: str
    device: int
    inode: int
    head_length: int
    head_hash: str
    offset: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Ban:
    """An address or network held in a jail from `since` until `until` (FOREVER: without end)."""

    ip: str
    jail: str
    since: int
    until: int
    count: int
    reason: str
    host: str = ""
    blacklisted: bool = False

    def in_force(self, now: int) -> bool:
        """Whether it still runs at `now`."""
        return now < self.until
