"""Networks in nf_tables: intervals there must not overlap, bans may.

Pure. Each banned network stands with its own end in a set that no rule asks (address and prefix length as the key);
what the rules ask are intervals, worked out so that at every moment to come the kernel refuses exactly the addresses
of the networks that have not ended by then: each address for as long as the longest ban that covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

WIDTH: dict[int, int] = {AF_INET: 4, AF_INET6: 16}


def pack(family: int, entry: str) -> bytes:
    """The key of a network: its address, its prefix length as a port number is written. Raises ValueError for what
    is no network that can be banned."""
    head, _, prefix = entry.partition("/")
    width = WIDTH[family]
    try:
        address, length = inet_pton(family, head), int(prefix)
    except OSError:
        raise ValueError(f"{entry!r} is no network") from None
    if not 0 < length <= width * 8 or int.from_bytes(address, "big") & ((1 << (width * 8 - length)) - 1):
        raise ValueError(f"{entry!r} is no network")
    return address + length.to_bytes(2, "big") + b"\0\0"


def unpack(family: int, key: bytes) -> str:
    """The network with this key."""
    width = WIDTH[family]
    return f"{inet_ntop(family, key[:width])}/{int.from_bytes(key[width : width + 2], 'big')}"


def intervals(width: int, networks: Iterable[tuple[bytes, int]]) -> list[tuple[int, int, int]]:
    """(first address, first address after it, end) of the intervals that amount to the networks given by key and end.

    Networks lie inside one another or apart, so one pass in order with the open ones on a stack does.
    """
    spans: list[tuple[int, int, int]] = []
    for key, end in networks:
        low = int.from_bytes(key[:width], "big")
        spans.append((low, low + (1 << (width * 8 - int.from_bytes(key[width : width + 2], "big"))), end))
    spans.sort(key=lambda span: (span[0], -span[1]))
    found: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = []
    at = 0

    def emit(high: int, end: int) -> None:
        if at >= high:
            return
        if found and found[-1][1] == at and found[-1][2] == end:
            found[-1] = (found[-1][0], high, end)
        else:
            found.append((at, high, end))

    for low, high, end in spans:
        while stack and stack[-1][0] <= low:
            emit(*stack[-1])
            at = stack.pop()[0]
        if stack:
            emit(low, stack[-1][1])
            end = max(end, stack[-1][1])  # noqa: PLW2901  # it ends no sooner than what is around it
        at = low
        stack.append((high, end))
    while stack:
        emit(*stack[-1])
        at = stack.pop()[0]
    return found


def spans(keys: Iterable[bytes], ends: Iterable[int], beyond: int) -> list[tuple[int, int, int]]:
    """The intervals that a dump's elements amount to: the end -1 marks the first key after one, and what has no such
    mark ends at `beyond`."""
    marks = sorted((int.from_bytes(key, "big"), end >= 0, end) for key, end in zip(keys, ends, strict=True))
    found: list[tuple[int, int, int]] = []
    begun: tuple[int, int] | None = None
    for at, begins, end in marks:
        if begun is not None:
            found.append((begun[0], at, begun[1]))
        begun = (at, end) if begins else None
    return [*found, (begun[0], beyond, begun[1])] if begun is not None else found


def agree(some: Sequence[tuple[int, int, int]], others: Sequence[tuple[int, int, int]], slack: int) -> bool:
    """Whether two lists of intervals in order hold the same addresses with the same ends, give or take `slack`;
    where one is cut and the other is not is no difference."""
    edges = sorted({edge for low, high, _ in (*some, *others) for edge in (low, high)})
    pairs = zip(_ends_at(edges, some), _ends_at(edges, others), strict=True)
    return all(-slack <= one - other <= slack for one, other in pairs)


def _ends_at(edges: Iterable[int], intervals_: Sequence[tuple[int, int, int]]) -> Iterator[int]:
    """The end of the interval that begins or lasts at each edge; 0 for none."""
    at = 0
    for edge in edges:
        while at < len(intervals_) and intervals_[at][1] <= edge:
            at += 1
        yield intervals_[at][2] if at < len(intervals_) and intervals_[at][0] <= edge else 0
