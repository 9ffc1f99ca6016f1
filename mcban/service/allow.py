"""The whitelist in SQL: adding lifts what it covers, and wins over every ban."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mcban.config import parse_allowed
from mcban.core.address import Network, covers, pack, parse_network, to_network
from mcban.core.allowlist import EVERYWHERE, Screen
from mcban.core.model import Jail, Kind
from mcban.errors import RefusedError, UsageError, printable
from mcban.service.bans import BY_HAND, Report, written
from mcban.service.context import Context, World
from mcban.service.jails import select
from mcban.service.sync import end_of, entry_of, sync
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event


def parse_names(texts: Sequence[str]) -> list[str]:
    """Addresses, networks and host names from the command line; raises UsageError for the first that is none,
    RefusedError for everybody."""
    entries = []
    for text in texts:
        try:
            entries.append(parse_allowed(text))
        except ValueError as error:
            raise UsageError(printable(str(error))) from None
        if entries[-1].endswith("/0"):
            raise RefusedError(f"{entries[-1]} is everybody: to ban nobody, mcban general disable")
    return list(dict.fromkeys(entries))


def allow(context: Context, name: str | None, entries: Sequence[str]) -> Report:
    """Allow `entries` in the jail or group `name`, or everywhere, and lift the bans that they cover there."""
    context.firewall.stands()

    def work(transaction: Transaction) -> tuple[list[str], list[str]]:
        world = load_world(context, transaction)
        jails = {jail.name: jail for jail in select(world.book, name)}
        if name in world.book.groups:
            jails = {jail.name: jail for jail in world.book.groups[name].jails}
        said = [line for entry in entries for line in _allow(context, transaction, name, entry)]
        return said, lift_covered(context, transaction, jails, entries)

    said, lifted = context.database.write(work)
    with written([*said, *lifted]):
        sync(context, meant={*entries, *(line.split()[0] for line in lifted)})
    return Report((*said, *lifted))


def _allow(context: Context, transaction: Transaction, name: str | None, entry: str) -> list[str]:
    scope = name or EVERYWHERE
    rows = transaction.addresses.get([entry], [scope])
    row = rows[0] if rows else AddressRecord(entry, scope, last_hit=context.now)
    if row.whitelisted:
        said = [f"{entry} is allowed {_where(name)} already"]
    else:
        row.whitelisted, row.host = True, context.config.node
        transaction.addresses.save([row])
        transaction.events.add([_event(context, "allow", entry, scope)])
        said = [f"{entry} allowed {_where(name)}"]
    if entry_of(row) is None and not context.host.lookup(entry):
        said.append(f"{entry} has no address at the moment: it is looked up again once a minute")
    return said


def lift_covered(
    context: Context, transaction: Transaction, jails: Mapping[str, Jail], entries: Sequence[str]
) -> list[str]:
    """End the bans in `jails` that `entries` cover; returns what was done, one line each."""
    covering = [parse_network(e) for entry in entries for e in _addresses(context, entry)]
    networks = [to_network(entry) for entry in covering]
    screen = Screen(networks)
    if any("/" in entry for entry in covering):
        bans = transaction.addresses.in_force(context.now, list(jails))
    else:
        bans = [row for row in transaction.addresses.get(covering, list(jails)) if row.active]
    lifted: list[AddressRecord] = []
    events: list[Event] = []
    forgotten: dict[str, list[str]] = {}
    last = transaction.hits.last_number()
    for ban in bans:
        banned, jail = entry_of(ban), jails[ban.jail]
        if banned is None or not _is_covered(banned, screen, networks):
            continue
        ban.until = min(end_of(ban, jail, context.now), context.now)
        ban.active, ban.blacklisted, ban.forced = False, False, False
        ban.lifted_after = last
        lifted.append(ban)
        if jail.kind is Kind.BLACKLIST:
            forgotten.setdefault(jail.group, []).append(banned)  # or the next one would lead there again
        events.append(_event(context, "lift", banned, ban.jail))
    # Together: a network may cover a hundred thousand, and every other writer waits for this transaction.
    transaction.addresses.save(lifted)
    transaction.events.add(events)
    for group, some in forgotten.items():
        transaction.hits.forget(some, group)
    return [f"{event.ip} lifted in {event.jail}" for event in events]


def _is_covered(banned: str, screen: Screen, networks: Iterable[Network]) -> bool:
    """Whether one of `networks`, of which `screen` is made, holds all of `banned`. Single addresses, by far the most,
    are not compared with each: a list of customers may have thousands of them."""
    packed = pack(banned)
    if packed is not None:
        return screen.allows(packed)
    inner = to_network(banned)
    return any(covers(network, inner) for network in networks)


def lift_newly_allowed(context: Context, transaction: Transaction, world: World, before: World) -> list[str]:
    """End the bans that allowances cover which were not there `before`: plain SQL, settings or DNS made them. They do
    not come back when the allowance goes. Returns what was done, one line each."""
    known = set(before.allow.allowances)
    new: dict[str, list[str]] = {}
    for allowance in world.allow.allowances:
        if not allowance.protected and allowance not in known:
            new.setdefault(allowance.scope, []).append(allowance.entry)
    said: list[str] = []
    for scope, entries in new.items():  # together: thousands may have been imported, and each looks at every ban
        jails = {EVERYWHERE: world.book.jails}.get(scope) or {
            name: jail for name, jail in world.book.jails.items() if scope in {name, jail.group}
        }
        said += lift_covered(context, transaction, jails, entries)
    return said


def disallow(context: Context, name: str | None, entries: Sequence[str]) -> Report:
    """Allow `entries` no longer in the jail or group `name`, or everywhere it was said of all jails. Bans that an
    allowance lifted do not come back."""
    context.firewall.stands()

    def work(transaction: Transaction) -> list[str]:
        if name is not None:
            select(load_world(context, transaction).book, name)
        scope = name or EVERYWHERE
        said = []
        for entry in entries:
            rows = [row for row in transaction.addresses.get([entry], [scope]) if row.whitelisted]
            if not rows:
                elsewhere = [row.jail for row in transaction.addresses.get([entry]) if row.whitelisted]
                hint = f"; it is in {', '.join(elsewhere)}" if elsewhere else ""
                said.append(f"{entry} is not allowed {_where(name)}{hint}")
            for row in rows:
                # Plain SQL leaves `active` at its default, 1: no ban may come of that now. And what an allowed address
                # did is not counted afterwards.
                row.whitelisted, row.active, row.blacklisted, row.forced = False, False, False, False
                row.lifted_after, row.until = transaction.hits.last_number(), min(row.until or 0, context.now) or None
                transaction.addresses.save([row])
                transaction.events.add([_event(context, "disallow", entry, scope)])
                said.append(f"{entry} no longer allowed {_where(name)}")
        return said

    said = context.database.write(work)
    with written(said):
        sync(context)
    return Report(tuple(said))


def allowances(context: Context, name: str | None) -> list[AddressRecord]:
    """What SQL allows, in the jail or group `name` or at all."""

    def work(transaction: Transaction) -> list[AddressRecord]:
        rows = transaction.addresses.allowing()
        if name is None:
            return rows
        jails = select(load_world(context, transaction).book, name)
        scopes = {name, EVERYWHERE, "", *(jail.name for jail in jails), *(jail.group for jail in jails)}
        return [row for row in rows if row.jail in scopes]

    return context.database.read(work)


def _addresses(context: Context, entry: str) -> list[str]:
    try:
        return [parse_network(entry)]
    except ValueError:
        return context.host.lookup(entry)


def _where(name: str | None) -> str:
    return f"in {name}" if name else "everywhere"


def _event(context: Context, what: str, entry: str, jail: str) -> Event:
    return Event(context.now, what, entry, jail, None, BY_HAND, context.config.node)
