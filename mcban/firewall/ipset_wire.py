"""The kernel's ipset messages as bytes, for the one thing that must be fast: many entries at once.

Owns how entries of `hash:net` sets are written into netlink messages and read out of them, a thousand and more per
message, and what the kernel says of a set; every function is pure. Sockets, single requests and what to do about
errors are left to `ipset_sets`.
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
from mcban.firewall.netlink import (
    HEADER,
    NLA_F_NESTED,
    NLA_F_NET_BYTEORDER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    fields,
    lay,
    lift,
    numbers,
)

# linux/netfilter/nfnetlink.h, linux/netfilter/ipset/ip_set.h
SUBSYSTEM = 6 << 8
PROTOCOL = 6
"""Spoken by every kernel since 2.6.39."""
CMD_LIST = 7
FLAG_LIST_HEADER = 4
CMD_ADD = 9
CMD_DEL = 10
ATTR_PROTOCOL = 1
ATTR_SETNAME = 2
ATTR_TYPENAME = 3
ATTR_FAMILY = 5
ATTR_FLAGS = 6
ATTR_DATA = 7
ATTR_ADT = 8
ATTR_LINENO = 9
ADT_IP = 1
ADT_CIDR = 3
ADT_TIMEOUT = 6
ADT_NAME = 18
CREATE_TIMEOUT = 6
CREATE_MAXELEM = 19
CREATE_ELEMENTS = 24
CREATE_REFERENCES = 25
ADT_FLAGS = 8
"""An entry carries flags only when it is a `nomatch` one."""
IPADDR: dict[int, int] = {AF_INET: 1, AF_INET6: 2}

ERR_HASH_FULL = 4352
ERR_INVALID_CIDR = 4104

WIDTH: dict[int, int] = {AF_INET: 4, AF_INET6: 16}
"""Bytes of an address."""
MOST: dict[int, int] = {AF_INET: 1500, AF_INET6: 1200}
"""Entries in one message: the attribute around them has a length of 16 bits."""


def message(command: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One ipset request."""
    return HEADER.pack(len(body) + 20, SUBSYSTEM | command, flags, sequence, 0) + b"\x02\0\0\0" + body


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


