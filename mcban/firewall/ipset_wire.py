"""The kernel's ipset messages as bytes, for the one thing that must be fast: many entries at once.

Owns how entries of `hash:net` sets are written into netlink messages and read out of them, a thousand and more per
message; every function is pure. Sockets, single requests and what to do about errors are left to `ipset_sets`.

Speed comes from never touching one entry at a time: entries of one family have messages of one shape, so addresses,
prefix lengths and timeouts are columns which are laid into a ready-made block with strided slices, and lifted out
again the same way.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from sys import byteorder

from mcban.core.model import FOREVER

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF

# linux/netfilter/nfnetlink.h, linux/netfilter/ipset/ip_set.h
SUBSYSTEM = 6 << 8
PROTOCOL = 6
"""Spoken by every kernel since 2.6.39."""
CMD_LIST = 7
CMD_ADD = 9
CMD_DEL = 10
ATTR_PROTOCOL = 1
ATTR_SETNAME = 2
ATTR_DATA = 7
ATTR_ADT = 8
ATTR_LINENO = 9
ADT_IP = 1
ADT_CIDR = 3
ADT_TIMEOUT = 6
ADT_FLAGS = 8
"""An entry carries flags only when it is a `nomatch` one."""
IPADDR: dict[int, int] = {AF_INET: 1, AF_INET6: 2}

ERR_HASH_FULL = 4352
ERR_INVALID_CIDR = 4104

WIDTH: dict[int, int] = {AF_INET: 4, AF_INET6: 16}
"""Bytes of an address."""
MOST: dict[int, int] = {AF_INET: 1500, AF_INET6: 1200}
"""Entries in one message: the attribute around them has a length of 16 bits."""

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return _ATTR.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def message(command: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One ipset request."""
    return _HEADER.pack(len(body) + 20, SUBSYSTEM | command, flags, sequence, 0) + b"\x02\0\0\0" + body


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the columns lie in one entry of a family. `line` is -1 in what the kernel sends."""

    pattern: bytes
    address: int
    prefix: int
    timeout: int
    line: int

    @property
    def size(self) -> int:
        return len(self.pattern)


@lru_cache
def _shape(family: int, timeout: bool, line: bool) -> _Shape:
    """The shape of an entry, with and without a timeout and a line number. The kernel wants to be told that an address
    is in network order, and does not say so itself: what it sends has no line number either."""
    width = WIDTH[family]
    order = NLA_F_NET_BYTEORDER if line else 0
    parts = [
        attribute(ADT_IP | NLA_F_NESTED, attribute(IPADDR[family] | order, bytes(width))),
        attribute(ADT_CIDR, b"\0"),
    ]
    at_address = 12
    at_prefix = at_address + width + 4
    at_timeout = at_line = -1
    if timeout:
        at_timeout = 4 + sum(map(len, parts)) + 4
        parts.append(attribute(ADT_TIMEOUT | NLA_F_NET_BYTEORDER, bytes(4)))
    if line:
        at_line = 4 + sum(map(len, parts)) + 4
        parts.append(attribute(ATTR_LINENO, bytes(4)))
    return _Shape(attribute(ATTR_DATA | NLA_F_NESTED, b"".join(parts)), at_address, at_prefix, at_timeout, at_line)


def _lay(block: bytearray, offset: int, step: int, width: int, column: bytes) -> None:
    """Write a column of values of `width` bytes into every `step` bytes of `block`."""
    for byte in range(width):
        block[offset + byte :: step] = column[byte::width]


def _lift(block: bytes, offset: int, step: int, width: int) -> bytearray:
    """The column of values of `width` bytes found every `step` bytes in `block`."""
    column = bytearray(len(block) // step * width)
    for byte in range(width):
        column[byte::width] = block[offset + byte :: step]
    return column


@lru_cache
def _ready_block(family: int, timeout: bool) -> bytes:
    """A full message's worth of entries with everything filled in but addresses, prefixes and timeouts. Each entry
    has its index as its line number, so that the kernel can say which one it refused."""
    shape = _shape(family, timeout, line=True)
    most = MOST[family]
    block = bytearray(shape.pattern * most)
    _lay(block, shape.line, shape.size, 4, array("I", range(most)).tobytes())
    return bytes(block)


def _numbers(values: Iterable[int]) -> bytes:
    """32-bit numbers in network order."""
    column = array("I", values)
    if byteorder == "little":
        column.byteswap()
    return column.tobytes()


def _columns(family: int, entries: Sequence[str]) -> tuple[bytes, bytes]:
    """Packed addresses and prefix lengths. Raises OSError for what is no address, ValueError for a bad prefix."""
    host = WIDTH[family] * 8
    if "/" not in "".join(entries):
        return b"".join(map(inet_pton, repeat(family), entries)), bytes([host]) * len(entries)
    heads, _, prefixes = zip(*(entry.partition("/") for entry in entries), strict=True)
    return b"".join(map(inet_pton, repeat(family), heads)), bytes(int(prefix or host) for prefix in prefixes)


def change(
    command: int, name: str, family: int, entries: Sequence[str], timeouts: Sequence[int] | None, sequence: int
) -> bytes:
    """The message that adds (with `timeouts` in seconds, 0 for ever) or deletes up to MOST[family] canonical entries.

    Raises OSError or ValueError when one of them is no address or network of the family.
    """
    shape = _shape(family, timeouts is not None, line=True)
    block = bytearray(_ready_block(family, timeouts is not None)[: shape.size * len(entries)])
    addresses, prefixes = _columns(family, entries)
    _lay(block, shape.address, shape.size, len(addresses) // max(1, len(entries)), addresses)
    _lay(block, shape.prefix, shape.size, 1, prefixes)
    if timeouts is not None:
        _lay(block, shape.timeout, shape.size, 4, _numbers(timeouts))
    body = (
        attribute(ATTR_PROTOCOL, bytes([PROTOCOL]))
        + attribute(ATTR_SETNAME, name.encode() + b"\0")
        + attribute(ATTR_LINENO, bytes(4))
        + attribute(ATTR_ADT | NLA_F_NESTED, bytes(block))
    )
    return message(command, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def listing(name: str, sequence: int) -> bytes:
    """The message that asks for everything in a set."""
    body = attribute(ATTR_PROTOCOL, bytes([PROTOCOL])) + attribute(ATTR_SETNAME, name.encode() + b"\0")
    return message(CMD_LIST, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel. `error` is a positive errno or ipset code, 0 is an acknowledgement, None is data;
    `line` is the index of the entry that was refused, when the kernel names one."""

    sequence: int
    done: bool
    error: int | None
    line: int | None
    entries: bytes


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute's value between two offsets."""
    while start + 4 <= end:
        length, kind = _ATTR.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def _refused_line(data: bytes, start: int, end: int) -> int | None:
    """The line number in the copy of our request that an error carries."""
    if end - start < 36:
        return None
    for kind, value, _ in _attributes(data, start + 20, end):
        if kind == ATTR_LINENO:
            return int.from_bytes(data[value : value + 4], byteorder)
    return None


