"""The bans of one jail and family in nf_tables: a set of addresses, and two for networks.

Owns adding, taking out and reading of entries, each in transactions that take effect as one. Adding is tried as if
nothing were there yet; where something is, it is renewed by taking it out and putting it in within one transaction,
because kernels before 6.12 leave the end of an element as it is.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from socket import AF_INET6, inet_ntop, inet_pton

from mcban.core.model import FOREVER
from mcban.errors import FirewallError
from mcban.firewall import nft_networks as networks
from mcban.firewall import nft_wire as wire
from mcban.firewall.netlink import fields, rules_generation
from mcban.firewall.nft_link import TRIES, Link, Refused, Request, speaking
from mcban.firewall.nft_networks import WIDTH
from mcban.firewall.nft_rules import NETWORKS, RANGES

IN_A_TRANSACTION = 50_000
"""Addresses. The kernel holds everybody else's changes up while it carries one out."""
FULL = {errno.ENOMEM, errno.ENFILE, errno.ENOSPC, errno.ENOBUFS, errno.EMSGSIZE}

GROWING = 0.05
"""Seconds to wait for a hash that is being rebuilt."""
SLACK = 2000
"""Milliseconds by which two dumps may differ about an end: each is made by a clock of its own."""
PAGE = 300
"""Elements that fit into any page of a dump."""

Refusals = list[tuple[str, str]]
Keys = tuple[bytes, bytes]


def milliseconds() -> int:
    """The clock in the unit of nf_tables."""
    return time.time_ns() // 1_000_000


def _seconds(end: int) -> int:
    return FOREVER if end == wire.NEVER else (end + 500) // 1000


