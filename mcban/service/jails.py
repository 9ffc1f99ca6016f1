"""From rows of `fail2ban_jail` to groups that can be used, and the commands that change those rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from difflib import get_close_matches

from mcban.core import ladder
from mcban.core.banaction import BanAction, parse_banaction
from mcban.core.duration import FOREVER_DURATION, LONGEST
from mcban.core.model import Group, Jail, Kind
from mcban.core.ports import parse_ports
from mcban.errors import RefusedError, UsageError, printable
from mcban.filters import parse_zone
from mcban.firewall.base import group_fault, name_fault
from mcban.service.context import Fault, JailBook
from mcban.store.database import Transaction
from mcban.store.jails import JailRecord

PortNumber = Callable[[str], int]


def read_book(
    records: Iterable[JailRecord], port_number: PortNumber, chains: Collection[str] | None = None
) -> JailBook:
    """The groups that the rows make. A row that cannot be used becomes a fault; the others go on. `chains` are those
    of the settings, None when nothing is going to be enforced."""
    tiers: dict[str, list[Jail]] = defaultdict(list)
    blacklists: dict[str, Jail] = {}
    faults: list[Fault] = []
    for record in records:
        try:
            jail = to_jail(record, port_number, chains)
        except ValueError as error:
            faults.append(Fault(printable(record.name), str(error)))
            continue
        if record.escalate:
            faults.append(
                Fault(
                    printable(record.name),
                    "escalate = 1 waits for the next reload, or for the name of "
                    f"{ladder.tier_name(record.name, ladder.TIER_SUFFIXES[0])} and its like to be free",
                )
            )
        elif jail.kind is Kind.BLACKLIST:
            blacklists[jail.group] = jail
        else:
            tiers[jail.group].append(jail)
    groups: dict[str, Group] = {}
    for name, members in tiers.items():
        customs = [jail for jail in members if jail.kind is Kind.CUSTOM]
        if customs and len(members) > 1:
            faults += [Fault(j.name, "stands beside tiers of the same group: rename it") for j in customs]
            members = [jail for jail in members if jail.kind is Kind.TIER]  # noqa: PLW2901
        group = Group(name, tuple(sorted(members, key=lambda jail: ladder.rank(jail.name))), blacklists.pop(name, None))
        groups[name] = group
        faults += group_faults(group)
    faults += [
        Fault(jail.name, "is a blacklist without a jail of its group: mcban jail remove")
        for jail in blacklists.values()
    ]
    return JailBook(groups, tuple(faults))


def to_jail(record: JailRecord, port_number: PortNumber, chains: Collection[str] | None = None) -> Jail:
    """A usable jail; raises ValueError with one clear line when the row cannot work."""
    group, kind, _ = ladder.split_name(record.name)
    fault = name_fault(record.name) or group_fault(group)
    if fault:
        raise ValueError(fault)
    _check_types(record)
    if record.escalate:
        fault = _escalation_fault(record.name)
        if fault:
            raise ValueError(fault)
    action = _action(record, chains)
    ports = parse_ports(
        "all" if action.all_ports else record.port if action.ports is None else action.ports, port_number
    )
    if kind is not Kind.BLACKLIST:
        _check_numbers(record)
    return Jail(
        name=record.name,
        group=group,
        kind=kind,
        enabled=record.enabled,
        maxretry=record.maxretry,
        findtime=record.findtime,
        bantime=FOREVER_DURATION if kind is Kind.BLACKLIST else record.bantime,
        max_count=record.max_count,
        ports=ports,
        filter=record.filter.strip(),
        banaction=record.banaction.strip(),
        logpath=record.logpath,
        drop=action.drop,
        v6_prefix=record.v6_prefix,
        share_hits=bool(record.share_hits),
        logtimezone=_zone(record),
    )


def _action(record: JailRecord, chains: Collection[str] | None) -> BanAction:
    try:
        action = parse_banaction(record.banaction)
    except ValueError as error:
        raise ValueError(printable(str(error), 400)) from None
    if chains is not None and action.chain is not None and action.chain not in chains:
        raise ValueError(
            f"banaction {action.name}: the chain '{printable(action.chain)}' is not among the setting firewall.chains, "
            f"which names {', '.join(chains)}"
        )
    return action


def _zone(record: JailRecord) -> str:
    zone = str(record.logtimezone).strip()
    if zone:
        try:
            parse_zone(zone)
        except ValueError as error:
            raise ValueError(f"logtimezone {error}") from None
    return zone


def _escalation_fault(name: str) -> str | None:
    if ladder.split_name(name)[1] is not Kind.CUSTOM:
        return "escalate = 1 is for a jail whose name does not end like a tier's"
    return name_fault(ladder.tier_name(name, ladder.TIER_SUFFIXES[0]))


def _check_types(record: JailRecord) -> None:
    """SQLite takes any text for a number."""
    for column in ("maxretry", "findtime", "bantime", "max_count", "v6_prefix"):
        value = getattr(record, column)
        if not isinstance(value, int):
            raise ValueError(f"{column} {printable(repr(value))} is no whole number")


def _check_numbers(record: JailRecord) -> None:
    if not 1 <= record.maxretry <= 10_000:
        raise ValueError(f"maxretry {record.maxretry} is out of range: from 1 to 10000")
    if not 1 <= record.findtime <= LONGEST:
        raise ValueError(f"findtime {record.findtime} is out of range: from 1 second to 100 years")
    if record.bantime != FOREVER_DURATION and not 1 <= record.bantime <= LONGEST:
        raise ValueError(f"bantime {record.bantime} is out of range: from 1 second to 100 years, or -1 for ever")
    if not 32 <= record.v6_prefix <= 128:
        raise ValueError(f"v6_prefix {record.v6_prefix} is out of range: from 32 to 128, 64 for a customer's network")
    if not record.filter.strip():
        raise ValueError("it names no filter")


def group_faults(group: Group) -> list[Fault]:
    """What is wrong with a group as a whole, its jails being usable."""
    steps = _steps(group.tiers)
    faults = [
        Fault(group.name, f"the ladder does not ascend: {said} ({ladder.table(steps)})")
        for said in ladder.faults(steps)
    ]
    name = group.name + ladder.BLACKLIST_SUFFIX
    if group.blacklist is None and name_fault(name) and any(tier.max_count > 0 for tier in group.tiers):
        faults.append(
            Fault(group.name, f"max_count wants the blacklist {name}, but {name_fault(name)}: nobody is blacklisted")
        )
    drops = {jail.drop: jail.name for jail in group.jails if jail.enabled and jail.drop is not None}
    if len(drops) > 1:
        faults.append(
            Fault(group.name, f"the tiers disagree: {drops[True]} says blocktype DROP, {drops[False]} REJECT")
        )
    enabled = [tier for tier in group.tiers if tier.enabled]
    for column in ("filter", "logpath", "v6_prefix", "share_hits", "logtimezone"):
        values = list(dict.fromkeys(getattr(tier, column) for tier in enabled))
        if len(values) > 1:
            faults.append(
                Fault(group.name, f"its tiers name different values of {column}: that of {enabled[0].name} is used")
            )
    return faults


def _steps(tiers: Iterable[Jail]) -> list[ladder.Step]:
    return [ladder.Step(ladder.split_name(t.name)[2] or t.name, t.maxretry, t.findtime, t.bantime) for t in tiers]


def select(book: JailBook, name: str | None) -> list[Jail]:
    """The jails that `-j NAME` means: a group's tiers, or the one jail; None is every jail, blacklists too.

    Raises UsageError with the nearest name for one that there is not.
    """
    if name is None:
        return list(book.jails.values())
    if name in book.groups:
        return list(book.groups[name].tiers)
    if name in book.jails:
        return [book.jails[name]]
    unusable = next((fault for fault in book.faults if fault.what == name), None)
    if unusable:
        raise UsageError(f"the jail {printable(name)} cannot be used: {unusable.why}")
    known = [*book.groups, *book.jails]
    near = get_close_matches(name, known, 1, 0.5)
    if near:
        hint = f"did you mean {near[0]}?"
    else:
        hint = (
            f"there are {', '.join(book.groups)}" if book.groups else "there is none at all: mcban jail add makes one"
        )
    raise UsageError(f"there is no jail {printable(name) or 'without a name'}: {hint}")


def select_group(book: JailBook, name: str) -> Group:
    """The group that `name` is, or belongs to. Raises UsageError as `select` does."""
    return book.groups[select(book, name)[0].group]


def settle(transaction: Transaction, port_number: PortNumber, chains: Collection[str] | None = None) -> list[str]:
    """Bring the rows to what they imply: `escalate` becomes a ladder, `max_count` > 0 a blacklist jail.

    Returns what was done, one line each. Rows that cannot be used stay as they are, to be reported.
    """
    records = transaction.jails.all()
    names = {record.name for record in records}
    said: list[str] = []
    for record in records:
        try:
            to_jail(record, port_number, chains)
        except ValueError:
            continue
        if record.escalate:
            said += _escalate(transaction, record, names)
        elif ladder.split_name(record.name)[1] is not Kind.BLACKLIST and record.max_count > 0:
            said += _give_blacklist(transaction, record, ladder.split_name(record.name)[0], names)
    return said


def ladder_rows(record: JailRecord) -> list[JailRecord]:
    """The rows of the tiers that a row with `escalate` asks for."""
    return [
        replace(
            record,
            name=ladder.tier_name(record.name, step.suffix),
            maxretry=step.maxretry,
            findtime=step.findtime,
            bantime=step.bantime,
            escalate=False,
        )
        for step in ladder.generate(record.maxretry)
    ]


def _escalate(transaction: Transaction, record: JailRecord, names: set[str]) -> list[str]:
    wanted = [ladder.tier_name(record.name, suffix) for suffix in ladder.TIER_SUFFIXES]
    if names.intersection(wanted):
        return []  # read_book reports the row: it stays, with its escalate
    for row in ladder_rows(record):
        transaction.jails.insert(row)
    transaction.jails.delete(record.name)
    names |= set(wanted)
    said = [f"{printable(record.name)}: made a ladder of {record.maxretry} hits a day"]
    return said + (_give_blacklist(transaction, record, record.name, names) if record.max_count > 0 else [])


def _give_blacklist(transaction: Transaction, record: JailRecord, group: str, names: set[str]) -> list[str]:
    name = group + ladder.BLACKLIST_SUFFIX
    if name in names or name_fault(name):
        return []
    transaction.jails.insert(
        replace(record, name=name, maxretry=0, findtime=0, bantime=FOREVER_DURATION, enabled=True, escalate=False)
    )
    names.add(name)
    return [f"{name}: made, since {printable(record.name)} has max_count {record.max_count}"]


def check_ladder(tiers: Iterable[Jail], *, force: bool) -> None:
    """Raises RefusedError, showing the ladder and the offending value, unless it ascends or is forced."""
    steps = _steps(tiers)
    said = ladder.faults(steps)
    if said and not force:
        raise RefusedError(
            f"the ladder would not ascend: {said[0]} ({ladder.table(steps)}); --force does it all the same"
        )
