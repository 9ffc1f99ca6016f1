"""From the hits so far and one more to a verdict. Rule: the specification's "Counting".

One `Record` holds what is known of one address in one group. `judge` takes a hit in and says what follows. It keeps
no more hits than the highest tier can ask for, so that memory is bounded by addresses, not by attacks.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from mcban.core.address import is_ipv6, overlaps, parse_network, to_network
from mcban.core.allowlist import AllowList
from mcban.core.duration import format_duration
from mcban.core.model import FOREVER, NUMBER_BITS, Ban, Group, Hit, Jail, number_of, stamp, time_of


@dataclass(slots=True)
class Standing:
    """How one address stands in one jail.

    `until` is the end of its last ban: before it the jail holds the address, from it on the jail counts anew.
    A ban lifted by hand has no such end: `lifted_after` is then the number of the last hit that is forgotten, since a
    log's clock may be late and hits of the same second lie on both sides of the lifting.
    """

    until: int = 0
    lifted_after: int = 0
    count: int = 0

    def holds(self, at: int) -> bool:
        """Whether a ban of this jail runs at `at`."""
        return at < self.until

    def counts(self, at: int, number: int) -> bool:
        """Whether the hit of that time and number counts for this jail."""
        return at >= self.until and number > self.lifted_after


class Calm(NamedTuple):
    """What need not be worked out again: by the group's rules of that number, an address whose next hit comes in order,
    before `until`, and finds fewer than `room` hits kept, is not banned for it, and the hit counts. Holds as long as
    nobody but the ladder changes its standings."""

    rules: int
    room: int
    until: int


@dataclass(slots=True)
class Record:
    """One address in one group: its kept hits as stamps (`model.stamp`), ascending, and its standing in each jail.

    Numbers ascend in the order in which hits were recorded.
    """

    hits: list[int] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    calm: Calm | None = field(default=None, compare=False, repr=False)

    def standing(self, jail: str) -> Standing:
        """The standing in `jail`, a clean one if there was none."""
        return self.standings.setdefault(jail, Standing())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a hit led to: whether it counted, the bans that follow, and the numbers of hits no longer worth keeping."""

    counted: bool
    bans: tuple[Ban, ...] = ()
    dropped: tuple[int, ...] = ()


NOT_COUNTED = Verdict(counted=False)
COUNTED = Verdict(counted=True)
"""What most hits lead to."""

Allowed = Callable[[Jail], bool]


def nobody(_: Jail) -> bool:
    """Allows nowhere."""
    return False


_MANY_OWNERS = tuple(
    to_network(entry)
    for entry in (
        "::/64",  # loopback, and IPv4 addresses in the IPv6 form
        "64:ff9b::/96",  # all of IPv4 behind a translator
        "64:ff9b:1::/48",  # the same, by local choice
        "2001::/32",  # Teredo: a network is a relay, with all who use it
        "fe80::/10",  # everybody on the wire
    )
)
"""IPv6 networks in which one /64 is not one customer: there every address counts by itself."""


def network_of(group: Group, entry: str) -> str | None:
    """The IPv6 network by which `group` counts the address or network; None where it counts single addresses."""
    length = group.v6_prefix
    if length >= 128 or not is_ipv6(entry) or to_network(entry).prefixlen <= length:
        return None
    network = parse_network(f"{entry.partition('/')[0]}/{length}")
    if any(overlaps(to_network(network), shared) for shared in _MANY_OWNERS):
        return None
    return network


def counted_for(group: Group, ip: str, allow: AllowList) -> str:
    """Whom a hit of `ip` is counted for: the address, or by the group's setting the IPv6 network that it lies in. In
    a network that holds somebody allowed, each is counted for himself."""
    network = network_of(group, ip)
    if network is None or any(allow.touching(network, jail) for jail in group.jails):
        return ip
    return network


def seen_from(ban: Ban, ip: str) -> Ban:
    """The ban, its reason naming the address of the hit that led to it where a network is banned."""
    return ban if ban.ip == ip else replace(ban, reason=f"{ban.reason}, the last from {ip}")


