"""The ipset backend: two sets for each jail, a list and one rule for each group.

Owns the order in which the kernel is looked at and changed. How sets are spoken with is in `ipset_sets`, how they are
filled in `ipset_contents`, the rules' text in `iptables`, what the state amounts to in `ipset_scene`.

A fault that concerns one set or one family does not stop the rest: it is kept, the plan is carried on, and the error
is raised at the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from socket import AF_INET, AF_INET6

from mcban.core.plan import Actual, Missing, Plan, Rule
from mcban.errors import ConfigError, FirewallError, printable
from mcban.firewall import iptables
from mcban.firewall.base import (
    LIST_SUFFIX,
    V6_SUFFIX,
    Glance,
    GoneError,
    IncompleteError,
    Refusal,
    Turnover,
    group_fault,
)
from mcban.firewall.ipset_contents import Contents
from mcban.firewall.ipset_growth import leftovers
from mcban.firewall.ipset_scene import FAMILIES, Scene, foreign, groups_in, list_name, set_names
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.ipset_watch import Watch
from mcban.firewall.ipset_wire import Header, difference
from mcban.firewall.iptables import CHAIN, IPV4, IPV6, Family, Table
from mcban.firewall.netlink import rules_generation

_CHAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,27}", re.ASCII)

LONGEST = 2_147_483
"""The kernel's longest timeout in seconds, 24.8 days."""


def families() -> tuple[Family, ...]:
    """The families that packets can come in: without IPv6 in the kernel there is nothing to refuse there."""
    return (IPV4, IPV6) if Path("/proc/net/if_inet6").exists() else (IPV4,)


