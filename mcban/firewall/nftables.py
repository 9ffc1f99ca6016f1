"""The nftables backend: a table of our own, `inet mcban`, spoken with over netlink; no program is needed.

Owns the order in which the table is looked at and changed. Messages are in `nft_wire`, transactions in `nft_link`,
rules in `nft_rules`, what overlapping networks amount to in `nft_networks`, the elements of one set in `nft_sets`.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Mapping, Sequence

from mcban.core.plan import Actual, Missing, Plan, Rule, timeouts
from mcban.errors import ConfigError, FirewallError, printable
from mcban.firewall import nft_wire as wire
from mcban.firewall.base import Glance, GoneError, IncompleteError, Refusal, Turnover, group_fault, name_fault
from mcban.firewall.netlink import attribute, fields, rules_generation
from mcban.firewall.nft_events import Events
from mcban.firewall.nft_link import Link, Request, speaking
from mcban.firewall.nft_networks import spans
from mcban.firewall.nft_rules import (
    FAMILIES,
    HOOKS,
    PORTS,
    PORTS_SHAPE,
    PRIORITY,
    Scene,
    encode,
    layout,
    merged,
    set_names,
)
from mcban.firewall.nft_sets import Half, Keys, milliseconds

LONGEST = 100 * 365 * 86400
"""The longest timeout in seconds: the kernel counts milliseconds in 64 bits."""
TOLD = 1000
"""Entries: while we change more at once nobody listens, since the kernel tells of each."""
_TABLE = attribute(1, wire.text(wire.TABLE))


class NftablesFirewall:
    """Bans in sets of nf_tables. `most` is what a jail's set of one family may hold; until then the kernel grows it by
    itself. `chains` are the places where packets come by, in iptables' words: INPUT, FORWARD and DOCKER-USER, which
    is a part of FORWARD (ConfigError for any other). Nothing is opened before the first call; not for two threads."""

    name = "nftables"
    enforces = True
    longest = LONGEST

    def __init__(self, most: int = 64_000_000, chains: Sequence[str] = ("INPUT",)) -> None:
        for chain in chains:
            if chain not in HOOKS:
                raise ConfigError(f"the nftables backend knows no chain '{printable(chain)}', but {', '.join(HOOKS)}")
        self.most = most
        self._hooks = dict(HOOKS[chain] for chain in chains)
        self._link = Link()
        self._seen_jails: set[str] = set()
        self._seen_rules: dict[str, Rule] = {}
        self._jails: set[str] = set()
        self._rules: dict[str, Rule] = {}
        self._ends: dict[str, list[int]] = {}
        self._held: dict[str, int] = {}
        self._keys: dict[str, list[Keys]] = {}
        self._told: dict[str, list[Keys]] = {}
        self._generation: int | None = None
        self._doubt = True
        self._events = Events()

    def close(self) -> None:
        """Give the sockets back; what is in the kernel stays."""
        self._events.close()
        self._link.close()

    def _halves(self, jail: str) -> list[Half]:
        return [Half(self._link, jail, family, encode(jail) + suffix, self.most) for family, suffix in FAMILIES]

    def _scene(self) -> Scene:
        """The table without the entries of jails."""
        what = f"cannot read table inet {wire.TABLE}"
        tables = self._link.dump(what, wire.GETTABLE) or []
        mine = [said for said in map(fields, tables) if said.get(1) == wire.text(wire.TABLE)]
        if not mine:
            return Scene()
        chains: dict[str, tuple[int, int, int] | None] = {}
        rules: dict[str, list[bytes]] = {}
        sets: dict[str, tuple[int, int, int]] = {}
        for said in self._ours(what, wire.GETCHAIN):
            hook = fields(said.get(4, b""))
            place = (_number(hook[1]), _number(hook[2], signed=True), _number(said.get(5, b""))) if hook else None
            chains[_text(said[3])] = place
        for said in self._ours(what, wire.GETRULE):
            rules.setdefault(_text(said[2]), []).append(said.get(4, b""))
        for said in self._ours(what, wire.GETSET):
            sets[_text(said[2])] = (_number(said.get(3, b"")), _number(said.get(4, b"")), _number(said.get(5, b"")))
        ports = {name: self._port_ranges(name) for name, shape in sets.items() if name.endswith(PORTS)}
        return Scene(True, _number(mine[0].get(2, b"")) != 0, sets, ports, chains, rules)

    def _ours(self, what: str, command: int) -> Iterable[dict[int, bytes]]:
        found = map(fields, self._link.dump(what, command, _TABLE) or [])
        return [said for said in found if said.get(1) == wire.text(wire.TABLE)]

    def _port_ranges(self, name: str) -> list[tuple[int, int]]:
        dump = self._link.dump(f"cannot read set {name}", wire.GETSETELEM, wire.all_elements(name)) or []
        keys, ends = wire.unpack([fields(some).get(3, b"") for some in dump], 2, self._link.times[: len(dump)])
        return [(low, high) for low, high, _ in spans(keys, ends, 65536)]

    def stands(self) -> bool:
        """See `Firewall.stands`."""
        return bool(self._scene().chains)

    def read(self, jails: Collection[str]) -> Actual:
        """What is there of ours; see `Firewall.read`. The table is all ours, so `jails` only say what to miss."""
        generation = rules_generation()
        scene = self._scene()
        whole, broken = scene.jails()
        entries: dict[str, Mapping[str, int]] = {}
        ends: dict[str, list[int]] = {}
        for jail in sorted(whole):
            halves = self._halves(jail)
            found = [half.read() for half in halves]
            if None in found:
                broken.add(jail)
                continue
            entries[jail] = {entry: end for some in found if some for entry, end in some.items()}
            ends[jail] = sorted(1000 * end for end in entries[jail].values())
            self._keys[jail] = [half.keys for half in halves]
        rules, altered = scene.groups(self._hooks, self._seen_rules)
        missing = self._missing(scene, entries, broken, rules, altered)
        self._jails, self._rules, self._ends = set(entries), dict(rules), ends
        self._held = {jail: len(some) for jail, some in ends.items()}
        self._generation = generation if generation == rules_generation() else None
        self._doubt = bool(broken or altered)
        self._seen_jails.update(entries)
        self._seen_rules.update(rules)
        return Actual(rules, entries, missing, frozenset(altered), frozenset(broken))

    def _missing(
        self,
        scene: Scene,
        entries: Collection[str],
        broken: Collection[str],
        rules: Mapping[str, Rule],
        altered: set[str],
    ) -> tuple[Missing, ...]:
        if not scene.there:
            return (Missing(f"table inet {wire.TABLE} is gone"),) if self._seen_jails or self._seen_rules else ()
        said = [Missing(f"table inet {wire.TABLE} is dormant")] if scene.dormant else []
        if altered or self._seen_rules:
            said += [
                Missing(f"chain {hook} is gone or altered")
                for hook, number in self._hooks.items()
                if scene.chains.get(hook) != (number, PRIORITY, 1)
            ]
        said += [Missing(f"the rule of {group} was altered", group=group) for group in sorted(altered)]
        gone = sorted(self._seen_rules.keys() - set(rules) - altered)
        said += [Missing(f"the rule of {group} is gone", group=group) for group in gone]
        said += [
            Missing(f"the rule of {group} is not what it was", group=group)
            for group, seen in self._seen_rules.items()
            if group in rules and not rules[group].does(seen)
        ]
        said += [Missing(f"sets of {jail} are gone or altered", jail=jail) for jail in sorted(broken)]
        lost = sorted(self._seen_jails - set(entries) - set(broken))
        said += [Missing(f"the sets of {jail} are gone", jail=jail) for jail in lost]
        return tuple(said)

    def glance(self, jails: Collection[str]) -> Glance:
        """A cheap look; see `Firewall.glance`. While the kernel's generation stands as we left it, or others changed
        tables of their own only, nothing but the end of entries has changed, and those ends are known. Otherwise the
        table is looked at and its entries counted."""
        whole = not self._doubt
        generation = self._follow(self._generation)
        if generation is None:
            self._events.listen()
            generation = rules_generation()
            scene = self._scene()
            standing, altered = scene.groups(self._hooks, self._rules)
            alike = standing.keys() == self._rules.keys() and all(r.does(standing[g]) for g, r in self._rules.items())
            found, _ = scene.jails()
            whole = whole and alike and not altered and found >= self._jails
            self._ends = {}
            self._jails &= found
            jails = [jail for jail in jails if jail in found]
        for jail in {*self._jails, *(jail for jail in jails if jail not in self._jails)} - self._ends.keys():
            self._count(jail)
        whole = whole and self._ends.keys() >= self._jails
        self._generation = self._follow(generation) if whole else None
        self._doubt = self._doubt or not whole
        now = milliseconds()
        return Glance(whole, {jail: len(ends) - bisect_right(ends, now) for jail, ends in self._ends.items()})

    def _follow(self, generation: int | None) -> int | None:
        """The kernel's generation, if our table is as it was at this one but for what we did; else None."""
        if generation is None:
            return None
        now = rules_generation()
        alike = now is not None and (now == generation or self._events.untouched(now, self._link.port))
        return now if alike else None

    def turnover(self, jail: str) -> Turnover | None:
        """See `Firewall.turnover`: what the last reading found. Nothing is read for it, since while the kernel's
        generation stands as we left it nobody else has changed anything, and when it does not, `glance` reads."""
        if jail not in self._jails or jail not in self._ends:
            return None
        none = [(b"", b"")] * len(FAMILIES)
        held, told = self._keys.get(jail, none), self._told.get(jail, none)
        if held is told:
            return Turnover()
        self._told[jail] = held
        came: set[str] = set()
        went: set[str] = set()
        for half, before, after in zip(self._halves(jail), told, held, strict=True):
            new, old = half.exchanged(before, after)
            came, went = came | new, went | old
        return Turnover(came, went)

    def _count(self, jail: str) -> None:
        halves = self._halves(jail)
        found = [half.ends() for half in halves]
        if None not in found:
            self._keys[jail] = [half.keys for half in halves]
            self._ends[jail] = sorted(end for some in found if some for end in some)
            self._held[jail] = len(self._ends[jail])

    def apply(self, plan: Plan, now: int) -> list[Refusal]:
        """Carry a plan out; see `Firewall.apply`."""
        commits, before = self._link.commits, self._follow(self._generation)
        if plan.additions + sum(map(len, plan.remove.values())) > TOLD:
            self._events.close()
        try:
            refused = self._apply(plan, now)
        except BaseException:
            self._doubt, self._generation = True, None
            raise
        # Each of our transactions raised it by one; what others did in between, they may have done elsewhere.
        self._generation = None
        if before is not None:
            self._generation = self._follow((before + self._link.commits - commits) & 0xFFFFFFFF)
        for jail in (*plan.remove, *plan.drop):
            self._ends.pop(jail, None)
        return refused

    def _apply(self, plan: Plan, now: int) -> list[Refusal]:
        faults: list[FirewallError] = []
        refused: list[Refusal] = []
        self._create(plan, faults)
        for jail, ends in plan.add.items():
            try:
                refused += self._add(jail, ends, now)
            except GoneError as error:
                faults.append(error)
        if plan.rules or plan.drop_rules or plan.drop:
            self._set_rules(plan, faults)
        for jail, gone in plan.remove.items():
            if name_fault(jail) is None:
                for half in self._halves(jail):
                    half.delete([entry for entry in gone if half.takes(entry)])
        if faults:
            raise IncompleteError("; ".join(dict.fromkeys(map(str, faults))), refused) from faults[0]
        return refused

    def _create(self, plan: Plan, faults: list[FirewallError]) -> None:
        """The sets of new jails, together with the table. One that is there in another shape makes way; it can, unless
        a rule has it."""
        good: list[str] = []
        for jail in plan.create:
            fault = name_fault(jail)
            if fault is None:
                good.append(jail)
            else:
                faults.append(FirewallError(f"jail {printable(jail)} cannot have a set: {fault}"))
        if not good:
            return
        there = self._scene().sets
        self._ends.update((jail, []) for jail in good if not set_names(jail).keys() & there.keys())
        requests: list[Request] = [(wire.NEWTABLE, wire.NLM_F_CREATE, _TABLE + attribute(2, bytes(4)))]
        for jail in good:
            for name, shape in set_names(jail).items():
                if there.get(name) == shape:
                    continue
                if name in there:
                    requests.append((wire.DELSET, 0, _TABLE + attribute(2, wire.text(name))))
                requests.append((wire.NEWSET, wire.NLM_F_CREATE, wire.set_body(name, *shape)))
        with speaking(f"cannot create the sets of {', '.join(good)}"):
            self._link.commit(requests)
        self._jails.update(good)
        self._seen_jails.update(good)

    def _add(self, jail: str, ends: Mapping[str, int], now: int) -> list[Refusal]:
        fault = name_fault(jail)
        if fault:
            return [Refusal(jail, entry, fault) for entry in ends]
        refused: list[Refusal] = []
        tight = self._held.get(jail, 0) + len(ends) > self.most
        self._held[jail] = self._held.get(jail, 0) + len(ends)
        for half in self._halves(jail):
            some = [entry for entry in ends if half.takes(entry)]
            if some:
                seconds = timeouts([ends[entry] for entry in some], now, LONGEST)
                refused += [Refusal(jail, entry, why) for entry, why in half.add(some, seconds, tight)]
                self._note(jail, half)
        return refused

    def _note(self, jail: str, half: Half) -> None:
        """Keep the count of a jail, or forget it where it is not known what was renewed and what is new."""
        known = self._ends.get(jail)
        if known is None or not half.sure:
            self._ends.pop(jail, None)
        elif len(half.fresh) == 1:
            insort(known, half.fresh[0])
        else:
            known += half.fresh
            known.sort()

    def _set_rules(self, plan: Plan, faults: list[FirewallError]) -> None:
        """All chains and rules of ours anew in one transaction, and what is no longer wanted with it."""
        scene = self._scene()
        if not scene.there:
            if plan.rules:
                raise FirewallError(f"table inet {wire.TABLE} is gone; the next sync puts it back")
            return
        standing, _ = scene.groups(self._hooks, self._rules | self._seen_rules)
        rules = {group: rule for group, rule in standing.items() if group not in plan.drop_rules}
        for group, rule in plan.rules.items():
            fault = group_fault(group)
            if fault is None:
                rules[group] = rule
            else:
                faults.append(FirewallError(f"group {printable(group)} cannot have a rule: {fault}"))
        whole, _ = scene.jails()
        usable = whole - set(plan.drop)
        for group, rule in list(rules.items()):
            gone = [jail for jail in rule.jails if jail not in usable]
            if gone:
                lost = [jail for jail in gone if jail not in plan.drop]
                faults += [FirewallError(f"set {printable(j)} is gone; the next sync puts it back") for j in lost]
                rules[group] = Rule(tuple(j for j in rule.jails if j in usable), rule.ports, rule.drop)
        with speaking("cannot change the rules"):
            self._link.commit(self._installation(scene, rules, plan.drop))
        self._rules = rules
        for group in plan.drop_rules:
            self._seen_rules.pop(group, None)
        self._seen_rules.update(rules)
        self._jails.difference_update(plan.drop)
        self._seen_jails.difference_update(plan.drop)
        for jail in plan.drop:
            self._keys.pop(jail, None)
            self._told.pop(jail, None)

    def _installation(self, scene: Scene, rules: Mapping[str, Rule], drop: Iterable[str]) -> list[Request]:
        """The transaction that makes the table's chains exactly these, and takes the sets of `drop` away."""
        wanted = layout(rules, self._hooks)
        named = {chain: _TABLE + attribute(3, wire.text(chain)) for chain in (*scene.chains, *wanted)}
        requests: list[Request] = [
            (wire.NEWTABLE, wire.NLM_F_CREATE, _TABLE + attribute(2, bytes(4))),
            (wire.DELRULE, 0, _TABLE),
        ]
        for chain, place in scene.chains.items():
            hook = self._hooks.get(chain)
            if chain not in wanted or place != (None if hook is None else (hook, PRIORITY, 1)):
                requests.append((wire.DELCHAIN, 0, named[chain]))
        stale = [name for name in scene.sets if name.endswith(PORTS)]
        stale += [name for jail in drop for name in set_names(jail) if name in scene.sets]
        requests += [(wire.DELSET, 0, _TABLE + attribute(2, wire.text(name))) for name in stale]
        for group, rule in rules.items():
            if not rule.ports.everything:
                requests += _port_set(encode(group) + PORTS, merged(rule.ports))
        for chain in wanted:
            body = named[chain]
            if chain in self._hooks:
                place_of = (attribute(1, wire.number(self._hooks[chain])), attribute(2, wire.number(PRIORITY)))
                body += wire.nested(4, *place_of) + attribute(5, wire.number(1)) + attribute(7, b"filter\0")
            requests.append((wire.NEWCHAIN, wire.NLM_F_CREATE, body))
        for chain, lines in wanted.items():
            head = _TABLE + attribute(2, wire.text(chain))
            flags = wire.NLM_F_CREATE | wire.NLM_F_APPEND
            requests += [(wire.NEWRULE, flags, head + wire.nested(4, line)) for line in lines]
        return requests

    def remove(self, jails: Collection[str]) -> None:
        """Delete our table, and with it everything of ours."""
        requests = [(wire.NEWTABLE, wire.NLM_F_CREATE, _TABLE), (wire.DELTABLE, 0, _TABLE)]
        with speaking(f"cannot delete table inet {wire.TABLE}"):
            self._link.commit(requests)
        self._seen_jails, self._seen_rules, self._jails, self._rules = set(), {}, set(), {}
        self._ends, self._held, self._generation, self._doubt = {}, {}, None, True
        self._keys, self._told = {}, {}


def _port_set(name: str, ranges: Sequence[tuple[int, int]]) -> list[Request]:
    ended = [span for span in ranges if span[1] < 65536]
    lows, highs = (b"".join(span[side].to_bytes(2, "big") for span in ended) for side in (0, 1))
    open_ = b"".join(low.to_bytes(2, "big") for low, high in ranges if high == 65536)
    bodies = [*wire.elements(name, 2, lows, None, highs), *wire.elements(name, 2, open_, None)]
    made: Request = (wire.NEWSET, wire.NLM_F_CREATE, wire.set_body(name, *PORTS_SHAPE))
    return [made, *((wire.NEWSETELEM, wire.NLM_F_CREATE, body) for body in bodies)]


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes, signed: bool = False) -> int:
    return int.from_bytes(value, "big", signed=signed)
