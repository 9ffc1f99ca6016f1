"""Bans that somebody's plain SQL made, renewed or lifted: what such a row leaves out is worked out here.

The original wrote its rows so, and administrators do: `active` is all that they need to set.
"""

from __future__ import annotations

from mcban.core.model import Jail, Kind
from mcban.errors import printable
from mcban.service.context import Context, World
from mcban.service.sync import end_of, entry_of
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event

BY_SQL = "by SQL"


def settle_bans(context: Context, transaction: Transaction, world: World) -> list[str]:
    """Give rows that plain SQL made active the end that they imply, and their address its canonical form; let those
    that it made inactive count from zero. Returns what was done, one line each."""
    said = []
    for row in [*transaction.addresses.unsettled(context.now), *transaction.addresses.unsigned(context.now)]:
        jail, entry = world.book.jails.get(row.jail), entry_of(row)
        if row.whitelisted and row.until is None:
            row.active = False  # `active` is 1 by default: no ban may come of that once the row allows no more
            transaction.addresses.save([row])
        if row.whitelisted or jail is None:
            continue
        if entry is None:
            row.active, row.until, row.reason = False, None, "not an address or network that can be banned"
            transaction.addresses.save([row])
            said.append(f"{printable(row.ip)} in {row.jail}: {row.reason}")
            continue
        said.append(_settle(context, transaction, row, jail, entry))
    ended = transaction.addresses.ended_by_sql(context.now)
    return said + [_lift(context, transaction, world, row) for row in ended]


def is_half_said(row: AddressRecord, now: int) -> bool:
    """Whether `settle_bans` may have something to do for a row: what it asks SQL for, asked of one row."""
    until = row.until
    if not row.active:
        return until is not None and until > now and row.lifted_after is None
    if until is None:
        return True
    return row.since is None if until > now else row.last_hit is not None and row.last_hit >= until


def _settle(context: Context, transaction: Transaction, row: AddressRecord, jail: Jail, entry: str) -> str:
    now = context.now
    own_end = row.until is not None and row.until > now
    renewed = row.until is not None and not own_end
    if not own_end:
        row.until = None
        row.until = end_of(row, jail, now)
    row.since = (row.last_hit if renewed else row.since or row.last_hit) or now
    row.count, row.lifted_after = max(row.count, 1), None
    row.reason = BY_SQL if renewed else row.reason or BY_SQL
    row.blacklisted = row.blacklisted or jail.kind is Kind.BLACKLIST
    if entry != row.ip:
        transaction.addresses.delete([(row.ip, row.jail)])
        row.ip = entry
        for known in transaction.addresses.get([entry], [row.jail]):
            _join(row, known)
    transaction.addresses.save([row])
    transaction.events.add([Event(now, "ban", entry, row.jail, row.until, BY_SQL, row.host or context.config.node)])
    return f"{entry} banned in {row.jail} by SQL"


def _join(row: AddressRecord, known: AddressRecord) -> None:
    """Let a row in another spelling of an address that is known already add to what is known."""
    row.count = max(row.count, known.count + 1)
    row.whitelisted = known.whitelisted
    row.forced = row.forced or known.forced
    if known.active:
        row.until = max(row.until or 0, known.until or 0)
        row.count, row.since = max(known.count, 1), known.since or row.since


def _lift(context: Context, transaction: Transaction, world: World, row: AddressRecord) -> str:
    row.until, row.blacklisted, row.forced = context.now, False, False
    row.lifted_after = transaction.hits.last_number()
    transaction.addresses.save([row])
    jail = world.book.jails.get(row.jail)
    if jail is not None and jail.kind is Kind.BLACKLIST:
        transaction.hits.forget([entry_of(row) or row.ip], jail.group)
    transaction.events.add([Event(context.now, "lift", row.ip, row.jail, None, BY_SQL, context.config.node)])
    return f"{printable(row.ip)} lifted in {printable(row.jail)} by SQL"
