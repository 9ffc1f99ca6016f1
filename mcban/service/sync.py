"""SQL to kernel: what the kernel should hold, and bringing it there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mcban.core.address import parse_network
from mcban.core.duration import FOREVER_DURATION
from mcban.core.ladder import split_name
from mcban.core.model import FOREVER, Group, Jail
from mcban.core.plan import Actual, Plan, Rule, Wanted, plan
from mcban.core.ports import join_ports
from mcban.firewall.base import Refusal
from mcban.service.context import Context, World
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sync found missing, did, and could not do."""

    plan: Plan
    missing: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


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


def wanted_rules(context: Context, groups: Iterable[Group]) -> dict[str, Rule]:
    """One rule for each group that has an enabled jail."""
    rules: dict[str, Rule] = {}
    for group in groups:
        enabled = [jail for jail in group.jails if jail.enabled]
        if enabled:
            ports = join_ports([jail.ports for jail in enabled])
            names = tuple(sorted(jail.name for jail in enabled))
            rules[group.name] = Rule(names, ports, drop=context.config.firewall_block == "drop")
    return rules


def entry_of(record: AddressRecord) -> str | None:
    """The canonical entry of a row; None for text that is none, or for all of the Internet, which no list holds."""
    try:
        entry = parse_network(record.ip.strip())
    except ValueError:
        return None
    return None if entry.endswith("/0") else entry


def wanted(context: Context, transaction: Transaction, world: World, names: Collection[str] | None) -> Wanted:
    """What the kernel should hold, by SQL, of the groups `names` or of all."""
    now = context.now
    groups = _groups(world.book.groups, names)
    entries: dict[str, dict[str, int]] = {jail.name: {} for group in groups for jail in group.jails if jail.enabled}
    for record in transaction.addresses.in_force(now, None if names is None else entries):
        jail, entry = world.book.jails.get(record.jail), entry_of(record)
        if jail is None or entry is None or record.jail not in entries or held_back(world, record, jail):
            continue
        end = end_of(record, jail, now)
        if end > now:
            entries[record.jail][entry] = end
    return Wanted(wanted_rules(context, groups), entries)


def compare(context: Context, names: Collection[str] | None = None) -> tuple[Plan, Actual]:
    """The plan that would bring the kernel to SQL, for the groups `names` or for all; changes nothing.

    The kernel is read first, then SQL: a ban that lands in between is never taken for a stray.
    """
    book = context.database.read(lambda t: load_world(context, t)).book
    actual = context.firewall.read([jail.name for group in _groups(book.groups, names) for jail in group.jails])
    aim = context.database.read(lambda t: wanted(context, t, load_world(context, t), names))
    if names is not None:
        actual = _only(actual, names, aim)
    return plan(aim, actual, context.now, context.firewall.longest), actual


def sync(context: Context, names: Collection[str] | None = None) -> Outcome:
    """Bring the kernel to SQL, for the groups `names` or for all. Raises NoPermissionError, FirewallError."""
    todo, actual = compare(context, names)
    refusals = () if todo.empty else tuple(context.firewall.apply(todo, context.now))
    return Outcome(todo, actual.missing, refusals)


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
        end = end_of(record, jail, now)
        if record.active and end > now and held_back(world, record, jail) is None:
            add.setdefault(jail.name, {})[entry] = end
        else:
            remove.setdefault(jail.name, set()).add(entry)
    todo = Plan(add=add, remove=remove)
    return Outcome(todo, (), () if todo.empty else tuple(context.firewall.apply(todo, now)))


def _groups(groups: dict[str, Group], names: Collection[str] | None) -> list[Group]:
    return [group for name, group in groups.items() if names is None or name in names]


def _only(actual: Actual, names: Collection[str], aim: Wanted) -> Actual:
    """What of `actual` belongs to the groups `names`: the rest is not to be touched."""
    mine = {jail for jail in actual.entries if jail in aim.entries or split_name(jail)[0] in names}
    return Actual(
        {name: rule for name, rule in actual.rules.items() if name in names},
        {jail: entries for jail, entries in actual.entries.items() if jail in mine},
        actual.missing,
    )
