"""Wanted and actual state of the firewall, and the only diff between them.

`wanted` comes from SQL, `actual` was read from the kernel before that; `plan` is a value, so a dry run is free.
The invariant: applying a plan, or any part of it, never takes a wanted entry away, and planning again after it was
cut off anywhere gives what was left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mcban.core.model import FOREVER, Ports

CLOCK_SLACK = 3
"""Seconds by which the kernel's idea of an entry's end may differ from ours before it counts as drift: its timeouts
are whole seconds from the moment of adding, and reading takes time too."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the firewall does for one group: packets to `ports` from any entry of `jails` are refused, or dropped
    without a word. The order of the jails says nothing."""

    jails: tuple[str, ...]
    ports: Ports
    drop: bool = False

    def does(self, other: Rule | None) -> bool:
        """Whether the other rule, if there is one, has the same effect."""
        return other is not None and (set(self.jails), self.ports, self.drop) == (
            set(other.jails),
            other.ports,
            other.drop,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the kernel should hold. `entries` has every enabled jail, also those without a ban: the value is the
    end in seconds since the epoch, FOREVER for none."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that was found gone or damaged, in words; of which jail or which group, None where it is of no one."""

    said: str
    jail: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Actual:
    """What the kernel holds of ours.

    `rules` are the groups whose rule stands whole, in every family (a damaged one is left out, so that it is put
    back, and named in `broken_rules`, so that it is taken away when nobody wants it). `entries` has every jail whose
    sets exist in both families; a jail with a set missing is left out of `entries` and named in `broken_sets`. Ends
    are in seconds since the epoch, FOREVER for entries without timeout. `missing` is what is gone or damaged of what
    was there before. `taken` has by jail why it cannot have its sets, and what to do: others have their names. `absent`
    are the chains, named in the settings, that no family has (yet).
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
    broken_rules: AbstractSet[str] = frozenset()
    broken_sets: AbstractSet[str] = frozenset()
    taken: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def missed(self, wanted: Wanted) -> tuple[str, ...]:
        """What is missing of what is wanted. What is gone because nobody wants it any more is missed by nobody,
        whoever took it away: a jail that was disabled or removed by a command, say."""
        return tuple(
            one.said
            for one in self.missing
            if (one.jail is None or one.jail in wanted.entries) and (one.group is None or one.group in wanted.rules)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from actual to wanted, in the order of the fields.

    `create` and `add` before `rules`, so that a rule never stands over a half-built list; `remove` and `drop` last.
    """

    create: tuple[str, ...] = ()
    add: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    drop_rules: tuple[str, ...] = ()
    remove: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.create or self.add or self.rules or self.drop_rules or self.remove or self.drop)

    def beyond(self, jails: Iterable[str]) -> bool:
        """Whether there is something to do that does not hang on the sets of these jails."""
        some = set(jails)
        return bool(
            set(self.create) - some
            or self.add.keys() - some
            or any(some.isdisjoint(rule.jails) for rule in self.rules.values())
            or self.drop_rules
            or self.remove
            or self.drop
        )

    @property
    def additions(self) -> int:
        """How many entries it puts in or renews."""
        return sum(len(entries) for entries in self.add.values())

    def lines(self) -> list[str]:
        """What it would do, one line each, for a person."""
        said = [f"create set {jail}" for jail in self.create]
        said += [f"add {len(entries)} to {jail}" for jail, entries in self.add.items()]
        said += [f"set rule {name}: {', '.join(rule.jails)} on ports {rule.ports}" for name, rule in self.rules.items()]
        said += [f"drop rule {group}" for group in self.drop_rules]
        said += [f"remove {len(entries)} from {jail}" for jail, entries in self.remove.items()]
        said += [f"drop set {jail}" for jail in self.drop]
        return said


def settled(wanted_end: int, actual_end: int, now: int, longest: int) -> bool:
    """Whether an entry's end in the kernel is right.

    A ban longer than the kernel's longest timeout (`longest` seconds) gets that timeout and is renewed once half of
    it has run, so that it outlasts the limit and yet ends by itself, should the engine die, not after its time.
    """
    if actual_end > wanted_end + CLOCK_SLACK:
        return False
    if wanted_end - now > longest // 2:
        return actual_end - now >= longest // 2 - CLOCK_SLACK
    return actual_end >= wanted_end - CLOCK_SLACK


def _difference(
    ends: Mapping[str, int], held: Mapping[str, int], now: int, longest: int
) -> tuple[dict[str, int], set[str]]:
    """What one jail lacks, and what it holds too much. Runs over every entry at each sync, hence the shortcut: an end
    that is the wanted one within the slack is always settled."""
    adding: dict[str, int] = {}
    removing = {entry for entry in held if entry not in ends}
    for entry, end in ends.items():
        have = held.get(entry)
        if end <= now:
            if have is not None:
                removing.add(entry)
        elif have is None or not (-CLOCK_SLACK <= have - end <= CLOCK_SLACK or settled(end, have, now, longest)):
            adding[entry] = end
    return adding, removing


def plan(wanted: Wanted, actual: Actual, now: int, longest: int) -> Plan:
    """What leads from `actual` to `wanted` at `now`; ends already past count as not wanted."""
    create: list[str] = []
    add: dict[str, dict[str, int]] = {}
    remove: dict[str, set[str]] = {}
    for jail, ends in wanted.entries.items():
        held = actual.entries.get(jail)
        if held is None:
            create.append(jail)
            held = {}
        adding, removing = _difference(ends, held, now, longest)
        if adding:
            add[jail] = adding
        if removing:
            remove[jail] = removing
    return Plan(
        create=tuple(create),
        add=add,
        rules={group: rule for group, rule in wanted.rules.items() if not rule.does(actual.rules.get(group))},
        drop_rules=tuple(sorted((actual.rules.keys() | actual.broken_rules) - wanted.rules.keys())),
        remove=remove,
        drop=tuple(sorted((actual.entries.keys() | actual.broken_sets) - wanted.entries.keys())),
    )


def timeout(end: int, now: int, longest: int) -> int:
    """The timeout in seconds that the kernel is given for an entry that ends at `end`; 0 is for ever."""
    if end >= FOREVER:
        return 0
    return max(1, min(end - now, longest))


def timeouts(ends: Iterable[int], now: int, longest: int) -> list[int]:
    """`timeout` of many ends, without a call for each."""
    last = now + longest
    return [0 if end >= FOREVER else longest if end > last else end - now if end > now else 1 for end in ends]