@lru_cache
def _ready_block(family: int, timeout: bool) -> bytes:
    """A full message's worth of entries with everything filled in but addresses, prefixes and timeouts. Each entry
    has its index as its line number, so that the kernel can say which one it refused."""
    shape = _shape(family, timeout, line=True)
    most = MOST[family]
    block = bytearray(shape.pattern * most)
    lay(block, shape.line, shape.size, 4, array("I", range(most)).tobytes())
    return bytes(block)


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
    lay(block, shape.address, shape.size, len(addresses) // max(1, len(entries)), addresses)
    lay(block, shape.prefix, shape.size, 1, prefixes)
    if timeouts is not None:
        lay(block, shape.timeout, shape.size, 4, numbers(timeouts))
    body = (
        attribute(ATTR_PROTOCOL, bytes([PROTOCOL]))
        + attribute(ATTR_SETNAME, name.encode() + b"\0")
        + attribute(ATTR_LINENO, bytes(4))
        + attribute(ATTR_ADT | NLA_F_NESTED, bytes(block))
    )
    return message(command, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def listing(name: str, sequence: int, header: bool = False) -> bytes:
    """The message that asks for everything in a set, or for its header alone; without a name for all sets."""
    body = attribute(ATTR_PROTOCOL, bytes([PROTOCOL]))
    if name:
        body += attribute(ATTR_SETNAME, name.encode() + b"\0")
    if header:
        body += attribute(ATTR_FLAGS | NLA_F_NET_BYTEORDER, FLAG_LIST_HEADER.to_bytes(4, "big"))
    return message(CMD_LIST, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


@dataclass(frozen=True, slots=True)
class Header:
    """What the kernel says of a set without its entries. `elements` are the live ones, `references` counts the rules
    and lists that use it."""

    name: str
    type: str
    family: int
    timeouts: bool
    maxelem: int
    elements: int
    references: int

    def holds(self, family: int) -> bool:
        """Whether it is of the shape that a jail's set has."""
        return self.type == "hash:net" and self.family == family and self.timeouts


def header(about: bytes) -> Header:
    """The header in what a listing says about a set."""
    said = fields(about)
    data = fields(said.get(ATTR_DATA, b""))
    return Header(
        name=_text(said.get(ATTR_SETNAME, b"")),
        type=_text(said.get(ATTR_TYPENAME, b"")),
        family=said.get(ATTR_FAMILY, b"\0")[0],
        timeouts=CREATE_TIMEOUT in data,
        maxelem=int.from_bytes(data.get(CREATE_MAXELEM, b""), "big"),
        elements=int.from_bytes(data.get(CREATE_ELEMENTS, b""), "big"),
        references=int.from_bytes(data.get(CREATE_REFERENCES, b""), "big"),
    )


def members(blocks: Iterable[bytes]) -> list[str]:
    """The names of the sets in the blocks that a listing of a `list:set` gave."""
    entries = (fields(block[low:high]) for block in blocks for _, low, high in attributes(block, 0, len(block)))
    return [_text(entry[ADT_NAME]) for entry in entries if ADT_NAME in entry]


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel. `error` is a positive errno or ipset code, 0 is an acknowledgement, None is data;
    `line` is the index of the entry that was refused, when the kernel names one; `about` is all that is said of a set
    when none of its entries are."""

    sequence: int
    done: bool
    error: int | None
    line: int | None
    entries: bytes
    about: bytes = b""


def _refused_line(data: bytes, start: int, end: int) -> int | None:
    """The line number in the copy of our request that an error carries."""
    if end - start < 36:
        return None
    for kind, value, _ in attributes(data, start + 20, end):
        if kind == ATTR_LINENO:
            return int.from_bytes(data[value : value + 4], byteorder)
    return None


def replies(data: bytes) -> Iterator[Reply]:
    """The messages in what one `recv` gave."""
    start = 0
    while start + 16 <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, start)
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
            found = [data[low:high] for kind, low, high in attributes(data, start + 20, end) if kind == ATTR_ADT]
            about = b"" if found else data[start + 20 : end]
            yield Reply(sequence, False, None, None, b"".join(found), about)
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
    addresses = bytes(lift(whole, shape.address, shape.size, width))
    cut = [addresses[at : at + width] for at in range(0, len(addresses), width)]
    texts: Iterable[str] = map(inet_ntop, repeat(family), cut)
    prefixes = whole[shape.prefix :: shape.size]
    host = width * 8
    if prefixes.count(host) != len(prefixes):
        texts = [t if p == host else f"{t}/{p}" for t, p in zip(texts, prefixes, strict=True)]
    timeouts = array("I", bytes(lift(whole, shape.timeout, shape.size, 4)))
    if byteorder == "little":
        timeouts.byteswap()
    return zip(texts, [now + left if left else FOREVER for left in timeouts], strict=True)


def keys(family: int, blocks: Sequence[bytes]) -> bytes:
    """The address and the prefix length of every entry in the blocks that a listing gave, in its order, which stays
    as long as nobody changes the set: comparing two of these is next to nothing beside reading them."""
    shape = _shape(family, timeout=True, line=False)
    whole = b"".join(blocks)
    width = WIDTH[family]
    if len(whole) % shape.size or not _regular(whole, shape):
        addresses, prefixes = _columns(family, [entry for entry, _ in _unpack_any(family, blocks, 0)])
    else:
        addresses = bytes(lift(whole, shape.address, shape.size, width))
        prefixes = whole[shape.prefix :: shape.size]
    found = bytearray((width + 1) * len(prefixes))
    lay(found, 0, width + 1, width, addresses)
    found[width :: width + 1] = prefixes
    return bytes(found)


def difference(family: int, before: bytes, after: bytes) -> tuple[set[str], set[str]]:
    """The entries that are new in `after`, and those that are not in it any more, of what `keys` gave."""
    size = WIDTH[family] + 1
    old, new = ({some[at : at + size] for at in range(0, len(some), size)} for some in (before, after))
    return ({_entry(family, key) for key in new - old}, {_entry(family, key) for key in old - new})


def _entry(family: int, key: bytes) -> str:
    text = inet_ntop(family, key[:-1])
    return text if key[-1] == 8 * len(key[:-1]) else f"{text}/{key[-1]}"


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
        for kind, low, high in attributes(block, 0, len(block)):
            if kind != ATTR_DATA:
                continue
            fields = {kind: (start, end) for kind, start, end in attributes(block, low, high)}
            if ADT_IP not in fields or ADT_FLAGS in fields:
                continue
            start = fields[ADT_IP][0] + 4
            text = inet_ntop(family, block[start : start + width])
            prefix = block[fields[ADT_CIDR][0]] if ADT_CIDR in fields else width * 8
            left = fields.get(ADT_TIMEOUT)
            seconds = int.from_bytes(block[left[0] : left[1]], "big") if left else 0
            yield (text if prefix == width * 8 else f"{text}/{prefix}"), (now + seconds if seconds else FOREVER)
