"""Bans from elsewhere and back: plain lists, and fail2ban's own database.

What is imported is not judged as an offence: `count` is not raised by a list, and nobody is promoted to a blacklist by
it. What is allowed or protected is skipped, and said. Imports are written in blocks, so that the engine and others come
to write in between; cut off, they are done again, and what is there already stays as it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from shlex import quote
from typing import TypeVar

from mcban.config import parse_allowed
from mcban.core.address import covers, exceeded_width, pack, parse_network, to_network
from mcban.core.allowlist import EVERYWHERE
from mcban.core.duration import FOREVER_DURATION
from mcban.core.entry_list import never_banned
from mcban.core.model import FOREVER, Jail, Kind
from mcban.errors import RefusedError, UsageError, printable
from mcban.firewall.base import summarise
from mcban.service.allow import allowances, lift_covered
from mcban.service.bans import Report, written
from mcban.service.context import Context
from mcban.service.jails import select
from mcban.service.sync import end_of, entry_of, sync
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event
from mcban.store.fail2ban import UNKNOWN, Fail2banBan

T = TypeVar("T")

BLOCK = 10_000
"""Rows in one transaction."""
SLACK = 60
"""Seconds by which a ban must become longer to be renewed: importing the same list again at once changes nothing."""
NAMED = 20
"""How many of a kind are named one by one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A ban, or only a count, as it comes from elsewhere. Times in seconds since the epoch. `until` None: as long as
    the jail bans, from `since`."""

    entry: str
    jail: str
    since: int
    until: int | None
    count: int
    reason: str
    running: bool = True
    noted: bool = False
    """Whether the log of decisions shall tell of it."""


@dataclass(slots=True)
class _Tally:
    """What came of the offers, by jail."""

    banned: Counter[str] = field(default_factory=Counter)
    renewed: Counter[str] = field(default_factory=Counter)
    already: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line for each jail and kind; who was skipped by name."""
        said = [f"{number} banned in {jail}" for jail, number in self.banned.items()]
        said += [f"{number} renewed in {jail}" for jail, number in self.renewed.items()]
        said += [f"{number} banned in {jail} already" for jail, number in self.already.items()]
        said += [f"{number} without a ban: count kept in {jail}" for jail, number in self.counted.items()]
        return said + _capped([f"skipped {entry}: {why}" for entry, why in self.skipped.items()])


def import_list(
    context: Context,
    name: str,
    entries: Collection[str],
    duration: int | None,
    source: str,
    *,
    yes: bool,
    peers: Collection[str] = (),
) -> Report:
    """Ban canonical `entries` in the jails that `name` means, for the jail's time or `duration` seconds (-1: for ever).

    Raises UsageError for an unknown jail and RefusedError for networks too wide; then nothing was changed.
    """
    context.database.read(lambda t: select(load_world(context, t).book, name))
    _check_widths(entries, yes=yes)
    now = context.now
    end = None if duration is None else FOREVER if duration == FOREVER_DURATION else now + duration
    reason = f"imported from {printable(source)}"
    offers = (Offer(entry, name, now, end, 1, reason) for entry in entries)
    return _import(context, offers, {name}, peers)


def import_fail2ban(
    context: Context,
    bans: Sequence[Fail2banBan],
    mapping: Mapping[str, str],
    *,
    yes: bool,
    peers: Collection[str] = (),
) -> Report:
    """Take over the bans of fail2ban that still run, with their ends, and how often each address was banned.

    `mapping` has fail2ban's jails to ours, "" to leave one out; others go to the jail of the same name. Raises
    UsageError for a mapping that names a jail which does not exist, RefusedError for networks too wide.
    """
    here = {ban.jail for ban in bans}
    book = context.database.read(lambda t: load_world(context, t)).book
    known = {*book.groups, *book.jails}
    for theirs, ours in mapping.items():
        if theirs not in here:
            there = f"there are {', '.join(map(printable, sorted(here)))}" if here else "it holds no bans"
            raise UsageError(f"fail2ban's database has no jail {printable(theirs)}: {there}")
        if ours:
            select(book, ours)
    offers: list[Offer] = []
    strange: dict[str, list[str]] = defaultdict(list)
    homeless: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for ban in bans:
        target = mapping.get(ban.jail, ban.jail)
        if not target:
            left_out[ban.jail] += 1
        elif target not in known:
            homeless[ban.jail] += 1
        elif (offer := _offer(ban, target, context.now)) is None:
            strange[ban.jail].append(ban.ip)
        else:
            offers.append(offer)
    _check_widths({offer.entry for offer in offers if offer.running}, yes=yes)
    report = _import(context, offers, {offer.jail for offer in offers}, peers)
    said = [f"{number} of {printable(jail)} left out, as asked" for jail, number in left_out.items()]
    for jail, some in strange.items():
        shown = ", ".join(f"'{printable(ip)}'" for ip in some[:5]) + (", …" if len(some) > 5 else "")
        said.append(f"{len(some)} of {printable(jail)} are no address or network that can be banned: {shown}")
    failed = [
        f"{number} of fail2ban's jail {printable(jail)} not taken over: there is no jail of that name here; "
        f"-j {quote(printable(jail))}=JAIL names one, -j {quote(printable(jail))}= leaves it out"
        for jail, number in homeless.items()
    ]
    return Report((*report.done, *said), (*report.failed, *failed))


