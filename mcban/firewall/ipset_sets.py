"""The kernel's sets: made, listed and destroyed through pyroute2; filled and read in bulk through a socket of ours.

Knows what a set is and which errors the kernel has; which sets there should be is left to `ipset`. pyroute2 decodes
each entry on its own, some forty times slower than `ipset_wire`, so entries never pass through it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pyroute2 import IPSet
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.ipset import (
    IPSET_ERR_BUSY,
    IPSET_ERR_EXIST,
    IPSET_ERR_REFERENCED,
    IPSET_ERR_TYPE_MISMATCH,
)

from mcban.errors import FirewallError, McbanError, NoPermissionError
from mcban.firewall import ipset_wire as wire
from mcban.firewall.base import GoneError
from mcban.firewall.ipset_wire import Header
from mcban.firewall.netlink import NETLINK_NETFILTER

PATIENCE = 30.0
"""Seconds that the kernel may take for one request. It answers within milliseconds, but a set that is just being
resized holds everyone up."""
LETTING_GO = 0.5
"""Seconds that a set is given to be let go of by rules that were just deleted."""
FEWEST_BUCKETS = 1024
"""The kernel's own default."""
_RECEIVE = 1 << 18
_NO_MEMBER = 4352
"""linux/netfilter/ipset/ip_set_list.h, IPSET_ERR_NAME: the set that is to leave a list is not there at all."""

NO_PERMISSION = (
    "no permission to change the firewall: CAP_NET_ADMIN is missing; run as root, or give a container "
    "--cap-add=NET_ADMIN (compose: cap_add: [NET_ADMIN])"
)

_T = TypeVar("_T")


def translated(code: int, what: str) -> McbanError:
    """Our error for an errno or an ipset code that the kernel gave while doing `what`."""
    if code in (errno.EPERM, errno.EACCES):
        return NoPermissionError(NO_PERMISSION)
    if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
        return FirewallError(f"{what}: this kernel has no ipset (CONFIG_IP_SET, modules ip_set, ip_set_hash_net)")
    if code == errno.ENOENT:
        return GoneError(f"{what}: a set vanished meanwhile; the next sync puts it back")
    if code == errno.EEXIST or code in (IPSET_ERR_TYPE_MISMATCH, IPSET_ERR_EXIST):
        return FirewallError(f"{what}: a set of this name, but of another kind, is there; rename or destroy it")
    if code in (IPSET_ERR_BUSY, IPSET_ERR_REFERENCED, errno.EBUSY):
        return FirewallError(f"{what}: a rule or list of others uses it; take that away first (iptables-save)")
    known = errno.errorcode.get(code)
    return FirewallError(
        f"{what}: the kernel answers {known or 'ipset error'} ({os.strerror(code) if known else code})"
    )


def reason(code: int, maxelem: int) -> str:
    """Why the kernel did not take one entry, for a person."""
    if code == wire.ERR_HASH_FULL:
        return f"the set is full (maxelem {maxelem})"
    if code == wire.ERR_INVALID_CIDR:
        return "the kernel takes no network of this width"
    known = errno.errorcode.get(code)
    return f"the kernel answers {known or 'ipset error'} ({os.strerror(code) if known else code})"


@contextmanager
def _speaking(what: str) -> Iterator[None]:
    """Translate what pyroute2 and sockets raise."""
    try:
        yield
    except NetlinkError as error:
        raise translated(int(error.code), what) from error
    except TimeoutError as error:
        raise FirewallError(f"{what}: the kernel did not answer within {PATIENCE:.0f} s") from error
    except OSError as error:
        raise translated(error.errno or 0, what) from error


