"""What every service function works with, and what it knows of the world at the moment."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from mcban.config import Config
from mcban.core.allowlist import AllowList
from mcban.core.model import Group, Jail
from mcban.firewall.base import Firewall
from mcban.store.database import Database


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that cannot be used, by the name of the jail or log, and what to do about it."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class JailBook:
    """The jails as SQL has them: usable groups by name, and the rows that cannot be used."""

    groups: dict[str, Group]
    faults: tuple[Fault, ...] = ()
    jails: dict[str, Jail] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "jails", {jail.name: jail for group in self.groups.values() for jail in group.jails})


@dataclass(frozen=True, slots=True)
class World:
    """Jails and allowances as of one moment of SQL."""

    book: JailBook
    allow: AllowList


@dataclass(frozen=True, slots=True)
class Host:
    """What is asked of the machine, so that tests can say it."""

    clock: Callable[[], float]
    """Seconds since the epoch."""
    lookup: Callable[[str], list[str]]
    """The addresses of a DNS name, [] when there are none now."""
    protected: Callable[[], dict[str, str]]
    """Address or network to why it is never banned: loopback, own addresses, gateways."""
    port_number: Callable[[str], int]
    """The number of a service's name; raises OSError."""


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, database, firewall, machine."""

    config: Config
    database: Database
    firewall: Firewall
    host: Host
    forget_connections: Callable[[Collection[str]], object] | None = None
    """Makes connection tracking forget those of these entries; None where that is not wanted."""
    former: Firewall | None = None
    """The other backend that refuses packets, in which an engine with other settings may have left bans."""

    @property
    def now(self) -> int:
        """Whole seconds since the epoch by the clock that all nodes have in common, the database server's: bans begin
        and end by it."""
        return self.own_now + self.database.ahead

    @property
    def own_now(self) -> int:
        """Whole seconds since the epoch by this machine's clock: what its logs and its kernel go by."""
        return int(self.host.clock())
