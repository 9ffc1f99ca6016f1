"""SQL to kernel: what the kernel should hold, and bringing it there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mcban.core.address import pack, parse_network
from mcban.core.duration import FOREVER_DURATION
from mcban.core.ladder import split_name
from mcban.core.model import FOREVER, Group, Jail
from mcban.core.plan import CLOCK_SLACK, Actual, Plan, Rule, Wanted, plan
from mcban.core.ports import join_ports
from mcban.firewall.base import GoneError, IncompleteError, Refusal
from mcban.service.context import Context, World
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sync found missing of what SQL asks for, did, and could not do. `rules` are those that SQL asks for,
    `absent` the chains that are not there (`Actual`). `exchanged` says in words which entries were gone, or there
    without a ban. Whether that calls for a line in the log, or just follows from what somebody asked for, the caller
    knows."""

    plan: Plan
    missing: tuple[str, ...] = ()
    exchanged: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    aim: Aim | None = None
    withheld: str = ""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def done(self) -> Plan:
        """The plan without what was refused."""
        refused = {(refusal.jail, refusal.entry) for refusal in self.refusals}
        if not refused:
            return self.plan
        add = {
            jail: {entry: end for entry, end in ends.items() if (jail, entry) not in refused}
            for jail, ends in self.plan.add.items()
        }
        return replace(self.plan, add={jail: ends for jail, ends in add.items() if ends})


class UnfinishedError(IncompleteError):
    """A part of a sync failed; `outcome` is that of all the rest. Where bans are left besides that somebody must decide
    about, its `withheld` says so, and the error's own words, too."""

    def __init__(self, error: IncompleteError, outcome: Outcome) -> None:
        super().__init__(f"{error}; {outcome.withheld}" if outcome.withheld else str(error), error.refused)
        self.outcome = outcome


def end_of(record: AddressRecord, jail: Jail, now: int) -> int:
    """When the ban of `record` ends; an end that is not worked out yet counts from the last hit."""
    if record.until is not None:
        return record.until
    if jail.bantime == FOREVER_DURATION:
        return FOREVER
    return (record.last_hit or record.since or now) + jail.bantime


def held_back(world: World, record: AddressRecord, jail: Jail) -> str | None:
    """Why a ban in force in SQL does not enter the kernel, or None. An allowance wins over every ban; only one
    forced by hand overrules what is merely protected."""
    if not jail.enabled:
        return f"{jail.name} is disabled"
    if record.whitelisted:
        return "whitelisted"
    entry = entry_of(record)
    if entry is None:
        return "not an address or network that can be banned"
    allowance = world.allow.touching(entry, jail, protected=not record.forced)
    if allowance is None:
        return None
    return f"{allowance.entry} is allowed ({allowance.why})"


def runs(context: Context, world: World, record: AddressRecord) -> bool:
    """Whether the kernel should hold the ban of a row at this moment."""
    jail = world.book.jails.get(record.jail)
    if jail is None or not record.active or end_of(record, jail, context.now) <= context.now:
        return False
    return held_back(world, record, jail) is None


def wanted_rules(context: Context, groups: Iterable[Group]) -> dict[str, Rule]:
    """One rule for each group that has an enabled jail."""
    rules: dict[str, Rule] = {}
    for group in groups:
        enabled = [jail for jail in group.jails if jail.enabled]
        if enabled:
            ports = join_ports([jail.ports for jail in enabled])
            names = tuple(sorted(jail.name for jail in enabled))
            # Where the tiers disagree, which is reported as a fault, the lowest that says something is followed.
            said = [jail.drop for jail in enabled if jail.drop is not None]
            rules[group.name] = Rule(names, ports, drop=said[0] if said else context.config.firewall_block == "drop")
    return rules


def entry_of(record: AddressRecord) -> str | None:
    """The canonical entry of a row; None for text that is none, or for all of the Internet, which no list holds."""
    try:
        entry = parse_network(record.ip.strip())
    except ValueError:
        return None
    return None if entry.endswith("/0") else entry