class Sets:
    """A line to the kernel's ipset. Opened when first used, and anew in a child after `fork`; not for two threads."""

    def __init__(self) -> None:
        self._owner = 0
        self._control: Any = None
        self._bulk: socket.socket | None = None
        self._sequence = 0

    def close(self) -> None:
        """Give both sockets back."""
        control, bulk, mine = self._control, self._bulk, self._owner == os.getpid()
        self._control = self._bulk = None
        if bulk is not None:
            bulk.close()
        if control is not None and mine:
            control.close()

    def _open(self) -> None:
        if self._owner == os.getpid() and self._bulk is not None:
            return
        self.close()
        self._owner = os.getpid()
        with _speaking("cannot speak with the kernel's ipset"):
            self._control = IPSet()
            self._bulk = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            self._bulk.bind((0, 0))
            self._bulk.settimeout(PATIENCE)

    def _ask(self, what: str, request: Callable[[Any], _T]) -> _T:
        self._open()
        with _speaking(what):
            return request(self._control)

    def headers(self) -> dict[str, Header]:
        """Every set of the namespace, ours and others'."""
        found = map(wire.header, (reply.about for reply in self._dump("", "cannot list sets", header=True) or ()))
        return {header.name: header for header in found}

    def header(self, name: str) -> Header | None:
        """One set's header; None when there is no such set. Counting what it holds takes the kernel 30 ms for each
        million."""
        replies = self._dump(name, f"cannot read set {name}", header=True)
        return wire.header(replies[0].about) if replies else None

    def members(self, name: str) -> list[str] | None:
        """The sets in a `list:set`; None when there is no such list."""
        replies = self._dump(name, f"cannot read list {name}")
        return None if replies is None else wire.members(reply.entries for reply in replies)

    def create(self, name: str, family: int, maxelem: int, expected: int = 0) -> None:
        """A new `hash:net` set with timeouts, where an entry without one stays.

        It gets as many buckets as the kernel would end up with for the `expected` entries: growing there by doubling
        takes the kernel twice as long as taking the entries.
        """
        hashsize = max(FEWEST_BUCKETS, 1 << (min(expected, maxelem) // 2).bit_length())
        self._ask(
            f"cannot create set {name}",
            lambda control: control.create(
                name, stype="hash:net", family=family, maxelem=maxelem, hashsize=hashsize, timeout=0
            ),
        )

    def create_list(self, name: str) -> None:
        """A list, for both families; fine when it is there, since a command and the engine may both make it."""
        self._ask(
            f"cannot create list {name}",
            lambda control: control.create(name, stype="list:set", family=socket.AF_UNSPEC, exclusive=False),
        )

    def destroy(self, name: str) -> None:
        """Take a set or list away; fine when it is not there.

        nf_tables lets go of a deleted rule's set a moment after the rule is gone, so a set in use gets that moment.
        """
        deadline = time.monotonic() + LETTING_GO
        while True:
            try:
                self._ask(f"cannot destroy set {name}", lambda control: control.destroy(name))
            except FirewallError as error:
                if _code(error) == errno.ENOENT:
                    return
                if _code(error) != IPSET_ERR_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def swap(self, name: str, other: str) -> None:
        """Exchange the contents of two sets at once; whoever refers to either keeps its name."""
        self._ask(f"cannot swap sets {name} and {other}", lambda control: control.swap(name, other))

    def join(self, name: str, member: str) -> None:
        """Put a set into a list; fine when it is in it."""
        self._ask(f"cannot add {member} to list {name}", lambda c: c.add(name, member, etype="set", exclusive=False))

    def leave(self, name: str, member: str) -> None:
        """Take a set out of a list; fine when it is not in it."""
        try:
            self._ask(f"cannot take {member} out of list {name}", lambda c: c.delete(name, member, etype="set"))
        except FirewallError as error:
            if _code(error) not in (errno.ENOENT, IPSET_ERR_EXIST, _NO_MEMBER):
                raise

    def entries(self, name: str, family: int, now: int) -> dict[str, int] | None:
        """What a set holds with each end in seconds since the epoch; None when there is no such set.

        An entry without timeout has the end FOREVER.
        """
        replies = self._dump(name, f"cannot read set {name}")
        return None if replies is None else dict(wire.unpack(family, [reply.entries for reply in replies], now))

    def keys(self, name: str, family: int) -> bytes | None:
        """What tells the entries of a set from others, without their ends, as `ipset_wire.keys` has it; None when there
        is no such set."""
        replies = self._dump(name, f"cannot read set {name}")
        return None if replies is None else wire.keys(family, [reply.entries for reply in replies])

    def _dump(self, name: str, what: str, header: bool = False) -> list[wire.Reply] | None:
        self._open()
        found: list[wire.Reply] = []
        with _speaking(what):
            sequence = self._next()
            self._send(wire.listing(name, sequence, header))
            while True:
                for reply in self._receive(sequence):
                    if reply.error == errno.ENOENT:
                        return None
                    if reply.error:
                        raise OSError(reply.error, os.strerror(reply.error))
                    if reply.done:
                        return found
                    found.append(reply)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return self._sequence

    def _send(self, message: bytes) -> None:
        assert self._bulk is not None  # noqa: S101  # _open made it
        self._bulk.send(message)

    def _receive(self, sequence: int) -> list[wire.Reply]:
        """The next replies to a request; what is left of one that was given up is passed over."""
        assert self._bulk is not None  # noqa: S101  # _open made it
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [reply for reply in wire.replies(self._bulk.recv(_RECEIVE)) if reply.sequence == sequence]
            if found:
                return found
        raise TimeoutError

    def add(
        self, header: Header, family: int, entries: Sequence[str], timeouts: Sequence[int]
    ) -> list[tuple[str, str]]:
        """Put entries in, or renew them; `timeouts` in seconds, 0 for ever. Returns those refused, and why."""
        return self._change(wire.CMD_ADD, header, family, entries, timeouts)

    def delete(self, header: Header, family: int, entries: Sequence[str]) -> list[tuple[str, str]]:
        """Take entries out; those that are not there are fine. Returns those refused, and why."""
        return self._change(wire.CMD_DEL, header, family, entries, None)

    def _change(
        self, command: int, header: Header, family: int, entries: Sequence[str], timeouts: Sequence[int] | None
    ) -> list[tuple[str, str]]:
        """Messages as full as they can be. One that fails names the entry where it stopped: those before it are in,
        and the next message starts behind it. While entries are refused the messages are small, since each carries
        what comes after the refused one once more."""
        self._open()
        refused: list[tuple[str, str]] = []
        at, size = 0, wire.MOST[family]
        while at < len(entries):
            some = entries[at : at + size]
            seconds = None if timeouts is None else timeouts[at : at + size]
            try:
                code, line = self._exchange(command, header.name, family, some, seconds)
            except ValueError:  # not an address of this family, which only a row typed by hand can bring here
                if len(some) > 1:
                    size = len(some) // 2
                    continue
                code, line = errno.EINVAL, 0
            if code == 0:
                at += len(some)
                size = min(size * 2, wire.MOST[family])
                continue
            if line is None or code in (errno.ENOENT, errno.EPERM):
                raise translated(code, f"cannot change set {header.name}")
            refused.append((some[line], reason(code, header.maxelem)))
            at += line + 1
            size = max(1, size // 2)
        return refused

    def _exchange(
        self, command: int, name: str, family: int, entries: Sequence[str], timeouts: Sequence[int] | None
    ) -> tuple[int, int | None]:
        """One message and its answer: (0, None), or the error and the index of the entry that has it."""
        sequence = self._next()
        try:
            message = wire.change(command, name, family, entries, timeouts, sequence)
        except OSError as error:  # inet_pton's way to say it
            raise ValueError(str(error)) from error
        with _speaking(f"cannot change set {name}"):
            self._send(message)
            reply = self._receive(sequence)[0]
        return reply.error or 0, reply.line


def _code(error: FirewallError) -> int:
    """The kernel's code behind a translated error."""
    cause = error.__cause__
    return int(getattr(cause, "code", 0) or getattr(cause, "errno", 0) or 0)
