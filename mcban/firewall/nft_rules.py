"""Our rules in nf_tables: what stands in which chain for some groups, and which groups a table amounts to.

Pure. All is in the table `inet mcban`. A chain at each hook sends packets to the ports of a group into the group's own
chain, one rule for each group; there a rule for each set refuses who is in it. No name of a jail or group can have a
`/`, so ours are told from theirs by it; names that nft could not read back from its own listing get a `_` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6

from mcban.core.model import Ports
from mcban.core.plan import Rule
from mcban.firewall.base import V6_SUFFIX
from mcban.firewall.netlink import attribute, attributes, fields
from mcban.firewall.nft_wire import DATA_VALUE, LIST_ELEM, SET_INTERVAL, SET_TIMEOUT, nested, number, text

PRIORITY = -10
"""Before the usual filter chains (0) and behind connection tracking (-200)."""
HOOKS = {"INPUT": ("hook/input", 1), "FORWARD": ("hook/forward", 2), "DOCKER-USER": ("hook/forward", 2)}
"""For each chain that the settings may name, ours and the number of its hook."""
REFUSE = "act/reject"
RANGES, NETWORKS, PORTS = "/ranges", "/networks", "/ports"
FAMILIES = ((AF_INET, ""), (AF_INET6, V6_SUFFIX))
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9]*-[A-Za-z0-9_.-]*[0-9][A-Za-z0-9_.-]*|mc-[A-Za-z0-9_.-]*", re.ASCII)

_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2
_NFPROTO = {AF_INET: 2, AF_INET6: 10}
_SOURCE = {AF_INET: (12, 4), AF_INET6: (8, 16)}
_TCP = b"\x06"
_DROP, _JUMP, _GOTO = 0, -3, -4
_DATA_OF = {b"cmp": 3, b"immediate": 2}

SetShape = tuple[int, int, int]
"""Flags, type of the key as nft numbers it, length of the key."""
_KEY_TYPE = {AF_INET: 7, AF_INET6: 8}
_SERVICE = 13
PORTS_SHAPE: SetShape = (SET_INTERVAL, _SERVICE, 2)


def encode(name: str) -> str:
    """The name of a jail or group inside the table."""
    return name if _SAFE.fullmatch(name) else f"_{name}"


def decode(name: str) -> str:
    """The jail or group of a name inside the table."""
    return name.removeprefix("_")


def set_names(jail: str) -> dict[str, SetShape]:
    """A jail's sets: its addresses, the ranges of its networks, the networks themselves, for each family."""
    shapes: dict[str, SetShape] = {}
    for family, suffix in FAMILIES:
        name, kind, width = encode(jail) + suffix, _KEY_TYPE[family], _SOURCE[family][1]
        shapes[name] = (SET_TIMEOUT, kind, width)
        shapes[name + RANGES] = (SET_TIMEOUT | SET_INTERVAL, kind, width)
        shapes[name + NETWORKS] = (SET_TIMEOUT, kind << 6 | _SERVICE, width + 4)
    return shapes


def _expression(name: bytes, *parts: bytes) -> bytes:
    return nested(LIST_ELEM, attribute(1, name + b"\0"), nested(2, *parts))


def _meta_is(key: int, value: bytes) -> bytes:
    load = _expression(b"meta", attribute(2, number(key)), attribute(1, number(1)))
    data = nested(3, attribute(DATA_VALUE, value))
    return load + _expression(b"cmp", attribute(1, number(1)), attribute(2, number(0)), data)


def _payload(base: int, offset: int, length: int) -> bytes:
    values = (1, base, offset, length)
    return _expression(b"payload", *(attribute(kind, number(v)) for kind, v in enumerate(values, 1)))


def _is_in(name: str) -> bytes:
    return _expression(b"lookup", attribute(1, text(name)), attribute(2, number(1)), attribute(5, number(0)))


def _verdict(code: int, chain: str = "") -> bytes:
    parts = [attribute(1, number(code))] + ([attribute(2, text(chain))] if chain else [])
    return _expression(b"immediate", attribute(1, number(0)), nested(2, nested(2, *parts)))


def _reject(kind: int, *code: int) -> bytes:
    return _expression(b"reject", attribute(1, number(kind)), *(attribute(2, bytes([some])) for some in code))


def _group_chain(rule: Rule) -> list[bytes]:
    """Who is refused. Each set has its rule: nf_tables knows no sets of sets."""
    end = _verdict(_DROP) if rule.drop else _verdict(_GOTO, REFUSE)
    found: list[bytes] = []
    for jail in rule.jails:
        for family, suffix in FAMILIES:
            source = _meta_is(_META_NFPROTO, bytes([_NFPROTO[family]])) + _payload(_NETWORK, *_SOURCE[family])
            name = encode(jail) + suffix
            found += [source + _is_in(name) + end, source + _is_in(name + RANGES) + end]
    return found


def _jump(group: str, rule: Rule) -> bytes:
    """The one rule at a hook for a group."""
    jump = _verdict(_JUMP, encode(group))
    if rule.ports.everything:
        return jump
    return _meta_is(_META_L4PROTO, _TCP) + _payload(_TRANSPORT, 2, 2) + _is_in(encode(group) + PORTS) + jump


def layout(rules: Mapping[str, Rule], hooks: Iterable[str]) -> dict[str, list[bytes]]:
    """Every chain with its rules; none when there are no groups."""
    if not rules:
        return {}
    refuse = [_meta_is(_META_L4PROTO, _TCP) + _reject(1), _reject(2, 1)]
    chains = {REFUSE: refuse}
    chains |= {encode(group): _group_chain(rule) for group, rule in rules.items()}
    chains |= {hook: [_jump(group, rule) for group, rule in rules.items()] for hook in hooks}
    return chains


