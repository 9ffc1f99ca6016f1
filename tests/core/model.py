"""The specification's "Counting" as plainly as it can be said: every hit is kept, and all is recounted for each.

Also what the tests of the core share: random ladders and random lives of one address.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from mcban.core.escalation import Record
from mcban.core.model import FOREVER, Group, Jail, Kind, Ports

IP = "203.0.113.7"


def jail(name: str, maxretry: int = 3, findtime: int = 10, bantime: int = 20, **other: Any) -> Jail:
    """A jail of the group `g`, unless said otherwise."""
    made = Jail(name, "g", Kind.TIER, True, maxretry, findtime, bantime, 3, Ports(()), "f", "mc-custom", "/log")
    return replace(made, **other)


def blacklist(**other: Any) -> Jail:
    """The blacklist jail of the group `g`."""
    return jail("g-bl", 0, 0, -1, kind=Kind.BLACKLIST, **other)


@dataclass
class Held:
    """What the model knows of one jail: until when it holds the address, and from which hit on it counts."""

    until: int = 0
    zero: int = 0
    count: int = 0
    forgotten: int = 0


@dataclass
class Model:
    """One address in one group."""

    hits: list[tuple[int, int]] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)

    def of(self, name: str) -> Held:
        """What is known of a jail."""
        return self.held.setdefault(name, Held())

    def hit(self, group: Group, at: int, number: int, allowed: frozenset[str]) -> list[tuple[str, int, int, int]]:
        """The bans that a hit leads to, as (jail, since, until, count)."""
        black = group.blacklist
        if black is not None and black.enabled and at < self.of(black.name).until:
            return []
        if all(tier.name in allowed for tier in group.tiers):
            return []
        self.hits.append((at, number))
        bans = []
        for tier in group.tiers:
            held = self.of(tier.name)
            if not tier.enabled or tier.name in allowed or at < held.until:
                continue
            if self.counted(tier, at) < tier.maxretry:
                continue
            used_up = tier.max_count > 0 and held.count >= tier.max_count
            if used_up and black is not None and black.enabled and black.name not in allowed:
                self.of(black.name).until = FOREVER
                self.of(black.name).count += 1
                bans.append((black.name, at, FOREVER, self.of(black.name).count))
                break
            held.count += 1
            held.until = held.zero = FOREVER if tier.bantime < 0 else at + tier.bantime
            bans.append((tier.name, at, held.until, held.count))
        return bans

    def counted(self, tier: Jail, at: int) -> int:
        """The hits that count for a tier at `at`: in its window, after its last ban's end, not forgotten."""
        held = self.of(tier.name)
        return sum(
            at - tier.findtime < when <= at and when >= held.zero and number > held.forgotten
            for when, number in self.hits
        )

    def lift(self, name: str, number: int) -> None:
        """Lift by hand: the tier counts from zero, beginning with the next hit."""
        held = self.of(name)
        held.until = held.zero = 0
        held.forgotten = number


def lift(record: Record, name: str, number: int) -> None:
    """The same for what is under test, as the service does it."""
    standing = record.standing(name)
    standing.until, standing.lifted_after = 0, number


@dataclass(frozen=True)
class Step:
    """What happens next in the life of an address."""

    after: int
    """Seconds since what happened before."""
    lifts: frozenset[int] = frozenset()
    """Jails that are lifted by hand before the hit, by their place in the group."""
    toggles: frozenset[int] = frozenset()
    """Jails that are disabled, or enabled again, before the hit."""
    allowed: frozenset[int] = frozenset()
    """Jails in which the address is allowed at this hit."""


@st.composite
def groups(draw: st.DrawFn, *, ascending: bool = False) -> Group:
    """One to four tiers with small numbers, so that a short life reaches every boundary."""
    tiers = []
    retry, find, ban = 0, 0, 0
    for place in range(draw(st.integers(1, 4))):
        more = (draw(st.integers(1, 4)), draw(st.integers(1, 20)), draw(st.integers(1, 25)))
        retry, find, ban = (retry + more[0], find + more[1], ban + more[2]) if ascending else more
        tiers.append(
            jail(
                f"g-{place}",
                retry,
                find,
                -1 if draw(st.integers(0, 15)) == 0 else ban,
                enabled=draw(st.integers(0, 7)) > 0,
                max_count=draw(st.sampled_from([1, 2, 3, 0, -1])),
            )
        )
    black = draw(st.sampled_from([None, blacklist(), blacklist(), blacklist(), blacklist(enabled=False)]))
    return Group("g", tuple(tiers), black)


def lives(longest: int = 60) -> st.SearchStrategy[list[Step]]:
    """Hits with gaps around the look-backs and bans of `groups`, mostly close together; now and then something else."""
    few = st.frozensets(st.integers(0, 4), max_size=5)
    rarely = st.one_of(*[st.just(frozenset())] * 5, few)
    gaps = st.one_of(st.just(0), st.just(1), st.integers(0, 30))
    return st.lists(st.builds(Step, gaps, rarely, rarely, rarely), min_size=1, max_size=longest)


def toggled(group: Group, places: frozenset[int]) -> Group:
    """The group with the jails at `places` disabled, or enabled again."""
    tiers = tuple(replace(t, enabled=t.enabled != (i in places)) for i, t in enumerate(group.tiers))
    black = group.blacklist
    if black is not None and len(tiers) in places:
        black = replace(black, enabled=not black.enabled)
    return Group(group.name, tiers, black)


def names(group: Group, places: frozenset[int]) -> frozenset[str]:
    """The names of the jails at `places`."""
    return frozenset(member.name for i, member in enumerate(group.jails) if i in places)
