"""Connections that the kernel tracks: those of banned addresses are forgotten.

A ban refuses packets of open connections by itself; this also takes away what connection tracking holds for them, such
as an entry of NAT that would let their packets pass elsewhere. One dump for each family and one deletion for each
connection found, over netlink; no program is started, however many addresses there are.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Collection, Iterator
from socket import AF_INET, AF_INET6, inet_pton

from mcban.errors import FirewallError, NoPermissionError
from mcban.firewall.netlink import (
    HEADER,
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    fields,
)

# linux/netfilter/nfnetlink_conntrack.h
SUBSYSTEM = 1 << 8
GET, DELETE = 1, 2
TUPLE_ORIG, TUPLE_IP, ID, ZONE = 1, 1, 12, 18
SOURCE: dict[int, int] = {AF_INET: 1, AF_INET6: 3}
PATIENCE = 20.0
"""Seconds for all of it: a table of millions must not stop the engine."""
WHAT = "cannot end open connections"
NO_PERMISSION = f"{WHAT}: CAP_NET_ADMIN is missing; run as root, or give a container --cap-add=NET_ADMIN"


class _Sources:
    """Addresses and networks of one family, as packed bytes, for asking about many addresses."""

    def __init__(self, family: int, entries: Collection[str]) -> None:
        self._hosts: set[bytes] = set()
        self._networks: dict[int, set[int]] = {}
        self._width = 4 if family == AF_INET else 16
        for entry in entries:
            head, _, prefix = entry.partition("/")
            packed = inet_pton(family, head)
            if prefix:
                shift = self._width * 8 - int(prefix)
                self._networks.setdefault(shift, set()).add(int.from_bytes(packed, "big") >> shift)
            else:
                self._hosts.add(packed)

    def __contains__(self, address: bytes) -> bool:
        if address in self._hosts:
            return True
        value = int.from_bytes(address, "big") if self._networks else 0
        return any(value >> shift in networks for shift, networks in self._networks.items())


def forget_connections(entries: Collection[str]) -> int:
    """Delete the tracked connections that these addresses and networks (canonical text) opened, and return how many
    they were; none is fine. Raises NoPermissionError, and FirewallError where the kernel cannot do it."""
    deadline = time.monotonic() + PATIENCE
    deleted = 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as line:
            line.bind((0, 0))
            line.settimeout(PATIENCE)
            for number, family in enumerate((AF_INET, AF_INET6)):
                mine = [entry for entry in entries if (":" in entry) == (family == AF_INET6)]
                if mine:
                    found = list(_found(line, family, _Sources(family, mine), number + 1, deadline))
                    deleted += sum(_delete(line, family, body, at, deadline) for at, body in enumerate(found, 10))
    except TimeoutError as error:
        raise FirewallError(f"{WHAT}: the kernel did not answer within {PATIENCE:.0f} s") from error
    except OSError as error:
        raise _translated(error.errno or 0) from error
    return deleted


def _translated(code: int) -> FirewallError | NoPermissionError:
    if code in (errno.EPERM, errno.EACCES):
        return NoPermissionError(NO_PERMISSION)
    if code in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP):
        return FirewallError(f"{WHAT}: this kernel does not list them (module nf_conntrack_netlink)")
    return FirewallError(f"{WHAT}: the kernel answers {errno.errorcode.get(code, code)} ({os.strerror(code)})")


def _request(family: int, command: int, flags: int, sequence: int, body: bytes = b"") -> bytes:
    head = HEADER.pack(len(body) + 20, SUBSYSTEM | command, NLM_F_REQUEST | flags, sequence, 0)
    return head + bytes([family, 0, 0, 0]) + body


def _answers(line: socket.socket, sequence: int, deadline: float) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of the messages that answer a request, until nobody asks for more."""
    while True:
        if time.monotonic() > deadline:
            raise TimeoutError
        data = line.recv(1 << 18)
        start = 0
        while start + 16 <= len(data):
            length, kind, _, number, _ = HEADER.unpack_from(data, start)
            if number == sequence:
                yield kind, data[start + 16 : start + length]
            start += max(16, (length + 3) & ~3)


def _found(line: socket.socket, family: int, sources: _Sources, sequence: int, deadline: float) -> Iterator[bytes]:
    """What names each tracked connection that one of the sources opened."""
    line.send(_request(family, GET, NLM_F_DUMP, sequence))
    for kind, payload in _answers(line, sequence, deadline):
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            code = -int(struct.unpack_from("=i", payload)[0])
            if code > 0:
                raise OSError(code, os.strerror(code))
            return
        said = fields(payload[4:])
        origin = said.get(TUPLE_ORIG, b"")
        if fields(fields(origin).get(TUPLE_IP, b"")).get(SOURCE[family], b"") in sources:
            body = attribute(TUPLE_ORIG | NLA_F_NESTED, origin)
            yield body + b"".join(attribute(kind, said[kind]) for kind in (ID, ZONE) if kind in said)


def _delete(line: socket.socket, family: int, body: bytes, sequence: int, deadline: float) -> bool:
    """Forget one connection; False when it had ended by itself."""
    line.send(_request(family, DELETE, NLM_F_ACK, sequence, body))
    _, payload = next(_answers(line, sequence, deadline))
    code = -int(struct.unpack_from("=i", payload)[0])
    if code not in (0, errno.ENOENT):
        raise OSError(code, os.strerror(code))
    return code == 0