def merged(ports: Ports) -> list[tuple[int, int]]:
    """The ranges (first, first after it) in order, none touching another."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ports.ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high + 1))
        else:
            found.append((low, high + 1))
    return found


@dataclass(frozen=True, slots=True)
class Scene:
    """Our table as it is. `ports` are the ranges of each set of ports, `chains` the (hook, priority, policy) of each
    chain, None for one that packets reach by rules only."""

    there: bool = False
    dormant: bool = False
    sets: Mapping[str, SetShape] = field(default_factory=dict)
    ports: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    chains: Mapping[str, tuple[int, int, int] | None] = field(default_factory=dict)
    rules: Mapping[str, list[bytes]] = field(default_factory=dict)

    def jails(self) -> tuple[set[str], set[str]]:
        """The jails whose sets are all there, and those of which only some are, or of another shape."""
        names = {name.partition("/")[0] for name in self.sets if not name.endswith(PORTS)}
        jails = {decode(name.removesuffix(V6_SUFFIX)) for name in names}
        whole = {jail for jail in jails if all(self.sets.get(name) == shape for name, shape in set_names(jail).items())}
        return whole, jails - whole

    def groups(self, hooks: Mapping[str, int], known: Mapping[str, Rule]) -> tuple[dict[str, Rule], set[str]]:
        """The groups whose rule stands whole at every hook, and those of which anything else is there. `known` are
        rules that may be written in ways that a set of ports does not show."""
        guessed = {group: self._guess(group, known) for group in self._names()}
        expected = layout(guessed, hooks)
        paths = not self.dormant and all(self.chains.get(h) == (n, PRIORITY, 1) for h, n in hooks.items())
        shared = (REFUSE, *hooks)
        paths = paths and all(alike(self.rules.get(c, []), expected.get(c, [])) for c in shared)
        whole, _ = self.jails()
        standing = {
            group: rule
            for group, rule in guessed.items()
            if paths and whole.issuperset(rule.jails) and self._stands(group, rule, expected)
        }
        return standing, guessed.keys() - standing.keys()

    def _stands(self, group: str, rule: Rule, expected: Mapping[str, list[bytes]]) -> bool:
        name = encode(group)
        ports = [] if rule.ports.everything else merged(rule.ports)
        shape = None if rule.ports.everything else PORTS_SHAPE
        return (
            alike(self.rules.get(name, []), expected[name])
            and self.sets.get(name + PORTS) == shape
            and self.ports.get(name + PORTS, []) == ports
        )

    def _names(self) -> list[str]:
        """Every group that has a chain, in the order in which the hooks know them."""
        found: dict[str, None] = {}
        for chain, hook in self.chains.items():
            if hook is not None:
                for rule in self.rules.get(chain, []):
                    found.update(dict.fromkeys(decode(n) for n in _targets(rule) if n in self.chains))
        found.update((decode(name), None) for name in self.chains if "/" not in name)
        return list(found)

    def _guess(self, group: str, known: Mapping[str, Rule]) -> Rule:
        """The rule that a group's chain seems to be; whether it is it is compared afterwards."""
        chain = self.rules.get(encode(group), [])
        names = dict.fromkeys(decode(n.partition("/")[0].removesuffix(V6_SUFFIX)) for r in chain for n in _lookups(r))
        drop = bool(chain) and not any(list(_targets(rule)) for rule in chain)
        spans = self.ports.get(encode(group) + PORTS, [])
        ports = Ports(tuple((low, high - 1) for low, high in spans))
        said = known.get(group)
        if said is not None and not chain:
            drop = said.drop
        if said is not None and (said.ports.everything or merged(said.ports) == spans):
            ports = said.ports if said.ports.everything == (not spans) else ports
        return Rule(tuple(names), ports, drop)


def _parsed(rule: bytes) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    """The expressions of a rule: name and attributes."""
    for _, low, high in attributes(rule, 0, len(rule)):
        said = fields(rule[low:high])
        yield said.get(1, b"").rstrip(b"\0"), fields(said.get(2, b""))


def _lookups(rule: bytes) -> Iterator[str]:
    for name, said in _parsed(rule):
        if name == b"lookup":
            yield said.get(1, b"").rstrip(b"\0").decode(errors="replace")


def _targets(rule: bytes) -> Iterator[str]:
    """The chains that a rule leads to."""
    for name, said in _parsed(rule):
        if name == b"immediate":
            chain = fields(fields(said.get(2, b"")).get(2, b"")).get(2)
            if chain:
                yield chain.rstrip(b"\0").decode(errors="replace")


def alike(there: list[bytes], ours: list[bytes]) -> bool:
    """Whether the kernel's rules are the ones that we sent. It says more of an expression than we do (defaults), but
    all that we say is what makes a difference."""
    return len(there) == len(ours) and all(map(_same, there, ours))


def _same(there: bytes, ours: bytes) -> bool:
    some, wanted = list(_parsed(there)), list(_parsed(ours))
    return len(some) == len(wanted) and all(
        name == other and all(_value(name, kind, a.get(kind)) == _value(name, kind, v) for kind, v in b.items())
        for (name, a), (other, b) in zip(some, wanted, strict=True)
    )


def _value(name: bytes, kind: int, value: bytes | None) -> object:
    """An attribute's value for comparing, without the flags that only one side sets."""
    if value is None or _DATA_OF.get(name) != kind:
        return value
    data = fields(value)
    return {inner: fields(said) if name == b"immediate" else said for inner, said in data.items()}