@dataclass(frozen=True, slots=True)
class Aim:
    """What the kernel should hold, and by jail how many of the bans that SQL has running stay out of it."""

    wanted: Wanted
    aside: dict[str, int]


def aim_of(context: Context, transaction: Transaction, world: World, names: Collection[str] | None) -> Aim:
    """What the kernel should hold, by SQL, of the groups `names` or of all."""
    now = context.now
    groups = _groups(world.book.groups, names)
    enabled = {jail.name: jail for group in groups for jail in group.jails if jail.enabled}
    entries: dict[str, dict[str, int]] = {name: {} for name in enabled}
    screens = {name: world.allow.screen(jail) for name, jail in enabled.items()}
    seen: Counter[str] = Counter()
    slow: set[str] = set()
    for ip, name, end, special in transaction.addresses.running(now, enabled):
        seen[name] += 1
        packed = pack(ip)
        if packed is None or end is None or special:
            slow.add(ip)
        elif not screens[name].allows(packed):
            entries[name][ip] = end
    unsettled = [row for row in transaction.addresses.unsettled(now) if row.jail in enabled]
    for row in [*transaction.addresses.get(slow, enabled), *unsettled]:
        jail, entry, end = enabled[row.jail], entry_of(row), end_of(row, enabled[row.jail], now)
        if row.active and entry is not None and end > now and held_back(world, row, jail) is None:
            entries[row.jail][entry] = end
    aside = {name: seen[name] - len(entries[name]) for name in enabled}
    return Aim(Wanted(wanted_rules(context, groups), entries), aside)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the kernel has and should have, and the plan between them."""

    plan: Plan
    actual: Actual
    aim: Aim
    world: World
    held: int
    """The entries of the whole kernel, also where only some groups are looked at."""

    def lifts(self) -> dict[str, set[str]]:
        """By jail, the entries that the plan lifts and that no jail's being disabled explains."""
        book = self.world.book.jails
        gone = {jail: set(self.actual.entries[jail]) for jail in self.plan.drop if jail not in book}
        return gone | {jail: set(entries) for jail, entries in self.plan.remove.items()}


def compare(context: Context, names: Collection[str] | None = None) -> Comparison:
    """The plan that would bring the kernel to SQL, for the groups `names` or for all; changes nothing.

    The kernel is read first, then SQL: a ban that lands in between is never taken for a stray.
    """
    book = context.database.read(lambda t: load_world(context, t)).book
    actual = _read(context, [jail.name for group in _groups(book.groups, names) for jail in group.jails])

    def work(transaction: Transaction) -> tuple[World, Aim]:
        world = load_world(context, transaction)
        return world, aim_of(context, transaction, world, names)

    world, aim = context.database.read(work)
    held = sum(len(entries) for entries in actual.entries.values())
    if names is not None:
        actual = _only(actual, names, aim.wanted)
    return Comparison(plan(aim.wanted, actual, context.now, context.firewall.longest), actual, aim, world, held)


MANY = 100
"""Entries from which on half of them must not vanish without a trace."""


def sync(
    context: Context,
    names: Collection[str] | None = None,
    *,
    meant: Collection[str] = (),
    force: bool = False,
    spare: Callable[[], Mapping[str, Collection[str]]] = dict,
) -> Outcome:
    """Bring the kernel to SQL, for the groups `names` or for all. Raises NoPermissionError, FirewallError:
    UnfinishedError where a part failed and all the rest was done.

    When more than half of over MANY entries would be lifted of which SQL has no row at all, the database came back
    empty, or is another one: then, unless forced, these stay, all else is done, and `withheld` of the outcome says so.
    Where only some groups are looked at, it is half of theirs, and MANY of the whole kernel. `meant` are entries that
    are lifted all the same, since somebody has just asked for it; so are those that are allowed. `spare` tells by jail,
    when SQL has answered, the entries that stay although SQL does not know of them yet, unless they are allowed.

    A command and the engine work on the same change at the same time: where one meets what the other just took away,
    it looks again.
    """
    for _ in range(LOOKS - 1):
        with suppress(GoneError):
            return _sync(context, compare(context, names), meant, spare, force=force)
    return _sync(context, compare(context, names), meant, spare, force=force)