_COUNTED = re.compile(r"\d+ hits? within ")


def was_counted(reason: str | None) -> bool:
    """Whether a ban's reason says that hits led to it, not somebody's hand."""
    return _COUNTED.match(reason or "") is not None


def judge(group: Group, record: Record, hit: Hit, number: int, allowed: Allowed = nobody) -> Verdict:
    """Take `hit` into `record` and say what follows.

    A tier fires when the hits in (t - findtime, t] reach its maxretry, t being the time of a hit. A hit that arrives
    late (two logs of one service are read one after the other) also completes the windows of later hits that it
    lies in; the ban then starts at that later hit, as if all had come in order.
    An address that the blacklist holds is not counted, nor is one that is allowed in every tier.
    """
    if record.standings and _blacklist_holds(group, record, hit.at):
        return NOT_COUNTED
    if allowed is not nobody and all(allowed(tier) for tier in group.tiers):
        return NOT_COUNTED
    hits, taken = record.hits, stamp(hit.at, number)
    late = bool(hits) and taken < hits[-1]
    if late:
        insort(hits, taken)
    else:
        hits.append(taken)
    kept = len(hits)
    bans = _fire(group, record, hit, number, allowed, late=late) if kept >= group.fewest_hits else []
    if kept <= group.most_hits and time_of(hits[0]) > time_of(hits[-1]) - group.longest_look_back:
        dropped: tuple[int, ...] = ()
    else:
        dropped = _trim(group, record)
    return Verdict(True, tuple(bans), dropped) if bans or dropped else COUNTED


def judge_all(
    group: Group,
    records: Mapping[str, Record],
    hits: Sequence[Hit],
    first: int,
    allowed: Mapping[str, Allowed],
) -> list[tuple[int, Verdict]]:
    """Judge `hits` one after the other, numbered from `first` on, each by the record of its address; `allowed` has
    those who are allowed somewhere. Returns what did not simply count, as (number, verdict)."""
    told: list[tuple[int, Verdict]] = []
    rules, look_back = group.rules, group.longest_look_back
    unknown = Calm(rules, group.fewest_hits - 1, FOREVER)
    for number, hit in enumerate(hits, first):
        at, ip, _, _ = hit
        record = records[ip]
        kept = record.hits
        # What `judge` would find of most hits is known beforehand.
        by, room, until = (record.calm or _UNRULY) if record.standings else unknown
        if len(kept) < room and at < until and by == rules and ip not in allowed:
            taken = at << NUMBER_BITS | number
            if not kept or (kept[-1] < taken and kept[0] >> NUMBER_BITS > at - look_back):
                kept.append(taken)
                continue
        verdict = judge(group, record, hit, number, allowed.get(ip, nobody))
        if verdict is not COUNTED:
            told.append((number, verdict))
        if verdict.counted and record.standings and (verdict.bans or by != rules):
            record.calm = _calm(group, record, at)
    return told


_UNRULY = Calm(0, 0, 0)


def _calm(group: Group, record: Record, at: int) -> Calm:
    """For how long `record` is calm after a hit at `at`: until the first ban ends that holds it now, or a tier that
    does not could be full."""
    if _blacklist_holds(group, record, at):
        return Calm(group.rules, 0, 0)
    room, until = group.most_hits, FOREVER
    for tier in group.tiers:
        standing = record.standings.get(tier.name, _CLEAN)
        if standing.holds(at):
            until = min(until, standing.until)
        elif tier.enabled:
            room = min(room, tier.maxretry - 1)
    return Calm(group.rules, room, until)