def replies(data: bytes) -> Iterator[Reply]:
    """The messages in what one `recv` gave."""
    start = 0
    while start + 16 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, start)
        end = start + length
        if length < (36 if kind == NLMSG_ERROR else 16) or end > len(data):
            return
        if kind == NLMSG_ERROR:
            error = -int(struct.unpack_from("=i", data, start + 16)[0])
            line = _refused_line(data, start + 20, end) if error else None
            yield Reply(sequence, False, error, line, b"")
        elif kind == NLMSG_DONE:
            yield Reply(sequence, True, None, None, b"")
        else:
            found = [data[low:high] for kind, low, high in _attributes(data, start + 20, end) if kind == ATTR_ADT]
            yield Reply(sequence, False, None, None, b"".join(found))
        start += (length + 3) & ~3


def unpack(family: int, blocks: Sequence[bytes], now: int) -> Iterator[tuple[str, int]]:
    """(entry, end in seconds since the epoch, FOREVER without timeout) of every entry in the blocks that a listing
    gave at `now`, in canonical text.

    Sets of the shape that mcban makes are read by columns; whatever else is there (counters, comments, `nomatch`) one
    attribute at a time. `nomatch` entries are left out: they refuse nothing.
    """
    shape = _shape(family, timeout=True, line=False)
    whole = b"".join(blocks)
    if len(whole) % shape.size or not _regular(whole, shape):
        return _unpack_any(family, blocks, now)
    width = WIDTH[family]
    addresses = bytes(_lift(whole, shape.address, shape.size, width))
    cut = [addresses[at : at + width] for at in range(0, len(addresses), width)]
    texts: Iterable[str] = map(inet_ntop, repeat(family), cut)
    prefixes = whole[shape.prefix :: shape.size]
    host = width * 8
    if prefixes.count(host) != len(prefixes):
        texts = [t if p == host else f"{t}/{p}" for t, p in zip(texts, prefixes, strict=True)]
    timeouts = array("I", bytes(_lift(whole, shape.timeout, shape.size, 4)))
    if byteorder == "little":
        timeouts.byteswap()
    return zip(texts, [now + left if left else FOREVER for left in timeouts], strict=True)


def _regular(whole: bytes, shape: _Shape) -> bool:
    """Whether every entry has exactly the shape: each byte that is no value is the pattern's."""
    width = shape.prefix - 4 - shape.address
    values = {*range(shape.address, shape.address + width), shape.prefix, *range(shape.timeout, shape.timeout + 4)}
    count = len(whole) // shape.size
    return all(
        whole[at :: shape.size].count(shape.pattern[at]) == count for at in range(shape.size) if at not in values
    )


def _unpack_any(family: int, blocks: Sequence[bytes], now: int) -> Iterator[tuple[str, int]]:
    width = WIDTH[family]
    for block in blocks:
        for kind, low, high in _attributes(block, 0, len(block)):
            if kind != ATTR_DATA:
                continue
            fields = {kind: (start, end) for kind, start, end in _attributes(block, low, high)}
            if ADT_IP not in fields or ADT_FLAGS in fields:
                continue
            start = fields[ADT_IP][0] + 4
            text = inet_ntop(family, block[start : start + width])
            prefix = block[fields[ADT_CIDR][0]] if ADT_CIDR in fields else width * 8
            left = fields.get(ADT_TIMEOUT)
            seconds = int.from_bytes(block[left[0] : left[1]], "big") if left else 0
            yield (text if prefix == width * 8 else f"{text}/{prefix}"), (now + seconds if seconds else FOREVER)