LOOKS = 3
"""How often the kernel is read at the most, for it to stand still meanwhile."""


def _sync(
    context: Context,
    found: Comparison,
    meant: Collection[str],
    spare: Callable[[], Mapping[str, Collection[str]]],
    *,
    force: bool,
) -> Outcome:
    if spared := spare():
        found = replace(found, plan=_sparing(found, spared))
    todo, withheld = (found.plan, "") if force else guard(context, found, meant)
    outcome = Outcome(
        plan=todo,
        missing=found.actual.missed(found.aim.wanted),
        aim=None if withheld else found.aim,
        withheld=withheld,
        rules=found.aim.wanted.rules,
        absent=found.actual.absent,
    )
    return _bring_about(context, found.actual, outcome)


def _sparing(found: Comparison, spare: Mapping[str, Collection[str]]) -> Plan:
    remove = {
        jail: {e for e in entries if e not in spare.get(jail, ()) or _allowed(found.world, jail, e)}
        for jail, entries in found.plan.remove.items()
    }
    return replace(found.plan, remove={jail: entries for jail, entries in remove.items() if entries})


def restore(context: Context, aim: Aim) -> Outcome:
    """Put back what the kernel should hold by an earlier aim, and lift nothing: for while SQL cannot be asked.
    Raises as `sync` does."""
    actual = _read(context, list(aim.wanted.entries))
    full = plan(aim.wanted, actual, context.now, context.firewall.longest)
    todo = Plan(create=full.create, add=full.add, rules=full.rules)
    return _bring_about(context, actual, Outcome(todo, actual.missed(aim.wanted)))


def _bring_about(context: Context, actual: Actual, outcome: Outcome) -> Outcome:
    """Carry the plan of `outcome` out, which is completed. Raises what the firewall raises, UnfinishedError where a
    part failed."""
    unfinished = None
    try:
        refusals = _apply(context, outcome.plan)
    except IncompleteError as error:
        unfinished, refusals = error, error.refused
    exchanged = _exchanged(actual, outcome.plan, refusals, context.now)
    outcome = replace(outcome, exchanged=exchanged, refusals=refusals)
    if unfinished is not None:
        raise UnfinishedError(unfinished, outcome) from unfinished
    return outcome


def _exchanged(actual: Actual, todo: Plan, refusals: Iterable[Refusal], now: int) -> tuple[str, ...]:
    """What others took out of lists that stand, or put into them; entries that are renewed, or just ending, aside."""
    refused = {(refusal.jail, refusal.entry) for refusal in refusals}
    said: list[str] = []
    for jail, ends in todo.add.items():
        held = actual.entries.get(jail)
        if held is not None:
            said += lines_of(jail, [e for e in ends if e not in held and (jail, e) not in refused], [])
    for jail, gone in todo.remove.items():
        held = actual.entries.get(jail, {})
        said += lines_of(jail, [], [e for e in gone if held.get(e, FOREVER) > now + CLOCK_SLACK])
    return tuple(said)


def lines_of(jail: str, lost: Collection[str], strays: Collection[str]) -> list[str]:
    """In words, which entries of a jail's list were gone, and which were there without a ban."""
    said = []
    for some, what in ((lost, "gone from"), (strays, "without a ban in")):
        if some:
            named = ", ".join(sorted(some)[:3]) + (", …" if len(some) > 3 else "")
            said.append(f"{len(some)} {'entry' if len(some) == 1 else 'entries'} {what} {jail}: {named}")
    return said


