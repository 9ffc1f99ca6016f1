"""What every firewall backend can do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from mcban.core.plan import Actual, Plan


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that the kernel did not take, and why, in words (`the set is full (maxelem 65536)`)."""

    jail: str
    entry: str
    why: str


class Firewall(Protocol):
    """Holds entries. Every method raises NoPermissionError without CAP_NET_ADMIN and FirewallError otherwise."""

    name: str
    """As `firewall.backend` says it."""

    enforces: bool
    """Whether packets are really refused."""

    longest: int
    """The longest timeout that it takes, in seconds."""

    def read(self, jails: Collection[str]) -> Actual:
        """What is there of ours. `jails` are the names that should be ours, so that a set which lost its rule and
        its list is still seen; sets and rules of others are never reported."""
        ...

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry a plan out, in its order; doing it twice changes nothing. Returns the entries that were refused;
        the others are in force when it returns."""
        ...

    def remove(self, jails: Collection[str]) -> None:
        """Take everything of ours out of the kernel, and nothing of others."""
        ...

    def close(self) -> None:
        """Give sockets back; what is in the kernel stays."""
        ...
