"""What every firewall backend can do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from mcban.core.plan import Actual, Plan
from mcban.errors import FirewallError

V6_SUFFIX = "-v6"
"""What the name of a jail's IPv6 set ends with; the IPv4 set has the jail's own name."""
LIST_SUFFIX = "-all"
"""What the name of a group's list of sets ends with."""
LONGEST_SET_NAME = 31
"""Characters that the kernel takes for a set's name."""
LONGEST_JAIL_NAME = LONGEST_SET_NAME - len(V6_SUFFIX)
LONGEST_GROUP_NAME = LONGEST_SET_NAME - len(LIST_SUFFIX)

_NAMED = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)


def name_fault(jail: str) -> str | None:
    """Why the firewall cannot take this name of a jail, in words; None when it can."""
    return _fault(jail, LONGEST_JAIL_NAME, "jail")


def group_fault(group: str) -> str | None:
    """Why the firewall cannot take this name of a group (or of a custom jail, which is its own group)."""
    return _fault(group, LONGEST_GROUP_NAME, "group")


def _fault(name: str, longest: int, what: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "a name begins with a letter or digit, and has letters, digits, '-', '_' and '.' only"
    if len(name) > longest:
        return f"the name has {len(name)} characters; the kernel takes {longest} for a {what}"
    for suffix in (V6_SUFFIX, LIST_SUFFIX):
        if name.endswith(suffix):
            return f"names ending in '{suffix}' are kept for sets that mcban makes"
    return None


class IncompleteError(FirewallError):
    """A part could not be carried out; everything else is done. `refused` is what `apply` would have returned."""

    def __init__(self, message: str, refused: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refused = tuple(refused)


class GoneError(FirewallError):
    """A set that should be there is not: somebody else took it away, and the next sync puts it back."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that the kernel did not take, and why, in words (`the set is full (maxelem 65536)`)."""

    jail: str
    entry: str
    why: str


def summarise(refusals: Iterable[Refusal]) -> list[str]:
    """One line for each jail and reason, with some of the entries: of a list that is full there may be thousands."""
    alike: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        alike.setdefault((refusal.jail, refusal.why), []).append(refusal.entry)
    lines: list[str] = []
    for (jail, why), entries in alike.items():
        more = f" and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
        lines.append(f"{', '.join(entries[:_NAMED])}{more} in {jail}: {why}")
    return lines


@dataclass(frozen=True, slots=True)
class Glance:
    """A cheap look. `whole`: every set, list, member, rule and jump that this process saw at its last `read`, or put
    there by `apply` since, is there and unaltered; False also when only a `read` can say. `counts` are the live
    entries of every jail that was asked for or is known, and whose sets stand, both families together."""

    whole: bool
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Turnover:
    """The entries that came into a jail's sets and went out of them, whoever did it and for whatever reason."""

    came: AbstractSet[str] = frozenset()
    went: AbstractSet[str] = frozenset()


class Firewall(Protocol):
    """Holds entries. Every method raises NoPermissionError without CAP_NET_ADMIN and FirewallError otherwise."""

    name: str
    """As `firewall.backend` says it."""

    enforces: bool
    """Whether packets are really refused."""

    longest: int
    """The longest timeout that it takes, in seconds."""

    def stands(self) -> bool:
        """Whether anything of ours that refuses packets stands there, whole or not, without reading entries. What would
        keep it from working is raised."""
        ...

    def read(self, jails: Collection[str]) -> Actual:
        """What is there of ours. `jails` are the names that should be ours, so that a set which lost its rule and
        its list is still seen; sets and rules of others are never reported."""
        ...

    def glance(self, jails: Collection[str]) -> Glance:
        """Whether what was there is still there, and how many entries there are, without reading them: cheap enough
        for every few seconds. That the entries are the same ones it does not say: `turnover` does."""
        ...

    def turnover(self, jail: str) -> Turnover | None:
        """What has changed among a jail's entries since this was last asked; at first, everything is new. None when
        it cannot be said, as for sets that are gone. May be as old as the last `glance`. Costs, per entry, a tenth of
        what `read` does."""
        ...

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry a plan out, in its order; doing it twice changes nothing. Returns the entries that were refused;
        the others are in force when it returns. Raises IncompleteError, which carries them, when a part failed and
        all else is done: a set is gone, or its name taken by others, or one address family cannot be enforced."""
        ...

    def remove(self, jails: Collection[str]) -> None:
        """Take everything of ours out of the kernel, and nothing of others."""
        ...

    def close(self) -> None:
        """Give sockets back; what is in the kernel stays."""
        ...