def guard(context: Context, found: Comparison, meant: Collection[str] = ()) -> tuple[Plan, str]:
    """The plan without what would lift bans that SQL has lost, and what to say of it."""
    lifts = found.lifts()
    held = sum(len(entries) for entries in found.actual.entries.values())
    if found.held <= MANY or 2 * sum(len(entries) for entries in lifts.values()) <= held:
        return found.plan, ""
    asked = {entry for entries in lifts.values() for entry in entries}
    rows = context.database.read(lambda t: t.addresses.get(asked, lifts))
    known = {(row.jail, entry_of(row)) for row in rows}
    lost = {
        jail: {
            entry
            for entry in entries
            if (jail, entry) not in known and entry not in meant and not _allowed(found.world, jail, entry)
        }
        for jail, entries in lifts.items()
    }
    number = sum(len(entries) for entries in lost.values())
    if 2 * number <= held:
        return found.plan, ""
    kept = {jail for jail in found.plan.drop if lost.get(jail)}
    groups = {split_name(jail)[0] for jail in kept}
    todo = replace(
        found.plan,
        rules={group: rule for group, rule in found.plan.rules.items() if group not in groups},
        drop_rules=tuple(group for group in found.plan.drop_rules if group not in groups),
        remove={jail: set(entries) - lost[jail] for jail, entries in found.plan.remove.items()},
        drop=tuple(jail for jail in found.plan.drop if jail not in kept),
    )
    return todo, (
        f"SQL knows nothing of {number} of the {held} bans in the kernel: is this the right database, and whole? "
        "They stay in force; mcban sync --force lifts them"
    )


def _allowed(world: World, jail: str, entry: str) -> bool:
    return jail in world.book.jails and world.allow.touching(entry, world.book.jails[jail]) is not None


def enforce(
    context: Context, world: World, records: Iterable[AddressRecord], gone: Iterable[tuple[str, str]] = ()
) -> Outcome:
    """Put these bans into the kernel, and take these (ip, jail) out: the quick way for single changes while the lists
    stand. Whether an entry was there already does not matter."""
    now = context.now
    add: dict[str, dict[str, int]] = {}
    remove: dict[str, set[str]] = {}
    for record in [*records, *(AddressRecord(ip, jail) for ip, jail in gone)]:
        jail, entry = world.book.jails.get(record.jail), entry_of(record)
        if jail is None or entry is None or not jail.enabled:
            continue
        if runs(context, world, record):
            add.setdefault(jail.name, {})[entry] = end_of(record, jail, now)
        else:
            remove.setdefault(jail.name, set()).add(entry)
    for name, some in remove.items():  # a row that is gone may have been another spelling of one that is here
        some.difference_update(add.get(name, ()))
    todo = Plan(add=add, remove=remove)
    return Outcome(todo, refusals=_apply(context, todo))


def _apply(context: Context, todo: Plan) -> tuple[Refusal, ...]:
    if todo.empty:
        return ()
    late = -context.database.ahead
    own = todo if not late else replace(todo, add={jail: _shifted(ends, late) for jail, ends in todo.add.items()})
    refusals = tuple(context.firewall.apply(own, context.own_now))
    if context.forget_connections is not None and todo.add:
        context.forget_connections({entry for entries in todo.add.values() for entry in entries})
    return refusals


def _read(context: Context, jails: Collection[str]) -> Actual:
    """What the kernel holds; it ends entries by this machine's clock, which is not always that of SQL."""
    actual, ahead = context.firewall.read(jails), context.database.ahead
    if not ahead:
        return actual
    return replace(actual, entries={jail: _shifted(ends, ahead) for jail, ends in actual.entries.items()})


def _shifted(ends: Mapping[str, int], seconds: int) -> dict[str, int]:
    return {entry: end if end >= FOREVER else end + seconds for entry, end in ends.items()}


def _groups(groups: dict[str, Group], names: Collection[str] | None) -> list[Group]:
    return [group for name, group in groups.items() if names is None or name in names]


def _only(actual: Actual, names: Collection[str], aim: Wanted) -> Actual:
    """What of `actual` belongs to the groups `names`: the rest is not to be touched."""
    mine = {jail for jail in actual.entries if jail in aim.entries or split_name(jail)[0] in names}
    return Actual(
        {name: rule for name, rule in actual.rules.items() if name in names},
        {jail: entries for jail, entries in actual.entries.items() if jail in mine},
        actual.missing,
        taken={jail: why for jail, why in actual.taken.items() if jail in aim.entries},
    )
