"""Taking the original's database over, in place or from another one. What its rows mean to us: heritage.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcban.core import ladder
from mcban.core.duration import FOREVER_DURATION
from mcban.errors import ConfigError, UsageError, printable
from mcban.service.context import Context
from mcban.service.heritage import Inheritance
from mcban.service.jails import read_book
from mcban.service.sources import find_sources
from mcban.store import original as store
from mcban.store import schema
from mcban.store.access import Access
from mcban.store.database import Database, Transaction
from mcban.store.jails import JailRecord
from mcban.store.original import Heritage, Original, Standing


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was done, or would be, one line each; and what somebody has to mend."""

    done: tuple[str, ...]
    to_mend: tuple[str, ...] = ()


def adopt(context: Context, *, check: bool = False) -> Adopted:
    """Take over the context's own database, where it is; with `check` only say what that would do.

    Raises ConfigError for a database that is not there, or has no tables of the original; DataError, DatabaseError,
    NoPermissionError, RefusedError when it cannot be done: then the tables are as they were.
    """
    database = context.database
    _require_file(database, writable=True)
    now = store.standing(database)
    if now in {Standing.OURS, Standing.ADOPTED}:
        schema.require(database)
        kept = "; what it was made from is kept in mcban_adopted_…" if now is Standing.ADOPTED else ""
        return Adopted((f"{database.shown_url} is mcban's already{kept}",))
    if now is Standing.COPIED:
        if not check:
            store.finish(database)
        return Adopted((f"{database.shown_url} was copied already; its old tables are kept as mcban_adopted_…",))
    works = _Adoption(context, "mcban_adopted_ips")
    if check or now is Standing.NOTHING:
        works.inherit(store.look(database))
    else:
        store.take_over(database, works.inherit)
    kept = "the tables of the original are kept as mcban_adopted_jail, mcban_adopted_ips, mcban_adopted_conf"
    return works.report((kept,), check=check)


def adopt_from(
    context: Context, url: str, *, check: bool = False, opened: Callable[[Database], object] = lambda _: None
) -> Adopted:
    """Copy what the original's database at `url` holds into the context's own; with `check` only say what that would
    do. The other database is only read, and shown to `opened` before it is asked for anything. A database that is new
    gets the jails, too; in one that is in use, what is there already is left as it is, so that it can be done again for
    what has come since. Raises as `adopt` does."""
    source = Database(Access((url,), named="--from"))
    try:
        opened(source)
        _require_file(source, writable=False)
        if store.standing(source) in {Standing.OURS, Standing.ADOPTED, Standing.COPIED}:
            raise UsageError(f"{source.shown_url} is mcban's own: name it in the settings, as database.url, to use it")
        works = _Adoption(context, "fail2ban_ips there")
        heritage = works.inherit(store.look(source))
    finally:
        source.dispose()
    if context.database.has_file() and schema.current(context.database) is not None:
        schema.require(context.database)
        merge = context.database.read if check else context.database.write
        return works.report(merge(lambda t: _merge(t, heritage, check=check)), check=check)
    if not check:
        schema.upgrade(context.database, after=lambda c: store.write(Transaction(c), heritage, all_jails=True))
    return works.report((), check=check)


def _require_file(database: Database, *, writable: bool) -> None:
    # To look for it in SQL would make an empty one.
    if not database.has_file(writable=writable):
        raise ConfigError(f"{database.shown_url} does not exist: is it the right one?")


def _merge(transaction: Transaction, heritage: Heritage, *, check: bool) -> tuple[str, ...]:
    """Add what is not there yet; returns what was left as it is."""
    there = {row.name: row for row in transaction.jails.all()}
    ips = list(dict.fromkeys(record.ip for record in heritage.records))
    known = {(row.ip, row.jail) for row in transaction.addresses.get(ips)}
    fresh = not transaction.addresses.counts(0) and set(there.values()) == _shipped()
    said: list[str] = []
    jails = heritage.jails if fresh else [jail for jail in heritage.jails if jail["name"] not in there]
    if not fresh:
        for jail in heritage.jails:
            row = there.get(jail["name"])
            odd = [k for k, v in row.values().items() if k in jail and jail[k] != v] if row else []
            if odd:
                said.append(f"{printable(jail['name'])} is here already, with another {', '.join(odd)}: left as it is")
    records = [record for record in heritage.records if (record.ip, record.jail) not in known]
    new = {(record.ip, record.jail) for record in records}
    left = len(heritage.records) - len(records)
    if left:
        said.append(f"{left} of {len(heritage.records)} rows are here already: left as they are")
    if not check:
        events = [event for event in heritage.events if (event.ip, event.jail) in new]
        store.write(transaction, Heritage(jails, records, events, heritage.conf if fresh else []), all_jails=fresh)
    return tuple(said)


def _shipped() -> set[JailRecord]:
    """The jails of a new database."""
    made = set()
    for group in ladder.SHIPPED:
        common = (group.port, group.filter, "mc-custom", group.logpath, ladder.DEFAULT_MAX_COUNT)
        for step in ladder.generate(group.hits):
            name = ladder.tier_name(group.name, step.suffix)
            made.add(JailRecord(name, True, step.maxretry, step.findtime, step.bantime, *common))
        made.add(JailRecord(group.name + ladder.BLACKLIST_SUFFIX, True, 0, 0, FOREVER_DURATION, *common))
    return made


class _Adoption:
    """One adoption, and what there is to say of it."""

    def __init__(self, context: Context, kept: str) -> None:
        self._context, self._kept = context, kept
        self._said: list[str] = []
        self._to_mend: list[str] = []

    def inherit(self, original: Original) -> Heritage:
        """What is to be written."""
        works = Inheritance(self._context.now, self._context.config.node, self._kept)
        heritage = works.inherit(original)
        records = [
            JailRecord(**{key: value for key, value in jail.items() if not key.startswith("send_mail")})
            for jail in heritage.jails
        ]
        book = read_book(records, self._context.host.port_number, self._context.config.firewall_chains)
        _, unreadable = find_sources(self._context, book)
        self._said = works.said
        self._to_mend = [*works.to_mend, *(str(fault) for fault in (*book.faults, *unreadable))]
        return heritage

    def report(self, more: Sequence[str], *, check: bool) -> Adopted:
        """All that was said; what cannot be used as it is comes last."""
        done = (*self._said, *more, *(("nothing was changed",) if check else ()))
        return Adopted(done, tuple(self._to_mend))
