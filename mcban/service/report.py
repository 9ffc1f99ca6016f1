"""Answers: the bans in force, one address, the jails at large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mcban.core.escalation import Record, counted_for, hits_counted
from mcban.core.model import FOREVER, Group, Jail, Kind
from mcban.core.plan import Actual
from mcban.errors import FirewallError, NoPermissionError
from mcban.service.context import Context, Fault, World
from mcban.service.jails import select
from mcban.service.record import standing_of
from mcban.service.sources import find_sources
from mcban.service.sync import end_of, entry_of, held_back
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event

EVENTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class BanLine:
    """A ban in force; times in seconds since the epoch, `until` None for ever."""

    ip: str
    jail: str
    since: int | None
    until: int | None
    count: int
    host: str
    reason: str
    held_back: str | None


def bans_in_force(context: Context, name: str | None) -> list[BanLine]:
    """The bans that SQL has running, in the jails that `name` means or in all, each with why the kernel does not
    get it, if so. Raises UsageError for an unknown jail."""

    def work(transaction: Transaction) -> list[BanLine]:
        world = load_world(context, transaction)
        jails = {jail.name: jail for jail in select(world.book, name)}
        if name in world.book.groups:
            jails = {jail.name: jail for jail in world.book.groups[name].jails}
        lines = []
        for row in transaction.addresses.in_force(context.now, list(jails)):
            end = end_of(row, jails[row.jail], context.now)
            if end <= context.now or row.whitelisted or entry_of(row) is None:
                continue
            back = held_back(world, row, jails[row.jail])
            lines.append(
                BanLine(row.ip, row.jail, row.since, _finite(end), row.count, row.host, row.reason or "", back)
            )
        return lines

    return context.database.read(work)


@dataclass(frozen=True, slots=True)
class JailView:
    """One address in one jail. `enforced` None: the kernel could not be asked."""

    jail: str
    hits: int
    maxretry: int
    banned: bool
    since: int | None
    until: int | None
    count: int
    blacklisted: bool
    enforced: bool | None
    entry: str
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class AddressView:
    """One address everywhere."""

    ip: str
    allowed: tuple[str, ...]
    jails: tuple[JailView, ...]
    logins: tuple[str, ...]
    events: tuple[Event, ...]
    unasked: str


def show(context: Context, entry: str) -> AddressView:
    """What is known of an address or network: where banned, by itself or by a network that covers it, and why. A group
    that counts it as a part of a network tells of the network."""
    kernel, unasked = _kernel(context)

    def work(transaction: Transaction) -> AddressView:
        world = load_world(context, transaction)
        counted = {group.name: counted_for(group, entry, world.allow) for group in world.book.groups.values()}
        entries = list(dict.fromkeys([entry, *counted.values()]))
        rows = _rows(transaction, world, entry, counted)
        known = transaction.hits.of(entries)
        views: list[JailView] = []
        for group in world.book.groups.values():
            whom = counted[group.name]
            record = _record(group, rows, known.get((group.counted_as(context.config.node), whom), []), context.now)
            for jail in group.jails:
                row = rows.get(jail.name)
                if row is None and (not record.hits or jail.kind is Kind.BLACKLIST):
                    continue
                views.append(_view(context, world, jail, row or AddressRecord(whom, jail.name), record, kernel))
        allowed = {
            f"{a.entry} in {'all jails' if a.scope == '*' else a.scope} ({a.why})"
            for jail in world.book.jails.values()
            if (a := world.allow.covering(entry, jail)) is not None
        }
        logins = [login for some in entries for tried in transaction.hits.logins(some).values() for login in tried]
        events = [event for some in entries for event in transaction.events.of(some, EVENTS_SHOWN)]
        return AddressView(
            entry,
            tuple(sorted(allowed)),
            tuple(views),
            tuple(dict.fromkeys(logins)),
            tuple(sorted(events, key=lambda event: event.at)[-EVENTS_SHOWN:]),
            unasked,
        )

    return context.database.read(work)


def _rows(transaction: Transaction, world: World, entry: str, counted: Mapping[str, str]) -> dict[str, AddressRecord]:
    """By jail the row of `entry`, or, where that is no ban, of the network that its group counts it in, or of a banned
    one that covers it. `counted` has by group whom it counts."""
    rows = {row.jail: row for row in transaction.addresses.get([entry])}
    for row in transaction.addresses.get(set(counted.values()) - {entry}):
        jail = world.book.jails.get(row.jail)
        if jail and counted[jail.group] == row.ip and not (row.jail in rows and rows[row.jail].active):
            rows[row.jail] = row
    for row in transaction.addresses.covering(entry):
        if not (row.jail in rows and rows[row.jail].active):
            rows[row.jail] = row
    return rows


def _record(group: Group, rows: Mapping[str, AddressRecord], hits: list[int], now: int) -> Record:
    standings = {jail.name: standing_of(rows[jail.name], jail, now) for jail in group.jails if jail.name in rows}
    return Record(hits, standings)


def _view(
    context: Context,
    world: World,
    jail: Jail,
    row: AddressRecord,
    record: Record,
    kernel: Actual | None,
) -> JailView:
    end = end_of(row, jail, context.now)
    banned = row.active and end > context.now and not row.whitelisted
    back = held_back(world, row, jail) if banned else None
    canonical = entry_of(row)
    enforced: bool | None = False
    if banned:
        enforced = None if kernel is None else canonical in kernel.entries.get(jail.name, {})
    if banned and back is None and kernel is not None and not enforced:
        back = kernel.taken.get(jail.name)
    return JailView(
        jail=jail.name,
        hits=0 if jail.kind is Kind.BLACKLIST else hits_counted(jail, record, context.now),
        maxretry=jail.maxretry,
        banned=banned,
        since=row.since if banned else None,
        until=_finite(end) if banned else None,
        count=row.count,
        blacklisted=row.blacklisted,
        enforced=enforced,
        entry=row.ip,
        reason=row.reason or "",
        note=back or "",
    )


def _kernel(context: Context) -> tuple[Actual | None, str]:
    """What the kernel holds; None and why when it cannot be asked."""
    if not context.firewall.enforces:
        return Actual(), f"the {context.firewall.name} firewall touches no kernel"
    try:
        book = context.database.read(lambda t: load_world(context, t)).book
        return context.firewall.read(list(book.jails)), ""
    except (NoPermissionError, FirewallError) as error:
        return None, str(error)


@dataclass(frozen=True, slots=True)
class JailLine:
    """One jail at large. `hits` are its group's, ever counted; `kept` those that a tier may still ask for."""

    jail: Jail
    hits: int
    kept: int
    bans: int
    bans_ever: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The jails and what cannot be used."""

    jails: tuple[JailLine, ...]
    faults: tuple[Fault, ...]


def overview(context: Context, name: str | None = None) -> Overview:
    """The jails that `name` means, or all. Raises UsageError for an unknown jail."""

    def work(transaction: Transaction) -> Overview:
        world = load_world(context, transaction)
        jails = select(world.book, name)
        if name in world.book.groups:
            jails = list(world.book.groups[name].jails)
        totals, kept = transaction.hits.totals(), transaction.hits.kept()
        counts = transaction.addresses.counts(context.now)
        _, unreadable = find_sources(context, world.book)
        faults = [*world.book.faults, *unreadable]
        if name is not None:
            mine = {name, *(jail.name for jail in jails), *(jail.group for jail in jails)}
            faults = [fault for fault in faults if fault.what in mine]
        lines = [
            JailLine(jail, totals.get(jail.group, 0), kept.get(jail.group, 0), *counts.get(jail.name, (0, 0)))
            for jail in jails
        ]
        return Overview(tuple(lines), tuple(faults))

    return context.database.read(work)


def _finite(end: int) -> int | None:
    return None if end >= FOREVER else end
