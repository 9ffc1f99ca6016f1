"""What is never banned. Rule: the specification's "What wins"."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mcban.core.address import Network, is_ipv6, overlaps, pack, parse_network, to_network
from mcban.core.model import Jail

EVERYWHERE = "*"
"""The scope of what is allowed in every jail."""
STRANGERS_KEPT = 50_000
"""Addresses of which a list remembers that it does not mention them."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """An address or network that is allowed in `scope` (a jail, a group, or EVERYWHERE), and why.

    `protected` ones are known without being told (loopback, this host, its gateways …): only those can be overruled,
    by force, for a ban by hand.
    """

    entry: str
    scope: str
    why: str
    protected: bool = False


class AllowList:
    """Answers, for an address or network and a jail, which allowance covers it.

    Single addresses, by far the most, are found in a dictionary; networks by masking, once per distinct prefix length.
    """

    def __init__(self, allowances: Iterable[Allowance] = ()) -> None:
        self.allowances = tuple(dict.fromkeys(allowances))
        self._networks: dict[tuple[int, int], dict[int, list[Allowance]]] = {}
        for allowance in self.allowances:
            network = to_network(allowance.entry)
            length = (network.version, network.prefixlen)
            at = self._networks.setdefault(length, {})
            at.setdefault(int(network.network_address), []).append(allowance)
        self._anywhere = Screen(to_network(allowance.entry) for allowance in self.allowances)
        self._strangers: set[str] = set()

    def mentions(self, entry: str) -> bool:
        """Whether some allowance, in whatever scope, may cover `entry`: quickly no for nearly everybody, and at once
        for who was asked about before."""
        if entry in self._strangers:
            return False
        packed = pack(entry)
        if packed is None or self._anywhere.allows(packed):
            return True
        if len(self._strangers) >= STRANGERS_KEPT:
            self._strangers.clear()
        self._strangers.add(entry)
        return False

    def __eq__(self, other: object) -> bool:
        """Whether it allows the same for the same reasons: a world read anew is mostly the one that was."""
        return isinstance(other, AllowList) and set(self.allowances) == set(other.allowances)

    def __hash__(self) -> int:
        return hash(frozenset(self.allowances))

    def mentioned(self, entries: AbstractSet[str]) -> list[str]:
        """Those whom `mentions` answers with yes."""
        return [entry for entry in entries - self._strangers if self.mentions(entry)]

    def covering(self, entry: str, jail: Jail, *, protected: bool = True) -> Allowance | None:
        """The allowance that covers all of `entry` in `jail`; with `protected` false those known by themselves
        do not count."""
        if not self.mentions(entry):
            return None
        network = to_network(entry)
        address, bits = int(network.network_address), network.max_prefixlen
        for (version, length), allowances in self._networks.items():
            if version != network.version or length > network.prefixlen:
                continue
            for allowance in allowances.get(address >> (bits - length) << (bits - length), ()):
                if _applies(allowance, jail) and (protected or not allowance.protected):
                    return allowance
        return None

    def screen(self, jail: Jail) -> Screen:
        """All allowances that apply to `jail`, for asking often."""
        return Screen(to_network(allowance.entry) for allowance in self.allowances if _applies(allowance, jail))

    def touching(self, entry: str, jail: Jail, *, protected: bool = True) -> Allowance | None:
        """The allowance that shares an address with `entry` in `jail`: one that covers it, or that lies in it."""
        found = self.covering(entry, jail, protected=protected)
        if found is not None or "/" not in entry:
            return found
        network = to_network(entry)
        for allowance in self.allowances:
            if _applies(allowance, jail) and (protected or not allowance.protected) and _shares(network, allowance):
                return allowance
        return None

    def touching_many(self, entries: Collection[str], jail: Jail) -> dict[str, Allowance]:
        """By entry what `touching` answers, for those where it answers something: for a hundred thousand of them."""
        found = {entry: some for entry in entries if (some := self.covering(entry, jail)) is not None}
        lengths = {(is_ipv6(entry), int(entry.partition("/")[2])) for entry in entries if "/" in entry}
        for allowance in self.allowances if lengths else ():
            network = to_network(allowance.entry)
            for ipv6, length in lengths:
                if ipv6 == (network.version == 6) and length < network.prefixlen and _applies(allowance, jail):
                    wider = parse_network(str(network.supernet(new_prefix=length)))
                    if wider in entries:
                        found.setdefault(wider, allowance)
        return found


class Screen:
    """The allowances of one jail, for asking about many single addresses, packed as the network has them."""

    def __init__(self, networks: Iterable[Network]) -> None:
        shifts: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            shifts.setdefault((network.max_prefixlen // 8, shift), set()).add(int(network.network_address) >> shift)
        self._shifts = {
            size: [(shift, frozenset(held)) for (of, shift), held in shifts.items() if of == size] for size in (4, 16)
        }

    def allows(self, packed: bytes) -> bool:
        """Whether some allowance covers the address."""
        address = int.from_bytes(packed, "big")
        return any(address >> shift in held for shift, held in self._shifts[len(packed)])


def _shares(network: Network, allowance: Allowance) -> bool:
    return overlaps(network, to_network(allowance.entry))


def _applies(allowance: Allowance, jail: Jail) -> bool:
    return allowance.scope in (EVERYWHERE, jail.group, jail.name)