def _offer(ban: Fail2banBan, target: str, now: int) -> Offer | None:
    try:
        entry = parse_network(ban.ip)
    except ValueError:
        return None
    if never_banned(entry):
        return None
    since = min(ban.at, now)
    end = None if ban.seconds == UNKNOWN else FOREVER if ban.seconds < 0 else ban.at + ban.seconds
    running = end is None or end > now
    reason = f"imported from fail2ban's {printable(ban.jail)}"
    return Offer(entry, target, since, end, ban.count, reason, running=running, noted=running)


def _check_widths(entries: Iterable[str], *, yes: bool) -> None:
    if yes:
        return
    for entry in entries:
        widest = exceeded_width(entry)
        if widest is not None:
            raise RefusedError(f"{entry} is wider than /{widest}: say --yes if you mean it")


def _import(context: Context, offers: Iterable[Offer], names: Collection[str], peers: Collection[str]) -> Report:
    """Write the offers, then bring the kernel to SQL."""
    context.firewall.stands()
    tally = _Tally()
    for block in _blocks(offers):
        done = context.database.write(partial(_take, context, block, peers))
        for mine, its in zip(_counters(tally), _counters(done), strict=True):
            mine.update(its)
        tally.skipped |= done.skipped
    book = context.database.read(lambda t: load_world(context, t)).book
    groups = {jail.group for name in names for jail in select(book, name)}
    with written(tally.lines()):
        refusals = sync(context, groups).refusals if groups else ()
    failed = [f"not enforced: {line}" for line in summarise(refusals)]
    return Report(tuple(tally.lines() or ["nothing to import"]), tuple(_capped(failed)))


def _counters(tally: _Tally) -> tuple[Counter[str], ...]:
    return tally.banned, tally.renewed, tally.already, tally.counted


def _blocks(some: Iterable[T]) -> Iterator[list[T]]:
    """What is written together."""
    rest = iter(some)
    while block := list(islice(rest, BLOCK)):
        yield block


def _take(context: Context, offers: Sequence[Offer], peers: Collection[str], transaction: Transaction) -> _Tally:
    """One block of offers, in one transaction."""
    world, tally = load_world(context, transaction), _Tally()
    jails = {name: select(world.book, name) for name in {offer.jail for offer in offers}}
    every = {jail.name: jail for some in jails.values() for jail in some}
    entries = {offer.entry for offer in offers}
    rows = {(row.ip, row.jail): row for row in transaction.addresses.get(entries, every)}
    held = {name: world.allow.touching_many(entries, jail) for name, jail in every.items()}
    logged_in = _holding(entries, peers)
    changed: dict[tuple[str, str], AddressRecord] = {}
    events: list[Event] = []
    for offer in offers:
        for jail in jails[offer.jail]:
            allowance = held[jail.name].get(offer.entry)
            if offer.running and (allowance is not None or offer.entry in logged_in):
                tally.skipped[offer.entry] = logged_in.get(offer.entry) or (
                    f"{'' if allowance is None else allowance.entry} is allowed in {jail.name} "
                    f"({'' if allowance is None else allowance.why})"
                )
                continue
            key = (offer.entry, jail.name)
            row = rows.setdefault(key, AddressRecord(*key))
            if _apply(context, offer, jail, row, tally):
                changed[key] = row
                if offer.noted:
                    what = "blacklist" if row.blacklisted else "ban"
                    events.append(
                        Event(context.now, what, row.ip, row.jail, row.until, offer.reason, context.config.node)
                    )
    transaction.addresses.save(changed.values())
    transaction.events.add(events)
    return tally


def _holding(entries: Iterable[str], peers: Collection[str]) -> dict[str, str]:
    """The entries that hold an address from which somebody is logged in who asks for all this."""
    found = {}
    for peer in peers:
        inside = to_network(peer)
        for entry in entries:
            if entry == peer or ("/" in entry and covers(to_network(entry), inside)):
                found[entry] = f"{peer} is the address from which you are logged in"
    return found


