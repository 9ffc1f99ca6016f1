"""Netlink as bytes: attributes, columns of values among them, and the generation of the nf_tables rules.

What ipset and nf_tables have in common below their own words. Pure, but for `rules_generation`.

Speed comes from never touching one entry at a time: entries of one shape lie at equal distances, so that addresses,
prefix lengths and timeouts are columns, which strided slices lay into a ready-made block or lift out of one.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from sys import byteorder

NETLINK_NETFILTER = 12

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")

# linux/netfilter/nf_tables.h
NFT_SUBSYSTEM = 10 << 8
NFT_GETGEN = 16
NFT_GEN_ID = 1


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return _ATTR.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each attribute's value between two offsets."""
    while start + 4 <= end:
        length, kind = _ATTR.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def fields(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by their type; of two alike the last one."""
    return {kind: data[start:end] for kind, start, end in attributes(data, 0, len(data))}


def lay(block: bytearray, offset: int, step: int, width: int, column: bytes) -> None:
    """Write a column of values of `width` bytes into every `step` bytes of `block`."""
    for byte in range(width):
        block[offset + byte :: step] = column[byte::width]


def lift(block: bytes, offset: int, step: int, width: int) -> bytearray:
    """The column of values of `width` bytes found every `step` bytes in `block`."""
    column = bytearray(len(block) // step * width)
    for byte in range(width):
        column[byte::width] = block[offset + byte :: step]
    return column


def numbers(values: Iterable[int], code: str = "I") -> bytes:
    """Numbers in network order, of the width that `array` gives the code."""
    column = array(code, values)
    if byteorder == "little":
        column.byteswap()
    return column.tobytes()


def rules_generation() -> int | None:
    """The number that the kernel raises with every change of nf_tables in this namespace, whoever makes it: while it
    stays, every rule there stands as it was. None when the kernel has no nf_tables, or does not say."""
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as line:
        line.settimeout(1)
        line.bind((0, 0))
        line.send(HEADER.pack(20, NFT_SUBSYSTEM | NFT_GETGEN, NLM_F_REQUEST, 1, 0) + bytes(4))
        data = line.recv(1 << 16)
        length, kind, *_ = HEADER.unpack_from(data)
        said = fields(data[20:length]).get(NFT_GEN_ID) if kind != NLMSG_ERROR else None
        return None if said is None else int.from_bytes(said, "big")
    return None
