"""The kernel's nf_tables messages as bytes: requests, and elements of sets by the thousand.

Owns how the elements of our sets are written and read, in columns; every function is pure. Rules are in `nft_rules`,
sockets and transactions in `nft_link`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from sys import byteorder

from mcban.firewall.netlink import (
    HEADER,
    NFT_SUBSYSTEM,
    NLA_F_NESTED,
    NLM_F_REQUEST,
    attribute,
    attributes,
    fields,
    lay,
    lift,
    numbers,
)

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
BATCH_BEGIN, BATCH_END = 16, 17
BATCH_GENID = 1
INET = 1
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET, DELSET = 9, 10, 11
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
ELEM_LIST_TABLE, ELEM_LIST_SET, ELEM_LIST_ELEMENTS = 1, 2, 3
LIST_ELEM = 1
ELEM_KEY, ELEM_FLAGS, ELEM_TIMEOUT, ELEM_EXPIRATION = 1, 3, 4, 5
DATA_VALUE = 1
INTERVAL_END = 1
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN, SET_ID, SET_GC_INTERVAL = 1, 2, 3, 4, 5, 10, 12
SET_INTERVAL, SET_TIMEOUT = 0x4, 0x10

TABLE = "mcban"
COLLECT_MS = 60_000
"""How often the kernel frees what has ended. Ended elements match nothing in the meantime; the default of a second
would have it walk a million entries each second."""
ROOM = 60_000
"""Bytes of elements in a message: the attribute around them has a length of 16 bits."""
NEVER = (1 << 63) - 1
"""The end, in milliseconds, of what has none."""


def text(value: str) -> bytes:
    """A string as netlink has it."""
    return value.encode() + b"\0"


def number(value: int, width: int = 4) -> bytes:
    """A number in network order."""
    return (value & ((1 << (8 * width)) - 1)).to_bytes(width, "big")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def request(command: int, flags: int, sequence: int, body: bytes, family: int = INET) -> bytes:
    """One nf_tables request."""
    head = HEADER.pack(len(body) + 20, NFT_SUBSYSTEM | command, NLM_F_REQUEST | flags, sequence, 0)
    return head + bytes([family, 0, 0, 0]) + body


def edge(kind: int, sequence: int, generation: int | None = None) -> bytes:
    """The begin or the end of a transaction, which the kernel refuses when the generation is another by then."""
    body = b"" if generation is None else attribute(BATCH_GENID, number(generation))
    return HEADER.pack(len(body) + 20, kind, NLM_F_REQUEST, sequence, 0) + b"\0\0\0\x0a" + body


def set_body(name: str, flags: int, key_type: int, key_length: int) -> bytes:
    """What makes a set."""
    return b"".join(
        (
            attribute(SET_TABLE, text(TABLE)),
            attribute(SET_NAME, text(name)),
            attribute(SET_FLAGS, number(flags)),
            attribute(SET_KEY_TYPE, number(key_type)),
            attribute(SET_KEY_LEN, number(key_length)),
            attribute(SET_ID, number(1)),
            attribute(SET_GC_INTERVAL, number(COLLECT_MS)) if flags & SET_TIMEOUT else b"",
        )
    )


@lru_cache
def _pattern(width: int, timeout: bool, end: bool = False) -> tuple[bytes, int, int]:
    """An element with zeros for its key and its timeout, and where these are."""
    parts = nested(ELEM_KEY, attribute(DATA_VALUE, bytes(width)))
    at_timeout = 4 + len(parts) + 4
    if timeout:
        parts += attribute(ELEM_TIMEOUT, bytes(8))
    if end:
        parts += attribute(ELEM_FLAGS, number(INTERVAL_END))
    return nested(LIST_ELEM, parts), 12, at_timeout


def elements(
    name: str, width: int, keys: bytes, timeouts: Sequence[int] | None, ends: bytes | None = None
) -> Iterator[bytes]:
    """The bodies of the messages that name these elements, `keys` being their keys of `width` bytes one after the
    other, with timeouts in milliseconds. With `ends`, the first keys after them, each is an interval, whose two
    elements must follow one another."""
    pattern, at_key, at_timeout = _pattern(width, timeouts is not None)
    start_size = len(pattern)
    if ends is not None:
        pattern += _pattern(width, False, end=True)[0]
    most = ROOM // len(pattern)
    for start in range(0, len(keys) // width, most):
        cut = slice(start * width, (start + most) * width)
        block = bytearray(pattern * (len(keys[cut]) // width))
        lay(block, at_key, len(pattern), width, keys[cut])
        if timeouts is not None:
            lay(block, at_timeout, len(pattern), 8, numbers(timeouts[start : start + most], "Q"))
        if ends is not None:
            lay(block, start_size + at_key, len(pattern), width, ends[cut])
        yield all_elements(name) + nested(ELEM_LIST_ELEMENTS, bytes(block))


def all_elements(name: str) -> bytes:
    """The body of a message about all elements of a set."""
    return attribute(ELEM_LIST_TABLE, text(TABLE)) + attribute(ELEM_LIST_SET, text(name))


def unpack(blocks: Sequence[bytes], width: int, times: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """Keys and ends in milliseconds of the elements that a dump gave, each block at its time; those that only end an
    interval have the end -1. Blocks of elements of one shape are read by columns, others one by one."""
    keys: list[bytes] = []
    ends: list[int] = []
    for block, now in zip(blocks, times, strict=True):
        found = _regular(block, width, now) or _irregular(block, now)
        keys += found[0]
        ends += found[1]
    return keys, ends


def _regular(block: bytes, width: int, now: int) -> tuple[list[bytes], list[int]] | None:
    if len(block) < 4:
        return None
    size = int.from_bytes(block[:2], byteorder)
    places: dict[int, int] = {kind: start for kind, start, _ in attributes(block, 4, size)}
    if len(block) % size or ELEM_FLAGS in places or ELEM_KEY not in places:
        return None
    at_key = places[ELEM_KEY] + 4
    values = set(range(at_key, at_key + width))
    for kind in (ELEM_TIMEOUT, ELEM_EXPIRATION):
        if kind in places:
            values.update(range(places[kind], places[kind] + 8))
    count = len(block) // size
    if any(block[at::size].count(block[at]) != count for at in range(size) if at not in values):
        return None
    column = bytes(lift(block, at_key, size, width))
    keys = [column[at : at + width] for at in range(0, len(column), width)]
    if ELEM_EXPIRATION not in places:
        return keys, [NEVER] * count
    left = array("Q", bytes(lift(block, places[ELEM_EXPIRATION], size, 8)))
    if byteorder == "little":
        left.byteswap()
    return keys, [now + some for some in left]


def _irregular(block: bytes, now: int) -> tuple[list[bytes], list[int]]:
    keys: list[bytes] = []
    ends: list[int] = []
    for _, low, high in attributes(block, 0, len(block)):
        said = fields(block[low:high])
        if ELEM_KEY not in said:
            continue
        keys.append(fields(said[ELEM_KEY]).get(DATA_VALUE, b""))
        if int.from_bytes(said.get(ELEM_FLAGS, b""), "big") & INTERVAL_END:
            ends.append(-1)
        elif ELEM_EXPIRATION in said:
            ends.append(now + int.from_bytes(said[ELEM_EXPIRATION], "big"))
        else:
            ends.append(NEVER)
    return keys, ends
