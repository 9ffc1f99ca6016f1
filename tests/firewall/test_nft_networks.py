"""Ranges that stand for networks: at every moment they hold just the addresses that a running ban covers."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.firewall.nft_networks import intervals, pack, unpack

BASE = 0xC0000200
networks = st.dictionaries(
    st.tuples(st.integers(0, 63), st.integers(26, 31)).map(
        lambda p: str(ip_network((BASE + p[0], p[1]), strict=False))
    ),
    st.integers(1, 5),
    max_size=12,
)


@given(networks, st.integers(0, 6))
def test_at_any_time_the_ranges_are_the_networks_that_run(ends: dict[str, int], now: int) -> None:
    """Each address is held for as long as the longest ban that covers it, and the ranges never overlap."""
    spans = intervals(4, [(pack(AF_INET, network), end) for network, end in ends.items()])
    assert all(low < high for low, high, _ in spans)
    assert all(high <= low for (_, high, _), (low, _, _) in pairwise(spans))
    covered = {a for low, high, end in spans if end > now for a in range(low, high)}
    assert covered == {int(a) for network, end in ends.items() if end > now for a in ip_network(network)}


@pytest.mark.parametrize(("family", "network"), [(AF_INET, "10.0.0.0/8"), (AF_INET6, "2001:db8::/48")])
def test_a_network_comes_back_as_it_went_in(family: int, network: str) -> None:
    """The key in the kernel is the network."""
    assert unpack(family, pack(family, network)) == network


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/x", "x/8", "10.0.0.0/-1"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """Nothing with host bits, nothing of all addresses, nothing else."""
    with pytest.raises(ValueError, match=r".+"):
        pack(AF_INET, text)