class Half:
    """One family of a jail. `most` is how many entries it may hold. `fresh` are the ends, in milliseconds, of entries
    that were put in and had not been there; `sure` says that nothing else has changed by this object. `keys` are those
    of all addresses and of all networks that the last reading found."""

    def __init__(self, link: Link, jail: str, family: int, name: str, most: int) -> None:
        self._link = link
        self._family = family
        self._name = name
        self._most = most
        self._width = WIDTH[family]
        self._what = f"cannot change the sets of {jail}"
        self.fresh: list[int] = []
        self.sure = True
        self.keys: Keys = (b"", b"")

    def takes(self, entry: str) -> bool:
        """Whether an entry is of this family."""
        return (":" in entry) == (self._family == AF_INET6)

    def _dump(self, suffix: str, width: int) -> tuple[list[bytes], list[int]] | None:
        """The elements of a set without intervals; None when it is gone.

        The kernel dumps a hash page by page and finds its place again by counting. Where it is just growing the hash,
        the order changes in between: then some come twice, and others not at all, so that it must be asked again.
        """
        name = self._name + suffix
        for _ in range(TRIES):
            dump = self._link.dump(f"cannot read set {name}", wire.GETSETELEM, wire.all_elements(name))
            if dump is None:
                return None
            found = wire.unpack([fields(some).get(3, b"") for some in dump], width, self._link.times)
            if len(set(found[0])) == len(found[0]):
                return found
            time.sleep(GROWING)
        raise FirewallError(
            f"cannot read set {name}: the kernel's table does not come to rest; the next sync tries again"
        )

    def _ranges(self) -> list[tuple[int, int, int]] | None:
        """What rules are asked about networks; None when it is gone."""
        name = self._name + RANGES
        dump = self._link.dump(f"cannot read set {name}", wire.GETSETELEM, wire.all_elements(name))
        if dump is None:
            return None
        keys, ends = wire.unpack([fields(some).get(3, b"") for some in dump], self._width, self._link.times)
        return networks.spans(keys, ends, 1 << (8 * self._width))

    def read(self) -> dict[str, int] | None:
        """Every entry with its end in seconds since the epoch; None when the sets are gone.

        Networks count only as far as the ranges are what they amount to. Where others altered those, the networks are
        not reported, so that they are put in again, but a network that nobody can want is, so that it is taken out:
        either makes the ranges anew.
        """
        hosts, nets, ranges = self._dump("", self._width), self._dump(NETWORKS, self._width + 4), self._ranges()
        if hosts is None or nets is None or ranges is None:
            return None
        self.keys = _joined(hosts[0]), _joined(nets[0])
        texts = map(inet_ntop, repeat(self._family), hosts[0])
        found = dict(zip(texts, map(_seconds, hosts[1]), strict=True))
        if self._agree(nets, ranges):
            for key, end in zip(*nets, strict=True):
                found[networks.unpack(self._family, key)] = _seconds(end)
        elif ranges:
            address = inet_ntop(self._family, ranges[0][0].to_bytes(self._width, "big"))
            found[f"{address}/{self._width * 8}"] = _seconds(ranges[0][2])
        return found

    def _agree(self, nets: tuple[list[bytes], list[int]], ranges: Sequence[tuple[int, int, int]]) -> bool:
        return networks.agree(networks.intervals(self._width, zip(*nets, strict=True)), ranges, SLACK)

    def ends(self) -> list[int] | None:
        """The ends of all entries, in milliseconds; None when the sets are gone, or altered by others."""
        hosts, nets, ranges = self._dump("", self._width), self._dump(NETWORKS, self._width + 4), self._ranges()
        if hosts is None or nets is None or ranges is None or not self._agree(nets, ranges):
            return None
        self.keys = _joined(hosts[0]), _joined(nets[0])
        return [*hosts[1], *nets[1]]

    def exchanged(self, before: Keys, after: Keys) -> tuple[set[str], set[str]]:
        """The entries that are new in `after`, and those that are not in it any more."""
        came: set[str] = set()
        went: set[str] = set()
        for old, new, width in zip(before, after, (self._width, self._width + 4), strict=True):
            if old != new:
                was, are = ({some[at : at + width] for at in range(0, len(some), width)} for some in (old, new))
                came.update(map(self._entry, are - was))
                went.update(map(self._entry, was - are))
        return came, went

    def _entry(self, key: bytes) -> str:
        return inet_ntop(self._family, key) if len(key) == self._width else networks.unpack(self._family, key)

    def add(self, entries: Sequence[str], seconds: Sequence[int], tight: bool) -> Refusals:
        """Put entries in, or renew them, with timeouts in seconds, 0 for ever. Returns those refused, and why.
        `tight`: it may be that they do not all fit."""
        refused: Refusals = []
        room = set(entries)
        if tight:
            held = self.read() or {}
            fresh = [entry for entry in entries if entry not in held]
            over = fresh[max(0, self._most - len(held)) :]
            refused = [(entry, f"the set is full (maxelem {self._most})") for entry in over]
            room.difference_update(over)
        hosts: tuple[list[str], list[str]] = ([], [])
        left: tuple[list[int], list[int]] = ([], [])
        nets: dict[str, int] = {}
        for entry, some in zip(entries, seconds, strict=True):
            if entry not in room:
                continue
            if "/" in entry:
                nets[entry] = some
            else:
                hosts[some == 0].append(entry)
                left[some == 0].append(1000 * some)
        refused += self._add_hosts(hosts[0], left[0]) + self._add_hosts(hosts[1], None)
        return refused + self._add_networks(nets)

    def _add_hosts(self, entries: Sequence[str], timeouts: Sequence[int] | None) -> Refusals:
        refused: Refusals = []
        for at in range(0, len(entries), IN_A_TRANSACTION):
            some = entries[at : at + IN_A_TRANSACTION]
            left = None if timeouts is None else timeouts[at : at + IN_A_TRANSACTION]
            try:
                keys = b"".join(map(inet_pton, repeat(self._family), some))
            except OSError:
                good = [n for n, entry in enumerate(some) if self._key(entry) is not None]
                refused += [(entry, "it is no address") for entry in some if self._key(entry) is None]
                some = [some[n] for n in good]
                left = None if left is None else [left[n] for n in good]
                keys = b"".join(map(inet_pton, repeat(self._family), some))
            if some:
                refused += self._put(some, keys, left)
        return refused

    def _key(self, entry: str) -> bytes | None:
        try:
            return inet_pton(self._family, entry)
        except OSError:
            return None

    def _put(self, entries: Sequence[str], keys: bytes, timeouts: Sequence[int] | None) -> Refusals:
        bodies = list(wire.elements(self._name, self._width, keys, timeouts))
        try:
            try:
                self._commit([_new(body, wire.NLM_F_EXCL) for body in bodies])
                now = milliseconds()
                self.fresh += [wire.NEVER] * len(entries) if timeouts is None else [now + left for left in timeouts]
            except Refused as refused:
                if refused.code != errno.EEXIST:
                    raise
                self.sure = False
                self._commit(self._taken_out(self._name, self._width, keys) + [_new(body) for body in bodies])
        except Refused as refused:
            return self._refusals(refused, entries)
        return []

    def _refusals(self, refused: Refused, entries: Iterable[str]) -> Refusals:
        if refused.code not in FULL:
            with speaking(self._what):
                raise refused
        return [(entry, f"the kernel has no room for it ({errno.errorcode[refused.code]})") for entry in entries]

    def _commit(self, requests: Sequence[Request], generation: int | None = None) -> None:
        """As the link does it, with errors of the socket translated."""
        try:
            self._link.commit(requests, generation)
        except OSError as error:
            if error.errno in FULL:
                raise Refused(error.errno) from error
            with speaking(self._what):
                raise

    def _taken_out(self, name: str, width: int, keys: bytes) -> list[Request]:
        """What deletes elements whether or not they are there: those missing are added first, for ever, and nobody
        sees it."""
        bodies = list(wire.elements(name, width, keys, None))
        return [_new(body) for body in bodies] + [(wire.DELSETELEM, 0, body) for body in bodies]

    def delete(self, entries: Sequence[str]) -> None:
        """Take entries out; those that are not there are fine, and so are sets that are not there."""
        hosts = [entry for entry in entries if "/" not in entry]
        keys = b"".join(key for key in map(self._key, hosts) if key is not None)
        gone = {entry for entry in entries if "/" in entry}
        try:
            for at in range(0, len(keys), IN_A_TRANSACTION * self._width):
                some = keys[at : at + IN_A_TRANSACTION * self._width]
                try:
                    self._commit([(wire.DELSETELEM, 0, b) for b in wire.elements(self._name, self._width, some, None)])
                except Refused as refused:
                    if refused.code != errno.ENOENT:
                        raise
                    self._commit(self._taken_out(self._name, self._width, some))
            if gone:
                self._rework(lambda nets: [nets.pop(self._packed(entry), None) for entry in gone])
        except Refused as refused:
            if refused.code != errno.ENOENT:
                with speaking(self._what):
                    raise

    def _packed(self, entry: str) -> bytes:
        try:
            return networks.pack(self._family, entry)
        except ValueError:
            return b""

    def _add_networks(self, seconds: dict[str, int]) -> Refusals:
        refused: Refusals = []
        ends: dict[bytes, int] = {}
        now = milliseconds()
        for entry, some in seconds.items():
            key = self._packed(entry)
            if key:
                ends[key] = now + 1000 * some if some else wire.NEVER
            else:
                refused.append((entry, "the kernel takes no network of this width"))
        if not ends:
            return refused
        try:
            try:
                self._commit(self._written(ends, ends, now, wire.NLM_F_EXCL))
                self.fresh += ends.values()
            except Refused as known:
                if known.code not in (errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY):
                    raise
                self.sure = False
                self._rework(lambda nets: nets.update(ends))
        except Refused as known:
            refused += self._refusals(known, [entry for entry in seconds if self._packed(entry)])
        return refused

    def _rework(self, change: Callable[[dict[bytes, int]], object]) -> None:
        """Read the networks, change them, and write them with the ranges that they amount to, in one transaction which
        fails and is tried again when anything has changed since the reading."""
        width = self._width + 4
        for left in reversed(range(TRIES)):
            generation = rules_generation()
            now = milliseconds()
            dump = self._dump(NETWORKS, width)
            if dump is None:
                raise Refused(errno.ENOENT)
            before = dict(zip(*dump, strict=True))
            if len(before) > PAGE:  # one that ended and was freed between two pages can hide another
                again = self._dump(NETWORKS, width)
                if again is None or set(again[0]) != before.keys():
                    continue
            after = dict(before)
            change(after)
            different = {key: end for key, end in after.items() if before.get(key) != end}
            stale = b"".join(key for key, end in before.items() if after.get(key) != end)
            requests = [(wire.DELSETELEM, 0, body) for body in wire.elements(self._name + NETWORKS, width, stale, None)]
            requests.append((wire.DELSETELEM, 0, wire.all_elements(self._name + RANGES)))
            try:
                self._commit([*requests, *self._written(different, after, now)], generation)
            except Refused as refused:
                if refused.code not in (errno.ERESTART, errno.ENOENT) or not left:
                    raise
            else:
                return
        raise Refused(errno.ERESTART)

    def _written(
        self, networks_: dict[bytes, int], covered: dict[bytes, int], now: int, flags: int = 0
    ) -> list[Request]:
        """What puts networks in, and the ranges of all that are `covered`."""
        spans = networks.intervals(self._width, covered.items())
        requests = self._timed(self._name + NETWORKS, self._width + 4, list(networks_.items()), now, flags)
        for ended in (True, False):  # the last addresses of all have none after them
            some = [span for span in spans if (span[1] >> (8 * self._width) == 0) == ended]
            starts = [(low.to_bytes(self._width, "big"), end) for low, _, end in some]
            after = [high.to_bytes(self._width, "big") for _, high, _ in some] if ended else None
            requests += self._timed(self._name + RANGES, self._width, starts, now, flags, after)
        return requests

    def _timed(
        self,
        name: str,
        width: int,
        elements: Sequence[tuple[bytes, int]],
        now: int,
        flags: int,
        after: Sequence[bytes] | None = None,
    ) -> list[Request]:
        """Elements with their ends; `after` are the first keys behind them where they are intervals."""
        requests: list[Request] = []
        for lasting in (True, False):
            chosen = [at for at, (_, end) in enumerate(elements) if (end == wire.NEVER) == lasting]
            keys = b"".join(elements[at][0] for at in chosen)
            left = None if lasting else [max(1, elements[at][1] - now) for at in chosen]
            ends = None if after is None else b"".join(after[at] for at in chosen)
            requests += [_new(body, flags) for body in wire.elements(name, width, keys, left, ends)]
        return requests


def _joined(keys: Iterable[bytes]) -> bytes:
    """Many keys as one value in an order of their own: the kernel's changes from one dump to the next."""
    return b"".join(sorted(keys))


def _new(body: bytes, flags: int = 0) -> Request:
    return wire.NEWSETELEM, wire.NLM_F_CREATE | flags, body
