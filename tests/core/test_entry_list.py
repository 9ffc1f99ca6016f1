"""Plain lists: what is an entry, what is a comment, what is told with its line number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.address import parse_network
from mcban.core.allowlist import EVERYWHERE, Allowance, AllowList
from mcban.core.entry_list import never_banned, parse_entry, read_entries
from mcban.core.model import Jail, Kind, Ports


def test_what_a_list_may_look_like() -> None:
    """A byte order mark, both line ends, comments, blanks, duplicates, a last line without an end."""
    text = (
        b"\xef\xbb\xbf# a list\r\n203.0.113.7\r\n\r\n  2001:DB8::1 ; SBL1\n198.51.100.9/24 # \xe4\n203.0.113.7\n9.9.9.9"
    )
    read = read_entries([text[:60].rpartition(b"\n")[0] + b"\n", text[: len(text)][text[:60].rindex(b"\n") + 1 :]])
    assert list(read.entries) == ["203.0.113.7", "2001:db8::1", "198.51.100.0/24", "9.9.9.9"]
    assert (read.bad, read.lines) == ([], 7)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"192.0.2.1-192.0.2.9", "is a range: write it as networks"),
        (b"192.0.2.1 - 192.0.2.9", "is a range"),
        (b"192.0.2.1 192.0.2.2", "is no address or network"),
        (b"010.1.1.1", "is no address or network"),
        (b"0.0.0.0/0", "is everybody"),
        (b"::/0", "is everybody"),
        (b"224.0.0.1", "no address from which anybody connects"),
        (b"ff02::1", "no address from which anybody connects"),
        (b"0.0.0.0", "no address from which anybody connects"),
        (b"255.255.255.255", "no address from which anybody connects"),
        (b"fe80::1%eth0", "is no address or network"),
        (b"mail.example.com", "is no address or network"),
        (b"203.0.113.7\x1b[31m", "is no address or network"),
        (b"\xff\xfe", "is no address or network"),
        (b"203.0.113.7,203.0.113.8", "is no address or network"),
        (b"$(touch /x)", "is no address or network"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_by_number(line: bytes, why: str) -> None:
    """And why; the lines beside it are read."""
    read = read_entries([b"9.9.9.9\n" + line + b"\n8.8.8.8\n"])
    assert list(read.entries) == ["9.9.9.9", "8.8.8.8"]
    (bad,) = read.bad
    assert bad.number == 2
    assert why in bad.why


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list(content: bytes) -> None:
    """Never an error; whatever is read is canonical and might connect."""
    read = read_entries([content])
    assert len(read.entries) + len(read.bad) <= read.lines
    for entry in read.entries:
        assert parse_entry(entry) == entry


@given(st.ip_addresses())
def test_single_addresses_are_judged_as_networks_are(address: object) -> None:
    """The quick way gives what the arithmetic gives."""
    import ipaddress

    entry = parse_network(str(address))
    known = ipaddress.ip_address(entry)
    assert bool(never_banned(entry)) == (known.is_multicast or known.is_unspecified or entry == "255.255.255.255")


NETWORKS = st.tuples(st.integers(0, 15), st.integers(24, 32)).map(lambda p: parse_network(f"10.0.0.{p[0] * 16}/{p[1]}"))
JAIL = Jail("j", "j", Kind.CUSTOM, True, 1, 1, 1, 0, Ports(()), "f", "b", "l")


@given(
    st.lists(NETWORKS, max_size=8), st.lists(st.tuples(NETWORKS, st.sampled_from([EVERYWHERE, "j", "x"])), max_size=6)
)
def test_many_are_judged_as_each_is(entries: list[str], allowed: list[tuple[str, str]]) -> None:
    """An allowance that touches an entry is found for a hundred thousand at once as for one."""
    allow = AllowList(Allowance(entry, scope, "why") for entry, scope in allowed)
    found = allow.touching_many(entries, JAIL)
    assert set(found) == {entry for entry in entries if allow.touching(entry, JAIL) is not None}
