"""What the kernel's sets, lists and rules amount to: which of it is ours, what stands whole, what is gone.

Pure: `ipset` looks, this judges. A jail has two sets, `<jail>` and `<jail>-v6`; a group has a list `<group>-all` with
the sets of all its jails and, in each family, its lines in our chain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from socket import AF_INET, AF_INET6

from mcban.core.plan import Missing, Rule
from mcban.errors import FirewallError, printable
from mcban.firewall.base import LIST_SUFFIX, V6_SUFFIX
from mcban.firewall.ipset_wire import Header
from mcban.firewall.iptables import CHAIN, Family, Table

FAMILIES = ((AF_INET, ""), (AF_INET6, V6_SUFFIX))
"""The address families and what a jail's name gets for each."""


def set_names(jail: str) -> tuple[str, str]:
    """A jail's IPv4 and IPv6 set."""
    return jail, jail + V6_SUFFIX


def list_name(group: str) -> str:
    """A group's list."""
    return group + LIST_SUFFIX


@dataclass(frozen=True, slots=True)
class Scene:
    """One look at the kernel. `members` has the lists that our chain refers to, by group; `seen_jails` and
    `seen_rules` are what this process saw or made before, so that what is gone without a trace is missed."""

    headers: Mapping[str, Header]
    tables: Mapping[Family, Table]
    members: Mapping[str, tuple[str, ...]]
    chains: tuple[str, ...]
    seen_jails: Collection[str] = field(default=())
    seen_rules: Mapping[str, Rule] = field(default_factory=dict)

    def groups(self) -> set[str]:
        """Groups of which any family has lines in our chain."""
        return groups_in(self.tables)

    def jails(self, named: Collection[str]) -> list[str]:
        """`named`, and the jails of every list that our chain refers to."""
        listed = (name.removesuffix(V6_SUFFIX) for names in self.members.values() for name in names)
        return list(dict.fromkeys((*named, *listed)))

    def halves(self, jail: str) -> list[bool]:
        """For each family, whether the jail's set is there in the shape that we give it."""
        found = [self.headers.get(jail + suffix) for _, suffix in FAMILIES]
        return [h is not None and h.holds(family) for h, (family, _) in zip(found, FAMILIES, strict=True)]

    def rules(self) -> dict[str, Rule]:
        """The groups whose rule stands whole: in every family, reached by every jump, over a list of whole jails."""
        if any(self._path_faults(family, table) for family, table in self.tables.items()):
            return {}
        found: dict[str, Rule] = {}
        for group in self.groups():
            standing = {table.rules.get(group) for table in self.tables.values()}
            rule = standing.pop()
            jails = self._whole_members(group)
            if not standing and rule is not None and jails is not None:
                found[group] = Rule(jails, rule.ports, rule.drop)
        return found

    def _whole_members(self, group: str) -> tuple[str, ...] | None:
        names = self.members.get(group)
        if names is None:
            return None
        jails = tuple(dict.fromkeys(name.removesuffix(V6_SUFFIX) for name in names))
        return jails if {half for jail in jails for half in set_names(jail)} == set(names) else None

    def _path_faults(self, family: Family, table: Table) -> list[str]:
        """Why packets may not come by our lines as they should."""
        if not table.chain:
            return [f"{family.name}: chain {CHAIN} is gone"]
        faults = [
            f"{family.name}: chain {chain} does not begin with the jump to {CHAIN}"
            for chain in self.chains
            if chain in table.chains and not table.jump_stands(chain)
        ]
        faults += [f"{family.name}: in chain {CHAIN} stands a rule of others: {printable(s)}" for s in table.strange]
        return faults

    def damage(self, named: Collection[str]) -> list[Missing]:
        """What is gone or damaged. What was never there is not."""
        return [*self._missing_rules(), *self._missing_sets(named)]

    def visible_damage(self, named: Collection[str]) -> list[Missing]:
        """As `damage`, by what is there alone: whatever is gone without a trace is no part of it."""
        return replace(self, seen_jails=(), seen_rules={}).damage(named)

    def absent(self) -> tuple[str, ...]:
        """The chains to jump from that no family has: whose packets come by a chain, that family has it."""
        return tuple(c for c in self.chains if not any(c in table.chains for table in self.tables.values()))

    def _missing_rules(self) -> Iterator[Missing]:
        groups = self.groups() | set(self.seen_rules)
        for family, table in self.tables.items():
            if groups or table.chain:
                yield from map(Missing, self._path_faults(family, table))
            for group in sorted(groups):
                if group in table.broken:
                    yield Missing(f"{family.name}: the rule of {group} was altered", group=group)
                elif group not in table.rules:
                    yield Missing(f"{family.name}: the rule of {group} is gone", group=group)
        for group in sorted(groups):
            if group not in self.members:
                continue
            jails = self._whole_members(group)
            seen = self.seen_rules.get(group)
            if jails is None or (seen is not None and not set(seen.jails) <= set(jails)):
                yield Missing(f"list {list_name(group)} lacks sets", group=group)

    def _missing_sets(self, named: Collection[str]) -> Iterator[Missing]:
        for jail in self.jails(named):
            halves = self.halves(jail)
            if all(halves) or not (any(halves) or jail in self.seen_jails or self._taken(jail)):
                continue
            for there, (_, suffix) in zip(halves, FAMILIES, strict=True):
                if not there:
                    name = jail + suffix
                    yield Missing(f"set {name} is {'of others' if name in self.headers else 'gone'}", jail=jail)

    def _taken(self, jail: str) -> bool:
        return any(name in self.headers for name in set_names(jail))

    def taken(self, named: Collection[str]) -> dict[str, str]:
        """By jail what to say where others have a name of its sets."""
        said: dict[str, str] = {}
        for jail in self.jails(named):
            for there, (_, suffix) in zip(self.halves(jail), FAMILIES, strict=True):
                header = self.headers.get(jail + suffix)
                if header is not None and not there:
                    said.setdefault(jail, str(foreign(header.name, header)))
        return said


def groups_in(tables: Mapping[Family, Table]) -> set[str]:
    """Groups of which any family has lines in our chain."""
    return {group for table in tables.values() for group in (*table.rules, *table.broken)}


def split(entries: Iterable[str]) -> tuple[list[str], list[str]]:
    """IPv4 and IPv6 entries apart; `is_ipv6` without a call for each, since there may be a million."""
    entries = list(entries)
    six = [entry for entry in entries if ":" in entry]
    return ([entry for entry in entries if ":" not in entry] if six else entries), six


def foreign(name: str, there: Header) -> FirewallError:
    """What to say of a set of others that has a name of ours."""
    kind = there.type if there.timeouts or there.type == "list:set" else f"{there.type} without timeouts"
    return FirewallError(
        f"set {name} is there, but not as mcban makes it ({kind}): it is not ours to change; "
        f"rename it (ipset rename {name} NEW), destroy it (ipset destroy {name}), or rename the jail"
    )
