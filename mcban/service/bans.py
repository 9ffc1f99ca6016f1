"""Bans by hand: ban, unban, blacklist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mcban.core.address import covers, exceeded_width, parse_network, to_network
from mcban.core.duration import FOREVER_DURATION, about, lasting
from mcban.core.escalation import network_of, promotion, was_counted
from mcban.core.model import FOREVER, Jail, Kind, number_of, of_group
from mcban.errors import FirewallError, RefusedError, UsageError, printable
from mcban.firewall.base import summarise
from mcban.service.context import Context, World
from mcban.service.jails import select, select_group
from mcban.service.sync import end_of, entry_of, held_back, sync
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event

MOST_TOLD = 8
"""What was written for so many jails and addresses is told where the kernel then fails."""
BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Report:
    """What a command did, one line each, and what it could not do."""

    done: tuple[str, ...]
    failed: tuple[str, ...] = ()


def parse_entries(texts: Sequence[str]) -> list[str]:
    """Addresses and networks from the command line; raises UsageError for the first that is none."""
    entries = []
    for text in texts:
        try:
            entries.append(parse_network(text))
        except ValueError:
            raise UsageError(
                f"'{printable(text)}' is no address or network: write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/48"
            ) from None
    return list(dict.fromkeys(entries))


def ban(
    context: Context,
    name: str,
    entries: Sequence[str],
    duration: int | None,
    *,
    force: bool,
    yes: bool,
    peers: Collection[str] = (),
) -> Report:
    """Ban `entries` in the jails that `name` means, for the jail's time or for `duration` seconds (-1: for ever).

    `peers` are the addresses from which whoever asks for it is logged in. Raises UsageError for an unknown jail,
    RefusedError for what is unsafe; then nothing was changed.
    """

    def work(transaction: Transaction) -> _Desk:
        desk = _Desk(context, transaction, name)
        for entry in entries:
            _check_width(entry, yes=yes)
            for jail in desk.jails:
                _check_allowed(desk.world, entry, jail, force=force)
            _check_peers(entry, () if force else peers)
        for entry in entries:
            for jail in desk.jails:
                desk.ban(entry, jail, duration, forced=force)
        return desk

    return _carry_out(context, name, work)


def unban(context: Context, name: str | None, entries: Sequence[str]) -> Report:
    """Take the bans of `entries` out of SQL and kernel, in the jails that `name` means and the blacklist of a group,
    or everywhere; and forget the hits there. `count` stays. A network that hits of an address in it led to is let in
    with the address. Raises UsageError for an unknown jail."""

    def work(transaction: Transaction) -> _Desk:
        desk = _Desk(context, transaction, name)
        desk.lifted.update(entries)
        jails = desk.jails
        if name in desk.world.book.groups:
            jails = list(desk.world.book.groups[name].jails)
        for entry in entries:
            before = len(desk.done)
            for network, counting in desk.counted_networks(entry, jails).items():
                desk.lift(network, counting, quiet=True)
            desk.lift(entry, jails, quiet=len(desk.done) > before)
            desk.note_covering_networks(entry, jails)
        return desk

    return _carry_out(context, name, work)


def blacklist_add(
    context: Context, name: str, entries: Sequence[str], *, force: bool, yes: bool, peers: Collection[str] = ()
) -> Report:
    """Ban `entries` for ever in the blacklist jail of the group that `name` is or belongs to; else as `ban` does."""

    def work(transaction: Transaction) -> _Desk:
        desk = _Desk(context, transaction, name)
        blacklist = desk.blacklist()
        for entry in entries:
            _check_width(entry, yes=yes)
            _check_allowed(desk.world, entry, blacklist, force=force)
            _check_peers(entry, () if force else peers)
        for entry in entries:
            desk.ban(entry, blacklist, FOREVER_DURATION, forced=force)
        return desk

    return _carry_out(context, name, work)


def blacklist_remove(context: Context, name: str, entries: Sequence[str]) -> Report:
    """Take `entries` out of a group's blacklist, forget their hits, and set their `count` to 0 in all its jails."""

    def work(transaction: Transaction) -> _Desk:
        desk = _Desk(context, transaction, name)
        blacklist = desk.blacklist()
        for entry in entries:
            before = len(desk.done)
            for network, counting in desk.counted_networks(entry, [blacklist]).items():
                desk.lift(network, counting, quiet=True)
                desk.clear_counts(network)
            desk.lift(entry, [blacklist], quiet=len(desk.done) > before)
            desk.clear_counts(entry)
        return desk

    return _carry_out(context, name, work)


def blacklisted(context: Context, name: str | None) -> list[AddressRecord]:
    """The bans in the blacklist jails of the group `name`, or of all."""

    def work(transaction: Transaction) -> list[AddressRecord]:
        book = load_world(context, transaction).book
        groups = book.groups.values() if name is None else [select_group(book, name)]
        jails = [group.blacklist.name for group in groups if group.blacklist]
        rows = transaction.addresses.in_force(context.now, jails) if jails else []
        return [row for row in rows if not row.whitelisted and entry_of(row)]

    return context.database.read(work)