class IpsetFirewall:
    """Bans in the kernel's ipset lists. `maxelem` is what a new set can hold at first, `most` how far it grows;
    `chains` are those of the `filter` table from which packets come by our rules (ConfigError when one cannot be the
    name of a chain). Nothing is opened before the first call; not for use by two threads."""

    name = "ipset"
    enforces = True
    longest = LONGEST

    def __init__(self, maxelem: int = 1_000_000, chains: Sequence[str] = ("INPUT",), most: int = 64_000_000) -> None:
        self.chains = tuple(chains)
        for chain in self.chains:
            if not _CHAIN.fullmatch(chain):
                raise ConfigError(f"'{printable(chain)}' is no name of an iptables chain")
        self._sets = Sets()
        self._contents = Contents(self._sets, maxelem, max(maxelem, most), LONGEST)
        self._seen_jails: set[str] = set()
        self._seen_rules: dict[str, Rule] = {}
        self._watch = Watch(self.chains)
        self._told: dict[str, bytes] = {}

    def close(self) -> None:
        """Give sockets back; what is in the kernel stays."""
        self._sets.close()

    def stands(self) -> bool:
        """See `Firewall.stands`; a failing IPv6 alone is said by `read`."""
        self._sets.headers()
        return any(table.rules for table in self._tables(lambda family, error: None).values())

    def read(self, jails: Collection[str]) -> Actual:
        """What is there of ours; see `Firewall.read`. When ip6tables alone fails, `missing` says so."""
        faults: list[str] = []
        generation = rules_generation()
        headers = self._contents.look()
        tables = self._tables(lambda family, error: faults.append(f"{family.name}: {error}"))
        scene = Scene(
            headers=headers,
            tables=tables,
            members=self._members(groups_in(tables), headers),
            chains=self.chains,
            seen_jails=self._seen_jails,
            seen_rules=self._seen_rules,
        )
        whole: dict[str, Mapping[str, int]] = {}
        broken: set[str] = set()
        for jail in scene.jails(jails):
            halves = scene.halves(jail)
            ends = self._ends(jail) if all(halves) else None
            if ends is not None:
                whole[jail] = ends
            elif any(halves):
                broken.add(jail)
        missing = (*map(Missing, faults), *scene.damage(jails))
        rules = {} if faults else scene.rules()
        self._watch.saw(whole, rules, tables, generation)
        self._watch.doubt = bool(faults or scene.visible_damage(jails))
        self._seen_jails.update(whole)
        self._seen_rules.update(rules)
        return Actual(
            rules=rules,
            entries=whole,
            missing=missing,
            broken_rules=frozenset(scene.groups() - rules.keys()),
            broken_sets=frozenset(broken),
            taken=scene.taken(jails),
            absent=scene.absent(),
        )

    def _ends(self, jail: str) -> dict[str, int] | None:
        """A jail's entries of both families; None when a set has gone since it was listed."""
        now = int(time.time())
        ends: dict[str, int] = {}
        for family, suffix in FAMILIES:
            found = self._sets.entries(jail + suffix, family, now)
            if found is None:
                return None
            ends = ends | found if ends else found
        return ends

    def _tables(self, failed: Callable[[Family, FirewallError], None]) -> dict[Family, Table]:
        """Each family's rules. A failing IPv6 must not stop IPv4: it is handed to `failed`, and counts as absent."""
        tables = {IPV4: iptables.read(IPV4)}
        if IPV6 in families():
            try:
                tables[IPV6] = iptables.read(IPV6)
            except FirewallError as error:
                failed(IPV6, error)
        return tables

    def _members(self, groups: Iterable[str], headers: Mapping[str, Header]) -> dict[str, tuple[str, ...]]:
        listed = ((group, headers.get(list_name(group))) for group in groups)
        return {
            group: tuple(self._sets.members(header.name) or ())
            for group, header in listed
            if header is not None and header.type == "list:set"
        }

    def glance(self, jails: Collection[str]) -> Glance:
        """A cheap look; see `Firewall.glance`. A kernel set is listed by its header, which has the count."""
        return self._watch.glance(jails, self._sets, self._all_tables)

    def turnover(self, jail: str) -> Turnover | None:
        """See `Firewall.turnover`. The kernel tells nobody of a change in a set and gives it no number: all of it is
        dumped, which takes the kernel most of the time, some 300 ns for each entry."""
        came: set[str] = set()
        went: set[str] = set()
        for family, suffix in FAMILIES:
            name = jail + suffix
            held, told = self._sets.keys(name, family), self._told.get(name, b"")
            if held is None:
                self._told.pop(name, None)
                return None
            if held != told:
                new, old = difference(family, told, held)
                came, went = came | new, went | old
                self._told[name] = held
        return Turnover(came, went)

    def _all_tables(self) -> dict[Family, Table] | None:
        faults: list[FirewallError] = []
        tables = self._tables(lambda family, error: faults.append(error))
        return None if faults else tables

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry a plan out; see `Firewall.apply`. Raises IncompleteError when a part of it failed for good reason and
        the rest is done."""
        self._watch.put(plan)
        try:
            return self._apply(plan, now)
        except BaseException:
            self._contents.forget()
            self._watch.doubt = True
            raise

    def _apply(self, plan: Plan, now: int) -> list[Refusal]:
        faults: list[FirewallError] = []
        contents = self._contents
        contents.ready((*plan.add, *plan.remove), anew=bool(plan.create or plan.rules or plan.drop_rules or plan.drop))
        for jail in plan.create:
            if contents.create(jail, plan.add.get(jail, ()), faults):
                self._seen_jails.add(jail)
        refused: list[Refusal] = []
        for jail, ends in plan.add.items():
            try:
                refused += contents.add(jail, ends, now)
            except GoneError as error:
                faults.append(error)
        if contents.grown:
            self._watch.doubt = True  # of the ends, which that may have shifted
        if plan.rules or plan.drop_rules:
            self._set_rules(plan, contents.headers, faults)
        for jail, gone in plan.remove.items():
            refused += contents.delete(jail, gone)
        if plan.drop:
            self._drop(plan.drop, faults)
        if faults:
            raise IncompleteError("; ".join(dict.fromkeys(map(str, faults))), refused) from faults[0]
        return refused

    def _set_rules(self, plan: Plan, headers: dict[str, Header], faults: list[FirewallError]) -> None:
        """Lists first, then our chain of each family in one go, then what the chain no longer needs."""
        tables = self._tables(lambda family, error: faults.append(_half(family, error)))
        standing = groups_in(tables)
        members = self._members({*standing, *plan.rules, *plan.drop_rules}, headers)
        surplus: dict[str, list[str]] = {}
        ready: dict[str, Rule] = {}
        for group, rule in plan.rules.items():
            try:
                surplus[group] = self._fill_list(group, rule, headers, members, group in standing, faults)
                ready[group] = rule
            except FirewallError as error:
                faults.append(error)
        for family, table in tables.items():
            rules = {group: rule for group, rule in table.rules.items() if group not in plan.drop_rules} | ready
            try:
                iptables.write(family, iptables.installation(family, table, self.chains, rules))
            except FirewallError as error:
                if family is IPV4:
                    raise
                faults.append(_half(family, error))
        for group, names in surplus.items():
            for name in names:
                self._sets.leave(list_name(group), name)
        for group in plan.drop_rules:
            if group in standing:
                self._try(faults, self._sets.destroy, list_name(group))
        self._seen_rules.update(ready)
        for group in plan.drop_rules:
            self._seen_rules.pop(group, None)

    def _fill_list(
        self,
        group: str,
        rule: Rule,
        headers: Mapping[str, Header],
        members: Mapping[str, tuple[str, ...]],
        ours: bool,
        faults: list[FirewallError],
    ) -> list[str]:
        """Put the sets of a group's jails into its list, and return what is in it beyond them."""
        fault = group_fault(group)
        if fault:
            raise FirewallError(f"group {printable(group)} cannot have a rule: {fault}")
        name = list_name(group)
        wanted = [half for jail in rule.jails for half in set_names(jail)]
        held = members.get(group, ())
        there = headers.get(name)
        if there is None:
            self._sets.create_list(name)
        elif there.type != "list:set" or (not ours and not set(held) <= set(wanted)):
            raise foreign(name, there)
        for half in wanted:
            header = headers.get(half)
            family = AF_INET6 if half.endswith(V6_SUFFIX) else AF_INET
            if header is None:
                faults.append(FirewallError(f"set {half} is gone; the next sync puts it back"))
            elif header.holds(family) and half not in held:
                self._sets.join(name, half)
        return [half for half in held if half not in wanted]

    def _drop(self, jails: Iterable[str], faults: list[FirewallError]) -> None:
        """Destroy jails' sets, taking them out of our lists before."""
        headers = self._sets.headers()
        used = [name for jail in jails for name in set_names(jail) if name in headers and headers[name].references]
        if used:
            tables = self._tables(lambda family, error: faults.append(_half(family, error)))
            for group, names in self._members(groups_in(tables), headers).items():
                for name in set(names).intersection(used):
                    self._sets.leave(list_name(group), name)
        for jail in jails:
            self._destroy(jail, headers, faults)

    def _destroy(self, jail: str, headers: Mapping[str, Header], faults: list[FirewallError]) -> None:
        for family, suffix in FAMILIES:
            header = headers.get(jail + suffix)
            if header is not None and header.holds(family):
                self._try(faults, self._sets.destroy, header.name)
            self._contents.headers.pop(jail + suffix, None)
            self._told.pop(jail + suffix, None)
        self._seen_jails.discard(jail)

    def _try(self, faults: list[FirewallError], do: Callable[[str], None], name: str) -> None:
        try:
            do(name)
        except FirewallError as error:
            faults.append(error)

    def remove(self, jails: Collection[str]) -> None:
        """Take everything of ours out; see `Firewall.remove`. A family whose programs fail cannot have rules of ours:
        should it, then the sets that they use cannot be destroyed, and that is said."""
        faults: list[FirewallError] = []
        headers = self._sets.headers()
        tables = self._tables(lambda family, error: None)
        groups = groups_in(tables)
        members = self._members(groups, headers)
        scene = Scene(headers, tables, members, self.chains)
        names = scene.jails(jails)
        for family, table in tables.items():
            if table.chain:
                iptables.write(family, iptables.removal(table))
                faults += [
                    FirewallError(f"{family.name}: a rule of others leads to chain {CHAIN}, which stays, empty: {line}")
                    for line in table.conditional
                ]
        for group in sorted(groups | self._stray_lists(names, headers)):
            header = headers.get(list_name(group))
            if header is not None and header.type == "list:set":
                self._try(faults, self._sets.destroy, header.name)
        for jail in names:
            self._destroy(jail, headers, faults)
        for name in leftovers(headers):
            self._try(faults, self._sets.destroy, name)
        self._seen_rules.clear()
        self._told.clear()
        self._watch = Watch(self.chains)
        if faults:
            raise IncompleteError("; ".join(dict.fromkeys(map(str, faults))), []) from faults[0]

    def _stray_lists(self, jails: Iterable[str], headers: Mapping[str, Header]) -> set[str]:
        """Groups whose list is left from a rule that is gone: it holds nothing but sets of our jails or, empty,
        carries the name of one of their groups."""
        jails = list(jails)
        ours = {name for jail in jails for name in set_names(jail)}
        found: set[str] = set()
        for name, header in headers.items():
            if header.type != "list:set" or not name.endswith(LIST_SUFFIX):
                continue
            group = name.removesuffix(LIST_SUFFIX)
            held = set(self._sets.members(name) or ())
            named = any(jail == group or jail.startswith(f"{group}-") for jail in jails)
            if (held and held <= ours) or (not held and named):
                found.add(group)
        return found


def _half(family: Family, error: FirewallError) -> FirewallError:
    return FirewallError(f"{family.name} bans are not enforced: {error}")
