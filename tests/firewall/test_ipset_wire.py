"""The kernel's messages as bytes, against answers that a real kernel gave."""

from __future__ import annotations

from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_ntop
from sys import byteorder

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.model import FOREVER
from mcban.firewall import ipset_wire as wire
from mcban.firewall.netlink import NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLMSG_ERROR, attribute, attributes

LISTING = bytes.fromhex(
    "ec0000000706020001000000f6d37dc202000000050001000600000006000200610000000d000300686173683a6e65740000000005000500"
    "0200000005000400070000004400078008001240000004000800134000000003050015000c00000008001140eccff4540800194000000001"
    "08001a40000002880800184000000003080006400000000064000880200007800c000180080001000a000001050003002000000008000640"
    "00000063200007800c000180080001000a00000005000300200000000800064000000063200007800c000180080001000a00000205000300"
    "200000000800064000000063"
)
"""What Linux 6 sends for a `hash:net` set with three addresses that have 99 seconds left."""


def test_what_the_kernel_lists_is_read() -> None:
    """Addresses come out as text, with their ends."""
    (reply,) = wire.replies(LISTING)
    assert (reply.sequence, reply.done, reply.error) == (1, False, None)
    found = dict(wire.unpack(AF_INET, [reply.entries], now=1000))
    assert found == {"10.0.0.0": 1099, "10.0.0.1": 1099, "10.0.0.2": 1099}


def test_a_refusal_names_the_entry() -> None:
    """The kernel sends our request back with the line number of the entry that it did not take."""
    request = wire.change(wire.CMD_ADD, "a", AF_INET, ["192.0.2.1", "192.0.2.2"], [60, 0], 7)
    at = request.index(attribute(wire.ATTR_LINENO, bytes(4))) + 4
    request = request[:at] + (1).to_bytes(4, byteorder) + request[at + 4 :]
    code = (-wire.ERR_HASH_FULL).to_bytes(4, byteorder, signed=True)
    header = (20 + len(request)).to_bytes(4, byteorder) + NLMSG_ERROR.to_bytes(2, byteorder) + bytes(2)
    (reply,) = wire.replies(header + (7).to_bytes(4, byteorder) + bytes(4) + code + request)
    assert (reply.sequence, reply.error, reply.line) == (7, wire.ERR_HASH_FULL, 1)


def test_acknowledgement_and_end_are_told_apart() -> None:
    """Error 0 is a yes, and DONE ends a listing."""
    said = "24000000020000010100000000000000" + "00000000" + "24000000090605000100000000000000"
    said += "1400000003000200" + "0200000000000000" + "00000000"
    ack, done = wire.replies(bytes.fromhex(said))
    assert (ack.error, ack.done, done.error, done.done) == (0, False, None, True)


@given(st.binary(max_size=200), st.integers(0, len(LISTING)))
def test_bytes_that_make_no_sense_end_quietly(noise: bytes, cut: int) -> None:
    """A truncated or strange message is read as far as it goes."""
    for reply in wire.replies(LISTING[:cut]):
        list(wire.unpack(AF_INET, [reply.entries], 0))
    with_header = (16 + len(noise)).to_bytes(4, byteorder) + NLMSG_ERROR.to_bytes(2, byteorder)
    list(wire.replies(with_header + bytes(10) + noise.ljust(4, b"\0")))


def as_listed(message: bytes) -> bytes:
    """The entries of a message of ours, as the kernel would list them: without lines, the order not marked."""
    *_, (low, high) = [(low, high) for kind, low, high in attributes(message, 20, len(message)) if kind == 8]
    block, out = message[low:high], b""
    for _, start, end in attributes(block, 0, len(block)):
        fields = {kind: block[a:b] for kind, a, b in attributes(block, start, end)}
        address = fields[wire.ADT_IP]
        body = attribute(wire.ADT_IP | NLA_F_NESTED, attribute(address[2] & 0x3F, address[4:])) + attribute(
            wire.ADT_CIDR, fields[wire.ADT_CIDR]
        )
        body += attribute(wire.ADT_TIMEOUT | NLA_F_NET_BYTEORDER, fields[wire.ADT_TIMEOUT])
        out += attribute(wire.ATTR_DATA | NLA_F_NESTED, body)
    return out


def text(network: str) -> str:
    found = ip_network(network, strict=False)
    return str(found.network_address) if found.prefixlen == found.max_prefixlen else str(found)


four = st.tuples(st.ip_addresses(v=4), st.integers(1, 32)).map(lambda pair: text(f"{pair[0]}/{pair[1]}"))
six = st.tuples(st.integers(1 << 120, (1 << 128) - 1), st.integers(1, 128)).map(
    lambda pair: inet_ntop(AF_INET6, pair[0].to_bytes(16, "big")) if pair[1] == 128 else six_network(*pair)
)


def six_network(number: int, prefix: int) -> str:
    kept = number >> (128 - prefix) << (128 - prefix)
    return f"{inet_ntop(AF_INET6, kept.to_bytes(16, 'big'))}/{prefix}"


@pytest.mark.parametrize(("family", "entry"), [(AF_INET, four), (AF_INET6, six)], ids=["IPv4", "IPv6"])
def test_what_goes_in_comes_out(family: int, entry: st.SearchStrategy[str]) -> None:
    """Every address, prefix and timeout survives the way to bytes and back, by columns and one by one."""

    @given(st.dictionaries(entry, st.integers(0, 2_147_483), min_size=1, max_size=20))
    def both_ways(entries: dict[str, int]) -> None:
        message = wire.change(wire.CMD_ADD, "a", family, list(entries), list(entries.values()), 1)
        block = as_listed(message)
        ends = {one: 1000 + left if left else FOREVER for one, left in entries.items()}
        assert dict(wire.unpack(family, [block], 1000)) == ends
        assert dict(wire._unpack_any(family, [block], 1000)) == ends
        assert wire._regular(block, wire._shape(family, timeout=True, line=False))

    both_ways()


def test_a_full_message_fits_its_attribute() -> None:
    """The length of an attribute has 16 bits."""
    for family, entry in ((AF_INET, "192.0.2.1"), (AF_INET6, "2001:db8::1")):
        most = wire.MOST[family]
        assert most * wire._shape(family, timeout=True, line=True).size < 1 << 16
        assert len(wire.change(wire.CMD_ADD, "a" * 31, family, [entry] * most, [1] * most, 1)) < 1 << 17


@pytest.mark.parametrize("entry", ["", "192.0.2", "2001:db8::1", "192.0.2.1/33x", "192.0.2.1/999"])
def test_what_is_no_entry_of_the_family_raises(entry: str) -> None:
    """It is caught before it reaches the kernel."""
    with pytest.raises((OSError, ValueError)):
        wire.change(wire.CMD_ADD, "a", AF_INET, [entry], [0], 1)