def _check_width(entry: str, *, yes: bool) -> None:
    network = to_network(entry)
    if network.prefixlen == 0:
        raise RefusedError(f"{entry} is everybody: it is never banned")
    if network.is_multicast or network.is_unspecified or entry == "255.255.255.255":
        raise RefusedError(f"{entry} is no address from which anybody connects: it is never banned")
    widest = exceeded_width(entry)
    if widest is not None and not yes:
        holds = f" holds {network.num_addresses:,} addresses" if network.version == 4 else ""
        raise RefusedError(f"{entry}{holds or ' is a network'}, wider than /{widest}: say --yes if you mean it")


def _check_allowed(world: World, entry: str, jail: Jail, *, force: bool) -> None:
    allowance = world.allow.touching(entry, jail, protected=not force)
    if allowance is None:
        return
    word = "lies in" if covers(to_network(allowance.entry), to_network(entry)) else "holds"
    which = entry if allowance.entry == entry else f"{entry} {word} {allowance.entry}, which"
    if allowance.protected:
        raise RefusedError(f"{which} is protected ({allowance.why}): --force bans it all the same")
    raise RefusedError(f"{which} is allowed in {jail.name} ({allowance.why}): take it off that list first")


def _check_peers(entry: str, peers: Collection[str]) -> None:
    for peer in peers:
        if covers(to_network(entry), to_network(peer)):
            inside = "" if entry == peer else f", and lies in {entry}"
            raise RefusedError(
                f"{peer} is the address from which you are logged in{inside}: --force bans it all the same"
            )


def _event(row: AddressRecord, what: str, context: Context) -> Event:
    return Event(context.now, what, row.ip, row.jail, row.until, row.reason or "", context.config.node)


