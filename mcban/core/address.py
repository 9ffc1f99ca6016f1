"""Addresses and networks as text in one canonical form.

Entries are compared by the hundred thousand with what the kernel holds, so inside mcban an address or a network is
a `str` in the form that `inet_ntop` gives (RFC 5952 for IPv6), a single address without prefix length. Everything
that comes from outside passes through `parse_address` or `parse_network` once.
"""

from __future__ import annotations

import ipaddress
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_ipv6(entry: str) -> bool:
    """Whether a canonical entry is of the IPv6 family."""
    return ":" in entry


def exceeded_width(entry: str) -> int | None:
    """Of a canonical network that is too wide to be banned without asking, since it is never one attacker, the prefix
    length up to which it would not be; None for all else."""
    widest = 32 if is_ipv6(entry) else 16
    length = entry.partition("/")[2]
    return widest if length and int(length) < widest else None


def _text(address: Address) -> str:
    return inet_ntop(AF_INET if address.version == 4 else AF_INET6, address.packed)


def parse_address(text: str) -> str:
    """The canonical text of one address; an IPv4 address mapped into IPv6 becomes IPv4.

    Raises ValueError when `text` is not an address, or carries a zone (`fe80::1%eth0`): the firewall knows no zones.
    """
    if pack(text) is not None:  # by far the most are in that form already: ten times faster
        return text
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError(f"{text!r} carries a zone")
        if address.ipv4_mapped:
            address = address.ipv4_mapped
    return _text(address)


def parse_network(text: str) -> str:
    """The canonical text of an address or a network; host bits are cleared, /32 and /128 become the bare address.

    Raises ValueError when `text` is neither.
    """
    if "/" not in text:
        return parse_address(text)
    head, _, prefix = text.partition("/")
    if not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"{text!r} is not a network with a prefix length")
    network = ipaddress.ip_network((parse_zoneless(head), int(prefix)), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped:
            network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    if network.prefixlen == network.max_prefixlen:
        return _text(network.network_address)
    return f"{_text(network.network_address)}/{network.prefixlen}"


def parse_zoneless(text: str) -> Address:
    """The address in `text`; raises ValueError when there is none or when it carries a zone."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise ValueError(f"{text!r} carries a zone")
    return address


_MAPPED = bytes(10) + b"\xff\xff"


def pack(text: str) -> bytes | None:
    """The 4 or 16 bytes of a single address that stands in its canonical form; None for anything else.

    For the hundred thousand addresses that were canonical when they were stored: ten times faster than parsing.
    """
    family = AF_INET6 if ":" in text else AF_INET
    try:
        packed = inet_pton(family, text)
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED) or inet_ntop(family, packed) != text:
        return None
    return packed


def wider_networks(entry: str) -> list[str]:
    """The canonical text of every network that holds all of `entry` and more, the narrowest first; not the one that
    holds everybody."""
    head, _, prefix = entry.partition("/")
    longest = 128 if is_ipv6(entry) else 32
    return [parse_network(f"{head}/{length}") for length in range(int(prefix or longest) - 1, 0, -1)]


def to_network(entry: str) -> Network:
    """The `ipaddress` network of a canonical entry, for what needs arithmetic."""
    return ipaddress.ip_network(entry)


def covers(outer: Network, inner: Network) -> bool:
    """Whether every address of `inner` lies in `outer`; False across families."""
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # same version, checked


def overlaps(one: Network, other: Network) -> bool:
    """Whether the two share an address; False across families."""
    return one.version == other.version and one.overlaps(other)