def _fire(group: Group, record: Record, hit: Hit, number: int, allowed: Allowed, *, late: bool) -> list[Ban]:
    """The bans of all tiers that the hit just taken in carries to their threshold."""
    bans: list[Ban] = []
    for tier in group.tiers:
        if not tier.enabled or len(record.hits) < tier.maxretry or allowed(tier):
            continue
        standing = record.standings.get(tier.name)
        if standing is not None and hit.at < standing.until:
            continue  # held
        if standing is None and not late and hit.at >= 0:
            # Nothing is forgotten, nothing comes after: only the window that ends here can be full. (Before 1970, where
            # only a broken clock leads, no tier counts.)
            full = time_of(record.hits[-tier.maxretry]) > hit.at - tier.findtime
            offence = hit.at if full else None
        else:
            offence = _offence(tier, record, standing or _CLEAN, hit.at, number)
        if offence is None:
            continue
        ban = _ban(group, tier, record, hit.ip, offence, allowed)
        bans.append(ban)
        if ban.blacklisted:
            break
    return bans


def _blacklist_holds(group: Group, record: Record, at: int) -> bool:
    blacklist = group.blacklist
    if blacklist is None or not blacklist.enabled:
        return False
    standing = record.standings.get(blacklist.name)
    return standing is not None and standing.holds(at)


_CLEAN = Standing()


def _offence(tier: Jail, record: Record, standing: Standing, at: int, number: int) -> int | None:
    """The time at which the hit just taken in carries the address to the tier's threshold, or None."""
    if not standing.counts(at, number):
        return None
    counting = [when for one in record.hits if standing.counts(when := time_of(one), number_of(one))]
    if len(counting) < tier.maxretry:
        return None
    for last in range(bisect_left(counting, at), bisect_left(counting, at + tier.findtime)):
        # The window that ends at this hit is full when the hit maxretry - 1 places before lies in it. The last of
        # several in one second sees them all: the time is the same.
        first = last - tier.maxretry + 1
        if first >= 0 and counting[first] > counting[last] - tier.findtime:
            return counting[last]
    return None


def _ban(group: Group, tier: Jail, record: Record, ip: str, at: int, allowed: Allowed) -> Ban:
    """The ban that an offence leads to: in the tier, or for ever in the blacklist once the tier's count is used up."""
    standing = record.standing(tier.name)
    reason = _reason(tier.maxretry, tier.findtime)
    target = promotion(group, tier, standing.count)
    if target is not None and not allowed(target):
        held = record.standing(target.name)
        held.until, held.lifted_after, held.count = FOREVER, 0, held.count + 1
        reason += f", after {standing.count} bans in {tier.name} (max_count {tier.max_count})"
        return Ban(ip, target.name, at, FOREVER, held.count, reason, blacklisted=True)
    until = FOREVER if tier.bantime < 0 else at + tier.bantime
    standing.until, standing.lifted_after, standing.count = until, 0, standing.count + 1
    return Ban(ip, tier.name, at, until, standing.count, reason)


@lru_cache(maxsize=1024)
def _reason(hits: int, seconds: int) -> str:
    return f"{hits} {'hit' if hits == 1 else 'hits'} within {format_duration(seconds)}"


def promotion(group: Group, tier: Jail, count: int) -> Jail | None:
    """The blacklist jail to which the next ban in `tier` goes, `count` bans having been; None when it stays there."""
    blacklist = group.blacklist
    if tier.max_count <= 0 or count < tier.max_count or blacklist is None or not blacklist.enabled:
        return None
    return blacklist


def hits_counted(tier: Jail, record: Record, now: int) -> int:
    """How many of the kept hits count for `tier` at `now`."""
    standing = record.standings.get(tier.name, Standing())
    hits = ((time_of(one), number_of(one)) for one in record.hits)
    return sum(now - tier.findtime < at <= now and standing.counts(at, number) for at, number in hits)


def _trim(group: Group, record: Record) -> tuple[int, ...]:
    """Forget what no tier can ask for any more; returns the numbers of the hits dropped."""
    hits = record.hits
    oldest = time_of(hits[-1]) - group.longest_look_back
    keep_from = max(0, len(hits) - group.most_hits)
    while keep_from < len(hits) and time_of(hits[keep_from]) <= oldest:
        keep_from += 1
    dropped = tuple(number_of(one) for one in hits[:keep_from])
    del hits[:keep_from]
    return dropped