class _Desk:
    """One command at work inside a transaction: the world, the jails meant, and what was said so far."""

    def __init__(self, context: Context, transaction: Transaction, name: str | None) -> None:
        self.context, self.transaction = context, transaction
        self.world = load_world(context, transaction)
        self.name = name
        self.jails = select(self.world.book, name)
        self.done: list[str] = []
        self.failed: list[str] = []
        self.lifted: set[str] = set()

    def blacklist(self) -> Jail:
        """The blacklist jail of the group meant; raises UsageError when there is none."""
        group = self.world.book.groups[self.jails[0].group]
        if group.blacklist is None:
            raise UsageError(f"{group.name} has no blacklist: mcban blacklist enable -j {group.name}")
        return group.blacklist

    def row(self, entry: str, jail: Jail) -> AddressRecord:
        """The row of (entry, jail), a new one if there is none."""
        rows = self.transaction.addresses.get([entry], [jail.name])
        return rows[0] if rows else AddressRecord(entry, jail.name)

    def ban(self, entry: str, jail: Jail, duration: int | None, *, forced: bool) -> None:
        """Ban in one jail, or in the group's blacklist when the count there is used up."""
        now = self.context.now
        row = self.row(entry, jail)
        renewed = row.active and end_of(row, jail, now) > now
        same_end = duration is None or self._ends(now, duration) == row.until
        if renewed and same_end and row.forced >= forced:
            self.done.append(f"{entry} is banned in {jail.name} already, {until(row.until, now)}")
            return
        reason = BY_HAND
        group = self.world.book.groups[jail.group]
        target = None if renewed or jail.kind is Kind.BLACKLIST else promotion(group, jail, row.count)
        if target is not None:
            reason = f"{BY_HAND}, after {row.count} bans in {jail.name} (max_count {jail.max_count})"
            jail, duration, row = target, FOREVER_DURATION, self.row(entry, target)
            renewed, same_end = row.active and end_of(row, jail, now) > now, row.until == FOREVER
            if renewed and same_end and row.forced >= forced:
                self.done.append(f"{entry} is banned in {jail.name} already, for ever")
                return
        row.active, row.since, row.last_hit = True, row.since if renewed else now, now
        length = until(row.until, now)
        if not (renewed and same_end):
            granted = jail.bantime if duration is None else duration
            row.until, length = self._ends(now, granted), lasting(granted)
        row.count += not renewed
        row.blacklisted = jail.kind is Kind.BLACKLIST
        row.reason, row.host, row.lifted_after, row.forced = reason, self.context.config.node, None, forced
        self.transaction.addresses.save([row])
        self.transaction.events.add([_event(row, "blacklist" if row.blacklisted else "ban", self.context)])
        back = held_back(self.world, row, jail)
        self.done.append(f"{entry} banned in {jail.name} {length}" + (f"; not enforced: {back}" if back else ""))

    @staticmethod
    def _ends(now: int, duration: int) -> int:
        return FOREVER if duration == FOREVER_DURATION else now + duration

    def counted_networks(self, entry: str, jails: Sequence[Jail]) -> dict[str, list[Jail]]:
        """By network that holds `entry`, those of `jails` that count it as one attacker, or banned it as one, and in
        which nobody banned it by hand."""
        found: dict[str, dict[str, Jail]] = defaultdict(dict)
        for jail in jails:
            network = network_of(self.world.book.groups[jail.group], entry)
            if network is not None:
                found[network][jail.name] = jail
        known = {jail.name: jail for jail in jails}
        for wider, row in self._covering(entry, jails):
            if was_counted(row.reason):
                found[wider][row.jail] = known[row.jail]
            else:
                found[wider].pop(row.jail, None)
        return {network: list(some.values()) for network, some in found.items() if some}

    def _covering(self, entry: str, jails: Sequence[Jail]) -> Iterator[tuple[str, AddressRecord]]:
        """The bans in `jails` of networks wider than `entry` that hold it."""
        names = {jail.name for jail in jails}
        for row in self.transaction.addresses.covering(entry):
            if row.jail in names:
                yield row.ip, row

    def lift(self, entry: str, jails: Sequence[Jail], *, quiet: bool = False) -> None:
        """End the bans of `entry` in `jails` and forget its hits there; `quiet` says nothing when there is none."""
        now = self.context.now
        rows = {row.jail: row for row in self.transaction.addresses.get([entry], [jail.name for jail in jails])}
        banned = [jail for jail in jails if jail.name in rows and rows[jail.name].active]
        for jail in banned:
            row = rows[jail.name]
            row.until, row.lifted_after = min(end_of(row, jail, now), now), self.transaction.hits.last_number()
            row.active, row.blacklisted, row.forced = False, False, False
            self.transaction.addresses.save([row])
            event = Event(now, "lift", entry, jail.name, None, BY_HAND, self.context.config.node)
            self.transaction.events.add([event])
            self.done.append(f"{entry} lifted in {jail.name}")
            self.lifted.add(entry)
        self._forget(entry, jails, rows, [jail.name for jail in banned])
        if not banned and not quiet:
            self.done.append(f"{entry} is not banned {f'in {self.name}' if self.name else 'anywhere'}")

    def _forget(self, entry: str, jails: Sequence[Jail], rows: dict[str, AddressRecord], lifted: Sequence[str]) -> None:
        """Forget the hits of `entry` in `jails`, so that the next single failure bans nobody again. Those of a group
        whose every tier is meant, or whose blacklist held the entry, are dropped; else they are kept for the other
        tiers."""
        known = self.transaction.hits.of([entry])
        names = {jail.name for jail in jails}
        for group in {jail.group: self.world.book.groups[jail.group] for jail in jails}.values():
            numbers = [
                number_of(one) for (name, _), some in known.items() if of_group(name, group.name) for one in some
            ]
            from_blacklist = group.blacklist is not None and group.blacklist.name in lifted
            if numbers and (from_blacklist or names >= {tier.name for tier in group.tiers}):
                self.transaction.hits.forget([entry], group.name)
                continue
            for tier in group.tiers:
                row = rows.get(tier.name) or AddressRecord(entry, tier.name, last_hit=self.context.now)
                if tier.name in names and numbers and max(numbers) > (row.lifted_after or 0):
                    row.lifted_after = max(numbers)
                    self.transaction.addresses.save([row])

    def clear_counts(self, entry: str) -> None:
        """Set `count` to 0 in every jail of the group, and forget its hits."""
        group = self.world.book.groups[self.jails[0].group]
        for row in self.transaction.addresses.get([entry], [jail.name for jail in group.jails]):
            if row.count:
                self.done.append(f"{entry}: count in {row.jail} set from {row.count} to 0")
                row.count = 0
                self.transaction.addresses.save([row])
        self.transaction.hits.forget([entry], group.name)

    def note_covering_networks(self, entry: str, jails: Sequence[Jail]) -> None:
        """Say so when a ban of a wider network still refuses `entry`."""
        for wider, row in self._covering(entry, jails):
            self.failed.append(
                f"{entry} is still refused by the ban of {wider} in {row.jail}: unban that, or whitelist {entry}"
            )


def until(end: int | None, now: int) -> str:
    """An end for a person: `for ever`, `for 6d 23h`."""
    if end is None or end >= FOREVER:
        return "for ever"
    return f"for {about(max(0, end - now))}"


@contextmanager
def written(done: Sequence[str]) -> Iterator[None]:
    """Around the sync that follows on what was `done` in SQL: a FirewallError that it raises says so, lest somebody
    take it for undone."""
    try:
        yield
    except FirewallError as error:
        if not done:
            raise
        said = "; ".join(done[:MOST_TOLD]) + ("; …" if len(done) > MOST_TOLD else "")
        raise FirewallError(f"{error}; the database has it all the same: {said}") from error


def _carry_out(context: Context, name: str | None, work: Callable[[Transaction], _Desk]) -> Report:
    """Ask the kernel whether it would listen, write SQL, then bring the groups concerned to it. Raises FirewallError
    with what was written, where the kernel does not do all of it after all."""
    context.firewall.stands()
    desk = context.database.write(work)
    groups = {jail.group for jail in desk.jails}
    with written(desk.done):
        outcome = sync(context, groups if name is not None else None, meant=desk.lifted)
    refused = [f"not enforced: {line}" for line in summarise(outcome.refusals)]
    return Report(tuple(desk.done), tuple(desk.failed + refused))
