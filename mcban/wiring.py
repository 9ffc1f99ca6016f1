"""Config to Context: the only place that picks a backend, and that asks the machine.

What is slow to import is imported when it is first needed: a command that only looks into SQL never meets the kernel's
side.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LookupTimeoutError
from dataclasses import replace

from mcban.config import Config
from mcban.core.address import parse_address
from mcban.core.plan import Actual, Plan
from mcban.errors import ConfigError, NoPermissionError, UnavailableError
from mcban.firewall.base import Firewall, Glance, Refusal, Turnover
from mcban.service.context import Context, Host
from mcban.service.world import GATEWAY, LOOPBACK, OWN
from mcban.store import schema
from mcban.store.access import Access
from mcban.store.database import Database

LOOKUP_WAIT = 2.0
"""Seconds that a command waits for DNS names that were never looked up; later they are looked up behind our back."""
LOOKUP_AGAIN = 60.0
"""Seconds for which addresses of a DNS name are believed."""


def wire(config: Config) -> Context:
    """Everything that commands and engine need; nothing is opened yet. Raises ConfigError."""
    return Context(
        config, Database(_access(config)), _firewall(config), _host(), _forget_connections(config), _former(config)
    )


def _access(config: Config) -> Access:
    files = (config.database_tls_ca, config.database_tls_cert, config.database_tls_key)
    ca, cert, key = (str(file) if file else None for file in files)
    return Access(config.urls, config.read_password(), config.database_tls, ca, cert, key)


def open_state(context: Context) -> None:
    """Make the state directory if there is none. Raises NoPermissionError, UnavailableError."""
    folder = context.config.state_dir
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        may = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise UnavailableError(f"{folder} cannot be made: {error.strerror}") from None
        may = False
    if not may and os.access(folder, os.F_OK) and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise UnavailableError(f"{folder} is on a read-only file system: the kernel's log may say why it became so")
    if not may:
        raise NoPermissionError(
            f"no permission to write into {folder}: run as root, or set MCBAN_STATE_DIR to a folder of yours"
        )


def open_database(context: Context) -> None:
    """Raises ConfigError, DataError, DatabaseError or NoPermissionError unless the database is there with the schema
    needed."""
    # SQLite would make an empty file where there is none: that is for `mcban db upgrade` to do.
    if not context.database.has_file():
        raise ConfigError(f"{context.database.shown_url} does not exist yet: run `mcban db upgrade`")
    schema.require(context.database)


_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class _LateFirewall:
    """A backend that is loaded when it is first asked for something: pyroute2 takes longer to import than most commands
    take to run."""

    enforces = True

    def __init__(self, name: str, load: Callable[[], Firewall]) -> None:
        self.name = name
        self._load = load
        self._loaded: Firewall | None = None

    def _firewall(self) -> Firewall:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    @property
    def longest(self) -> int:
        """As the backend has it; all that follows likewise."""
        return self._firewall().longest

    @longest.setter
    def longest(self, seconds: int) -> None:
        self._firewall().longest = seconds

    def stands(self) -> bool:
        """Whether anything of ours stands there."""
        return self._firewall().stands()

    def read(self, jails: Collection[str]) -> Actual:
        """What is there of ours."""
        return self._firewall().read(jails)

    def glance(self, jails: Collection[str]) -> Glance:
        """A cheap look."""
        return self._firewall().glance(jails)

    def turnover(self, jail: str) -> Turnover | None:
        """What has changed among a jail's entries."""
        return self._firewall().turnover(jail)

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry a plan out."""
        return self._firewall().apply(plan, now)

    def remove(self, jails: Collection[str]) -> None:
        """Take everything of ours out."""
        self._firewall().remove(jails)

    def close(self) -> None:
        """Give sockets back, if there are any."""
        if self._loaded is not None:
            self._loaded.close()


def _ipset(config: Config) -> Firewall:
    from mcban.firewall.ipset import IpsetFirewall  # noqa: PLC0415

    return IpsetFirewall(maxelem=config.firewall_maxelem, chains=config.firewall_chains)


def _nftables(config: Config) -> Firewall:
    from mcban.firewall.nftables import NftablesFirewall  # noqa: PLC0415

    return NftablesFirewall(chains=config.firewall_chains)


def _firewall(config: Config) -> Firewall:
    if config.firewall_backend == "memory":
        from mcban.firewall.memory import MemoryFirewall  # noqa: PLC0415

        return MemoryFirewall()
    return _late(config.firewall_backend, config)


_BACKENDS = {"ipset": _ipset, "nftables": _nftables}


def _late(name: str, config: Config) -> Firewall:
    return _LateFirewall(name, lambda: _BACKENDS[name](config))


def _former(config: Config) -> Firewall | None:
    """The backend that enforces and is not the one of the settings. With `memory` nothing in the kernel is touched."""
    names = [name for name in _BACKENDS if name != config.firewall_backend]
    return _late(names[0], replace(config, firewall_chains=("INPUT",))) if len(names) == 1 else None


def _forget_connections(config: Config) -> Callable[[Collection[str]], object] | None:
    if not config.end_connections or config.firewall_backend == "memory":
        return None
    from mcban.firewall.conntrack import forget_connections  # noqa: PLC0415

    return forget_connections


def _host() -> Host:
    return Host(
        clock=time.time, lookup=_Names().addresses, protected=_Protected().entries, port_number=socket.getservbyname
    )


class _Names:
    """DNS names to addresses, remembered; a name server that does not answer never stops the engine, nor the end of a
    command: the threads that wait for it are nobody's business."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asked: dict[str, Future[list[str]]] = {}
        self._patience = LOOKUP_WAIT

    def addresses(self, name: str) -> list[str]:
        """The addresses of `name`; those of last time while a new answer is awaited, [] when there never was one."""
        asked, found = self._known.get(name, (None, []))
        now = time.monotonic()
        if asked is not None and now - asked < LOOKUP_AGAIN:
            return found
        if name not in self._asked:
            self._asked[name] = _ask(name)
        try:
            found = self._asked[name].result(self._patience if asked is None else 0)
        except LookupTimeoutError:
            # All names together are waited for once; the answer is looked for again soon.
            self._patience = max(0.0, self._patience - (time.monotonic() - now))
            self._known[name] = (now - LOOKUP_AGAIN + LOOKUP_WAIT, found)
            return found
        except (OSError, ValueError):  # no such name; or, from plain SQL, what can be none
            pass
        del self._asked[name]
        self._patience = LOOKUP_WAIT
        self._known[name] = (now, found)
        return found


