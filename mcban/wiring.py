"""Config to Context: the only place that picks a backend, and that asks the machine."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeoutError
from pathlib import Path

from mcban.config import Config
from mcban.core.address import parse_address
from mcban.errors import ConfigError, NoPermissionError, UnavailableError
from mcban.firewall.base import Firewall
from mcban.service.context import Context, Host
from mcban.service.world import GATEWAY, LOOPBACK, OWN
from mcban.store import schema
from mcban.store.database import Database

LOOKUP_WAIT = 2.0
"""Seconds that a command waits for a DNS name that was never looked up; later ones are looked up behind our back."""
LOOKUP_AGAIN = 60.0
"""Seconds for which addresses of a DNS name are believed."""


def wire(config: Config) -> Context:
    """Everything that commands and engine need; nothing is opened yet. Raises ConfigError."""
    return Context(config, Database(config.url), _firewall(config), _host())


def open_state(context: Context) -> None:
    """Make the state directory if there is none. Raises NoPermissionError, UnavailableError."""
    folder = context.config.state_dir
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except PermissionError:
        raise NoPermissionError(
            f"no permission to make {folder}: run as root, or set MCBAN_STATE_DIR to a folder of yours"
        ) from None
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be made: {error.strerror}") from None


def open_database(context: Context) -> None:
    """Raises ConfigError, DatabaseError or NoPermissionError unless the database is there with the schema needed."""
    file = context.database.sqlite_file
    if file is not None:
        _check_file(Path(file), context)
    schema.require(context.database)


def _check_file(file: Path, context: Context) -> None:
    """SQLite would make an empty file where there is none: that is for `mcban db upgrade` to do."""
    try:
        exists = file.exists()
    except PermissionError:
        exists = True
    if not exists:
        raise ConfigError(f"{context.database.shown_url} does not exist yet: run `mcban db upgrade`")
    if not os.access(file, os.R_OK | os.W_OK):
        raise NoPermissionError(f"no permission to use {file}: run as root, or as its owner")


def _firewall(config: Config) -> Firewall:
    # Imported where picked: pyroute2 takes longer to import than most commands take to run.
    if config.firewall_backend == "ipset":
        from mcban.firewall.ipset import IpsetFirewall  # noqa: PLC0415

        return IpsetFirewall(maxelem=config.firewall_maxelem, chains=config.firewall_chains)
    if config.firewall_backend == "memory":
        from mcban.firewall.memory import MemoryFirewall  # noqa: PLC0415

        return MemoryFirewall()
    raise ConfigError(f"firewall.backend {config.firewall_backend!r} is not there yet: use ipset or memory")


def _host() -> Host:
    return Host(
        clock=time.time, lookup=_Names().addresses, protected=_Protected().entries, port_number=socket.getservbyname
    )


class _Names:
    """DNS names to addresses, remembered; a name server that does not answer never stops the engine."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asked: dict[str, Future[list[str]]] = {}

    def addresses(self, name: str) -> list[str]:
        """The addresses of `name`; those of last time while a new answer is awaited, [] when there never was one."""
        at, found = self._known.get(name, (None, []))
        now = time.monotonic()
        if at is not None and now - at < LOOKUP_AGAIN:
            return found
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="names")
        if name not in self._asked:
            self._asked[name] = self._pool.submit(_resolve, name)
        answer = self._asked[name]
        try:
            fresh = answer.result(LOOKUP_WAIT if at is None else 0)
        except (OSError, LookupTimeoutError):
            fresh = found
        if answer.done():
            del self._asked[name]
        self._known[name] = (now, fresh)
        return fresh


def _resolve(name: str) -> list[str]:
    found = []
    for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
        found.append(parse_address(str(address[0]).partition("%")[0]))
    return sorted(set(found))


class _Protected:
    """Loopback, this host's addresses and its default gateways; asked of the kernel again when the answer is old."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._entries: dict[str, str] = {}

    def entries(self) -> dict[str, str]:
        """Address or network to why."""
        if time.monotonic() - self._at >= LOOKUP_AGAIN / 12:
            self._entries = {"127.0.0.0/8": LOOPBACK, "::1": LOOPBACK, **_own_entries()}
            self._at = time.monotonic()
        return self._entries


def _own_entries() -> dict[str, str]:
    from pyroute2 import IPRoute  # noqa: PLC0415  # takes 0.15 s to import

    found: dict[str, str] = {}
    with IPRoute() as route:
        for message in route.get_addr():
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text:
                found.setdefault(parse_address(text), OWN)
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in route.get_default_routes(family):
                for hop in message.get_attr("RTA_MULTIPATH") or [message]:
                    gateway = hop.get_attr("RTA_GATEWAY")
                    if gateway:
                        found.setdefault(parse_address(gateway), GATEWAY)
    return found
