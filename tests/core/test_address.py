"""One text for one address, whoever wrote it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.address import covers, is_ipv6, overlaps, parse_address, parse_network, to_network

four = st.ip_addresses(v=4)
six = st.ip_addresses(v=6)
networks = st.one_of(
    st.tuples(four, st.integers(0, 32)), st.tuples(six, st.integers(0, 128)), st.tuples(four, st.integers(24, 32))
)


@given(st.one_of(four, six))
def test_every_spelling_of_an_address_is_one_entry(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Short, long, upper case, with its full prefix: the same text, and that text again."""
    short = parse_address(str(address))
    full = "32" if address.version == 4 else "128"
    for spelling in (address.exploded, str(address).upper(), str(address)):
        assert parse_address(spelling) == short
        assert parse_network(f"{spelling}/{full}") == short
    assert parse_network(short) == short


@given(four)
def test_an_ipv4_address_inside_ipv6_is_the_ipv4_address(address: ipaddress.IPv4Address) -> None:
    """A daemon that listens on :: writes ::ffff:203.0.113.7."""
    assert parse_address(f"::ffff:{address}") == str(address)
    assert parse_address(f"::FFFF:{int(address) >> 16:x}:{int(address) & 0xFFFF:x}") == str(address)
    assert parse_network(f"::ffff:{address}/120") == parse_network(f"{address}/24")
    assert not is_ipv6(parse_address(f"::ffff:{address}"))


@given(networks)
def test_a_network_has_no_host_bits_and_holds_what_was_written(
    pair: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int],
) -> None:
    """203.0.113.7/24 is 203.0.113.0/24."""
    address, length = pair
    entry = parse_network(f"{address}/{length}")
    network = to_network(entry)
    assert parse_network(entry) == entry
    assert ("/" in entry) == (network.prefixlen < network.max_prefixlen)
    if getattr(address, "ipv4_mapped", None) is None:
        assert network == ipaddress.ip_network(f"{address}/{length}", strict=False)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "fe80::1%eth0", "localhost", "1.2.3.4/33",
     "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/+8", "1.2.3.4/255.255.255.0", "::/129", "1.2.3.4/2\u0664", "1.2.3.4/8/8",
     "fe80::%1/64", ":::", "0x7f000001", "16909060", "1.2.3.4/" + "9" * 5000, "1.2.3.4\n", "\uff11.2.3.4"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    """Zones, names, masks, digits of other scripts."""
    with pytest.raises(ValueError, match=r"."):
        parse_network(text)


@given(networks, networks)
def test_covering_and_overlapping_are_what_python_says(
    one: tuple[ipaddress.IPv4Address, int], other: tuple[ipaddress.IPv4Address, int]
) -> None:
    """And never across families."""
    a = to_network(parse_network(f"{one[0]}/{one[1]}"))
    b = to_network(parse_network(f"{other[0]}/{other[1]}"))
    first = {int(a.network_address), int(a.broadcast_address)}
    inside = all(int(b.network_address) <= point <= int(b.broadcast_address) for point in first)
    assert covers(b, a) == (a.version == b.version and inside)
    apart = int(a.broadcast_address) < int(b.network_address) or int(b.broadcast_address) < int(a.network_address)
    assert overlaps(a, b) == (a.version == b.version and not apart)