def _ask(name: str) -> Future[list[str]]:
    answer: Future[list[str]] = Future()

    def work() -> None:
        try:
            answer.set_result(_resolve(name))
        except (OSError, ValueError) as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="names", daemon=True).start()
    return answer


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


# linux/netlink.h, linux/rtnetlink.h
_RTM_GETADDR, _RTM_GETROUTE = 22, 26
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 5, 9, 18
_RTN_UNICAST = 1
_ADDR_HEADER, _ROUTE_HEADER, _HOP_HEADER = 8, 12, 8


def _own_entries() -> dict[str, str]:
    """The kernel's own answer, over netlink: every address, and the gateway of every default route, in any table.
    Raises UnavailableError."""
    found: dict[str, str] = {}
    try:
        for body in _dump(_RTM_GETADDR, _ADDR_HEADER):
            held = dict(_attributes(body[_ADDR_HEADER:]))
            own = held.get(_IFA_LOCAL) or held.get(_IFA_ADDRESS)
            if own:
                found.setdefault(_address(own), OWN)
        for body in _dump(_RTM_GETROUTE, _ROUTE_HEADER):
            if body[1] == 0 and body[7] == _RTN_UNICAST:  # the prefix is /0
                for gateway in _gateways(body[_ROUTE_HEADER:]):
                    found.setdefault(gateway, GATEWAY)
    except OSError as error:
        raise UnavailableError(f"the kernel does not tell this host's addresses: {error.strerror}") from None
    return found


def _dump(request: int, header: int) -> Iterator[bytes]:
    """The bodies of what the kernel lists for `request`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(LOOKUP_WAIT)
        kernel.send(struct.pack("=IHHII", 16 + header, request, _NLM_F_REQUEST_DUMP, 1, 0) + bytes(header))
        while True:
            data = kernel.recv(1 << 20)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, 16)[0], "netlink refused to list them")
                if kind == _NLMSG_DONE:
                    return
                yield data[16:length]
                data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[max(4, (length + 3) & ~3) :]


def _gateways(data: bytes) -> Iterator[str]:
    for kind, value in _attributes(data):
        if kind == _RTA_GATEWAY:
            yield _address(value)
        elif kind == _RTA_VIA:  # an IPv4 route by way of an IPv6 neighbour
            yield _address(value[2:])
        elif kind == _RTA_MULTIPATH:
            while len(value) >= _HOP_HEADER:
                length = max(_HOP_HEADER, struct.unpack_from("=H", value)[0])
                yield from _gateways(value[_HOP_HEADER:length])
                value = value[(length + 3) & ~3 :]  # noqa: PLW2901


def _address(packed: bytes) -> str:
    return parse_address(socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed))
