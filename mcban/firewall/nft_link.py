"""A line to the kernel's nf_tables: transactions that take effect as one, and dumps.

Owns the socket and what the kernel's errors mean for a person; what is said over it is left to `nftables`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from mcban.errors import FirewallError, McbanError, NoPermissionError
from mcban.firewall import nft_wire as wire
from mcban.firewall.base import GoneError
from mcban.firewall.netlink import HEADER, NETLINK_NETFILTER, NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR

PATIENCE = 30.0
TRIES = 20
"""How often a dump or a transaction is begun anew because others changed the rules in the middle of it."""
NO_PERMISSION = (
    "no permission to change the firewall: CAP_NET_ADMIN is missing; run as root, or give a container "
    "--cap-add=NET_ADMIN (compose: cap_add: [NET_ADMIN])"
)
_SOL_NETLINK, _CAP_ACK = 270, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 1 << 28
"""A transaction is sent whole: some hundred bytes for each network."""
_INTERRUPTED = 0x10
_LAST_SEQUENCE = 0x7FFFFFF0

Request = tuple[int, int, bytes]
"""Command, flags and body."""


class Refused(Exception):  # noqa: N818  # a state of affairs that callers deal with, not an error
    """The kernel refused a transaction, of which nothing took effect."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


def translated(code: int, what: str) -> McbanError:
    """Our error for an errno that the kernel gave while doing `what`."""
    if code in (errno.EPERM, errno.EACCES):
        return NoPermissionError(NO_PERMISSION)
    if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return FirewallError(f"{what}: this kernel has no nf_tables for inet (CONFIG_NF_TABLES_INET, nft_reject_inet)")
    if code == errno.ENOENT:
        return GoneError(f"{what}: a set or the table vanished meanwhile; the next sync puts it back")
    if code == errno.ERESTART:
        return FirewallError(f"{what}: others change the rules without pause; the next sync tries again")
    known = errno.errorcode.get(code)
    return FirewallError(f"{what}: the kernel answers {known or code} ({os.strerror(code)})")


@contextmanager
def speaking(what: str) -> Iterator[None]:
    """Translate what sockets raise and the kernel refuses."""
    try:
        yield
    except Refused as refused:
        raise translated(refused.code, what) from refused
    except TimeoutError as error:
        raise FirewallError(f"{what}: the kernel did not answer within {PATIENCE:.0f} s") from error
    except OSError as error:
        raise translated(error.errno or 0, what) from error


class Link:
    """Opened when first used, and anew in a child after `fork`; not for two threads. `commits` counts the
    transactions that took effect: each raised the kernel's generation by one. `times` says when each message of the
    last dump was made, in milliseconds: a long one takes its time, while what it tells of runs out."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._owner = 0
        self._sequence = 0
        self.commits = 0
        self.times: list[int] = []

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _open(self) -> socket.socket:
        if self._socket is None or self._owner != os.getpid():
            self.close()
            self._owner = os.getpid()
            line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            line.bind((0, 0))
            line.settimeout(PATIENCE)
            line.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            with suppress(OSError):  # without the capability, the kernel says so when it is asked for something
                line.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
                line.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket = line
        return self._socket

    @property
    def port(self) -> int:
        """By which the kernel tells who made a change: ours, while the socket is open."""
        return int(self._open().getsockname()[0])

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def dump(self, what: str, command: int, body: bytes = b"", family: int = wire.INET) -> list[bytes] | None:
        """The attributes of every message of a dump; None when there is no such thing."""
        with speaking(what):
            for _ in range(TRIES):
                found = self._dump(command, body, family)
                if not isinstance(found, bool):
                    return found
        raise FirewallError(f"{what}: others change the rules without pause; the next sync tries again")

    def _dump(self, command: int, body: bytes, family: int) -> list[bytes] | bool | None:
        """False when it was disturbed and must begin anew."""
        line, sequence = self._open(), self._next()
        line.send(wire.request(command, NLM_F_DUMP, sequence, body, family))
        found: list[bytes] = []
        self.times = []
        disturbed = False
        while True:
            messages = self._receive(line, sequence)
            now = time.time_ns() // 1_000_000
            for kind, flags, payload in messages:
                disturbed = disturbed or bool(flags & _INTERRUPTED)
                code = -int(struct.unpack_from("=i", payload)[0]) if kind in (NLMSG_ERROR, NLMSG_DONE) else 0
                if code == errno.ENOENT:
                    return None
                if code == errno.EINTR:
                    return False
                if code > 0:
                    raise Refused(code)
                if kind == NLMSG_DONE:
                    return False if disturbed else found
                found.append(payload[4:])
                self.times.append(now)

    def _receive(self, line: socket.socket, *sequences: int) -> list[tuple[int, int, bytes]]:
        """(type, flags, payload) of the next messages with one of these numbers."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            data = line.recv(1 << 18)
            found: list[tuple[int, int, bytes]] = []
            start = 0
            while start + 16 <= len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
                if sequence in sequences:
                    found.append((kind, flags, data[start + 16 : start + length]))
                start += max(16, (length + 3) & ~3)
            if found:
                return found
        raise TimeoutError

    def commit(self, requests: Sequence[Request], generation: int | None = None) -> None:
        """All of the requests as one transaction. Raises Refused, with ERESTART when the generation is another."""
        if not requests:
            return
        line = self._open()
        if self._sequence + len(requests) > _LAST_SEQUENCE:
            self._sequence = 0
        begin = self._next()
        parts = [wire.edge(wire.BATCH_BEGIN, begin, generation)]
        for at, (command, flags, body) in enumerate(requests):
            acknowledged = NLM_F_ACK if at == len(requests) - 1 else 0
            parts.append(wire.request(command, flags | acknowledged, self._next(), body))
        last = self._sequence
        parts.append(wire.edge(wire.BATCH_END, self._next()))
        line.send(b"".join(parts))
        self._await(line, begin, last)
        self.commits += 1

    def _await(self, line: socket.socket, begin: int, last: int) -> None:
        """The answer to a transaction: errors of any of its messages come before the acknowledgement of the last."""
        refused = 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            data = line.recv(1 << 18)
            start = 0
            while start + 20 <= len(data):
                length, kind, _, sequence, _ = HEADER.unpack_from(data, start)
                if kind == NLMSG_ERROR and begin <= sequence <= last:
                    code = -int(struct.unpack_from("=i", data, start + 16)[0])
                    refused = refused or code
                    if sequence in (begin, last):
                        if refused:
                            raise Refused(refused)
                        return
                start += max(16, (length + 3) & ~3)
        raise TimeoutError
