"""Plain lists of addresses: an address or network in a line, comments, blank lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mcban.core.address import parse_network, to_network

_COMMENT = re.compile(rb"[#;].*")
_BOM = b"\xef\xbb\xbf"
_RANGE = re.compile(r"[0-9a-fA-F.:]+\s*-\s*[0-9a-fA-F.:]+")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds something else, by its number from 1, and why; `why` may quote it."""

    number: int
    why: str


@dataclass(slots=True)
class EntryList:
    """What a list holds: canonical entries, each once, in their order, and the lines that cannot be used."""

    entries: dict[str, None] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    lines: int = 0


def read_entries(blocks: Iterable[bytes], parse: Callable[[str], str] | None = None) -> EntryList:
    """The list in `blocks` of whole lines; `parse` makes an entry of a word, or raises ValueError. What follows `#` or
    `;` is a comment."""
    read = EntryList()
    parse = parse or parse_entry
    for block in blocks:
        for raw in block.splitlines():
            read.lines += 1
            line = raw.removeprefix(_BOM) if read.lines == 1 else raw
            if b"#" in line or b";" in line:
                line = _COMMENT.sub(b"", line)
            text = line.strip()
            if not text:
                continue
            try:
                read.entries[parse(text.decode("ascii", "backslashreplace"))] = None
            except ValueError as error:
                read.bad.append(BadLine(read.lines, str(error)))
    return read


def parse_entry(text: str) -> str:
    """The address or network in `text`, canonical; raises ValueError with one line for what can never be banned."""
    try:
        entry = parse_network(text)
    except ValueError:
        if _RANGE.fullmatch(text):
            raise ValueError(f"{text!r} is a range: write it as networks, such as 192.0.2.0/24") from None
        raise ValueError(f"{text!r} is no address or network") from None
    if fault := never_banned(entry):
        raise ValueError(fault)
    return entry


def never_banned(entry: str) -> str | None:
    """Why nobody ever bans a canonical entry: it is everybody, or no address from which anybody connects."""
    if entry.endswith("/0"):
        return f"{entry} is everybody: it is never banned"
    if "/" not in entry:  # by far the most: without the arithmetic
        suspect = (
            entry.startswith(("ff", "::")) if ":" in entry else entry[0] == "0" or int(entry.split(".", 1)[0]) > 223
        )
        if not suspect:
            return None
    network = to_network(entry)
    if network.is_multicast or network.is_unspecified or entry == "255.255.255.255":
        return f"{entry} is no address from which anybody connects: it is never banned"
    return None
