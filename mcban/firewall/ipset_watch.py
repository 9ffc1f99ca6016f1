"""What the ipset backend remembers of its last look, so that the next one need not be a whole one.

Owns the expectation and its comparison with headers, lists and rules; entries are counted by the kernel and never
read. The rules of iptables-nft are known to stand while the kernel's generation of nf_tables has not moved; those of
iptables-legacy have no such number and are read each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from mcban.core.plan import Plan, Rule
from mcban.firewall.base import Glance
from mcban.firewall.ipset_scene import FAMILIES, Scene, list_name, set_names
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.iptables import Family, Table
from mcban.firewall.netlink import rules_generation

Tables = Mapping[Family, Table]


class Watch:
    """The sets, lists and rules that the last `read` saw whole, and that `apply` put since. `doubt`: something was
    damaged then, or went wrong since, so only a whole look can say."""

    def __init__(self, chains: tuple[str, ...]) -> None:
        self._chains = chains
        self._jails: set[str] = set()
        self._rules: dict[str, Rule] = {}
        self._generation: int | None = None
        self.doubt = True

    def saw(self, jails: Iterable[str], rules: Mapping[str, Rule], tables: Tables, before: int | None) -> None:
        """A look found these, all of them whole; `before` is the generation from before it."""
        self._jails = set(jails)
        self._rules = dict(rules)
        self._generation = _unmoved(tables, before)
        self.doubt = False

    def put(self, plan: Plan) -> None:
        """A plan was carried out."""
        self._jails.update(plan.create)
        self._jails.difference_update(plan.drop)
        if plan.rules or plan.drop_rules:
            self._rules = {g: rule for g, rule in self._rules.items() if g not in plan.drop_rules} | dict(plan.rules)
            self._generation = None

    def glance(self, jails: Collection[str], sets: Sets, read: Callable[[], Tables | None]) -> Glance:
        """Whether all of it stands, and how much the sets hold; `read` reads the rules, None when it cannot."""
        counts = _counts({*jails, *self._jails}, sets)
        whole = (
            not self.doubt
            and counts.keys() >= self._jails
            and all(self._list_stands(group, rule, sets) for group, rule in self._rules.items())
            and self._rules_stand(read)
        )
        return Glance(whole, counts)

    def _list_stands(self, group: str, rule: Rule, sets: Sets) -> bool:
        return set(sets.members(list_name(group)) or ()) == {name for jail in rule.jails for name in set_names(jail)}

    def _rules_stand(self, read: Callable[[], Tables | None]) -> bool:
        before = rules_generation()
        if before is not None and before == self._generation:
            return True
        tables = read()
        if tables is None:
            return False
        members = {
            group: tuple(name for jail in rule.jails for name in set_names(jail)) for group, rule in self._rules.items()
        }
        scene = Scene({}, tables, members, self._chains)
        standing = scene.rules()
        if scene.groups() != self._rules.keys() or standing.keys() != self._rules.keys():
            return False
        if not all(rule.does(standing[group]) for group, rule in self._rules.items()):
            return False
        self._generation = _unmoved(tables, before)
        return True


def _unmoved(tables: Tables, before: int | None) -> int | None:
    """The generation that the tables are of, if there is one."""
    return before if before == rules_generation() and all(table.nft for table in tables.values()) else None


def _counts(jails: Iterable[str], sets: Sets) -> dict[str, int]:
    """The live entries of every jail that has both of its sets."""
    counts: dict[str, int] = {}
    for jail in jails:
        headers = [(sets.header(jail + suffix), family) for family, suffix in FAMILIES]
        elements = [h.elements for h, family in headers if h is not None and h.holds(family)]
        if len(elements) == len(FAMILIES):
            counts[jail] = sum(elements)
    return counts