def _apply(context: Context, offer: Offer, jail: Jail, row: AddressRecord, tally: _Tally) -> bool:
    """Let an offer change a row; whether it did."""
    now = context.now
    runs = row.active and end_of(row, jail, now) > now and not row.whitelisted
    count = max(row.count, offer.count)
    if not offer.running:
        if count == row.count:
            return False
        row.count, row.last_hit = count, row.last_hit or offer.since
        if not row.active and row.until is None:
            row.until = offer.until
        tally.counted[jail.name] += 1
        return True
    end = offer.until
    if end is None:
        end = FOREVER if jail.bantime == FOREVER_DURATION else offer.since + jail.bantime
    if end <= now:  # of a ban whose length nobody knew
        row.count, changed = count, count != row.count
        tally.counted[jail.name] += changed
        return changed
    if runs and end_of(row, jail, now) + SLACK >= end and count == row.count:
        tally.already[jail.name] += 1
        return False
    if runs:
        tally.renewed[jail.name] += 1
        row.until = max(end_of(row, jail, now), end)
    else:
        tally.banned[jail.name] += 1
        row.active, row.since, row.last_hit, row.until = True, offer.since, offer.since, end
        row.reason, row.host, row.lifted_after, row.forced = offer.reason, context.config.node, None, False
    row.count, row.blacklisted = count, row.blacklisted or jail.kind is Kind.BLACKLIST
    return True


def import_allowed(context: Context, name: str | None, entries: Collection[str]) -> Report:
    """Allow canonical `entries` and host names in the jail or group `name`, or everywhere, and lift what they cover."""
    context.firewall.stands()
    scope = name or EVERYWHERE
    new = lifted = 0
    for block in _blocks(entries):

        def work(transaction: Transaction, block: Sequence[str] = block) -> tuple[int, int]:
            world = load_world(context, transaction)
            jails = {jail.name: jail for jail in select(world.book, name)}
            if name in world.book.groups:
                jails = {jail.name: jail for jail in world.book.groups[name].jails}
            rows = {row.ip: row for row in transaction.addresses.get(block, [scope])}
            changed = []
            for entry in block:
                row = rows.get(entry) or AddressRecord(entry, scope, last_hit=context.now)
                if not row.whitelisted:
                    row.whitelisted, row.host = True, context.config.node
                    changed.append(row)
            transaction.addresses.save(changed)
            node = context.config.node
            transaction.events.add(
                [Event(context.now, "allow", row.ip, scope, None, "imported", node) for row in changed]
            )
            return len(changed), len(lift_covered(context, transaction, jails, block))

        added, ended = context.database.write(work)
        new, lifted = new + added, lifted + ended
    where = f"in {name}" if name else "everywhere"
    said = [f"{new} allowed {where}"] * bool(new or not entries)
    said += [f"{len(entries) - new} allowed {where} already"] * (len(entries) > new)
    said += [f"{lifted} {'ban' if lifted == 1 else 'bans'} lifted"] * bool(lifted)
    with written(said):
        sync(context, meant=entries)
    return Report(tuple(said))


def _capped(lines: Sequence[str]) -> list[str]:
    more = len(lines) - NAMED
    return [*lines[:NAMED], *([f"… and {more} more"] if more > 0 else [])]


def export_bans(context: Context, name: str | None) -> Iterator[tuple[str, str, int | None]]:
    """The bans in force in the jails that `name` means, or in all, as (entry, jail, end), the end None for ever. Read
    page by page: however long whoever asks takes, nobody waits for him. Raises UsageError for an unknown jail."""
    book = context.database.read(lambda t: load_world(context, t)).book
    jails = {jail.name: jail for jail in select(book, name)}

    def pages() -> Iterator[tuple[str, str, int | None]]:
        last: int | None = 0
        while last is not None:
            after = last
            last, rows = context.database.read(
                lambda t: t.addresses.page(after, context.now, jails, BLOCK)  # noqa: B023  # called at once
            )
            now = context.now
            for ip, jail, end, last_hit in rows:
                if end is None:
                    end = end_of(AddressRecord(ip, jail, last_hit=last_hit), jails[jail], now)  # noqa: PLW2901
                entry = ip if pack(ip) else entry_of(AddressRecord(ip, jail))
                if entry is not None and end > now:
                    yield entry, jail, None if end >= FOREVER else end

    return pages()


def export_allowed(context: Context, name: str | None) -> Iterator[tuple[str, str]]:
    """What SQL allows in the jail or group `name`, or at all, as (address, network or host name; where)."""
    for row in allowances(context, name):
        with suppress(ValueError):  # what somebody's plain SQL says and nobody can use
            yield parse_allowed(row.ip.strip()), row.jail.strip() or EVERYWHERE
