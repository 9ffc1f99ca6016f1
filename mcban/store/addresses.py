"""The rows of `fail2ban_ips`: what is known of an address or network in a jail."""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    LargeBinary,
    ScalarSelect,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)

from mcban.core.address import wider_networks
from mcban.store.epoch import epoch
from mcban.store.tables import IPS, NO, YES, Blob, read_text, to_datetime
from mcban.store.upsert import slices, upsert_rows

_COLUMNS = (
    IPS.c.ip,
    IPS.c.jail,
    IPS.c.count,
    IPS.c.active,
    IPS.c.blacklisted,
    IPS.c.whitelisted,
    IPS.c.since,
    IPS.c.until,
    IPS.c.last_hit,
    IPS.c.reason,
    IPS.c.host,
    IPS.c.lifted_after,
    IPS.c.forced,
)
# Made once: for a single hit, putting a question together takes longer than the answer.
_OF = select(*_COLUMNS).where(IPS.c.ip.in_(bindparam("ips", expanding=True)))
_OF_JAILS = _OF.where(IPS.c.jail.in_(bindparam("jails", expanding=True)))
_NAMES = tuple(column.name for column in _COLUMNS)
_NUMBERS = {"count": 0, "lifted_after": None}
_TIMES = ("since", "until", "last_hit")
_ACTIVE = IPS.c.active == YES
_RENEWED = and_(IPS.c.last_hit.is_not(None), IPS.c.last_hit >= IPS.c.until)
REASON_LENGTH = 250
EXPIRE_STEP = 5_000
"""Bans that are marked as ended in one transaction: a fraction of a second."""
PURGE_STEP = 5_000
"""Rows that are looked at in one step for what may go: likewise, also when all of them go."""
MOST = 2**31 - 1
"""What a count goes to: MariaDB's column holds no more."""


@dataclass(slots=True)
class AddressRecord:
    """One row; times in seconds since the epoch. `until` None in an active row: not worked out yet."""

    ip: str
    jail: str
    count: int = 0
    active: bool = False
    blacklisted: bool = False
    whitelisted: bool = False
    since: int | None = None
    until: int | None = None
    last_hit: int | None = None
    reason: str | None = None
    host: str = ""
    lifted_after: int | None = None
    forced: bool = False


def to_seconds(at: datetime | None) -> int | None:
    """Aware datetime to seconds since the epoch."""
    return None if at is None else calendar.timegm(at.utctimetuple())


def _select(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS).where(*conditions)


class AddressTable:
    """Reads and writes `fail2ban_ips`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, ips: Collection[str], jails: Collection[str] | None = None) -> list[AddressRecord]:
        """The rows of `ips`, in `jails` if given."""
        found: list[AddressRecord] = []
        for some in slices(list(ips)):
            if jails is None:
                found += self._records(_OF, {"ips": some})
            else:
                found += self._records(_OF_JAILS, {"ips": some, "jails": list(jails)})
        return found

    def in_force(self, now: int, jails: Collection[str] | None = None) -> list[AddressRecord]:
        """The bans that run at `now`, those whose end is not worked out yet among them, oldest first."""
        query = select(*_COLUMNS).where(_ACTIVE, or_(IPS.c.until.is_(None), IPS.c.until > to_datetime(now)))
        if jails is not None:
            query = query.where(IPS.c.jail.in_(list(jails)))
        return list(self._records(query.order_by(IPS.c.id)))

    def page(
        self, after: int, now: int, jails: Collection[str], limit: int
    ) -> tuple[int | None, list[tuple[str, str, int | None, int | None]]]:
        """The bans of `jails` that run at `now`, in the rows numbered after `after`, of which `limit` are looked at, as
        (ip, jail, end, last hit), the end None where it is not worked out yet; and the number to go on from, None at
        the end."""
        numbers = select(IPS.c.id).where(IPS.c.id > after).order_by(IPS.c.id).limit(limit).subquery()
        last = self._connection.execute(select(func.max(numbers.c.id))).scalar()
        if last is None:
            return None, []
        ip, jail = (type_coerce(column, String()) for column in (IPS.c.ip, IPS.c.jail))
        query = select(ip, jail, epoch(IPS.c.until), epoch(func.coalesce(IPS.c.last_hit, IPS.c.since)))
        query = query.where(IPS.c.id > after, IPS.c.id <= last, _ACTIVE)
        query = query.where(or_(IPS.c.until.is_(None), IPS.c.until > to_datetime(now)))
        query = query.where(func.coalesce(IPS.c.whitelisted, NO) == NO).order_by(IPS.c.id)
        known = set(jails)
        return last, [
            (read_text(row[0]), row[1], row[2], row[3]) for row in self._connection.execute(query) if row[1] in known
        ]

    def running(self, now: int, jails: Collection[str]) -> Iterator[tuple[str, str, int | None, bool]]:
        """The bans of `jails` that run at `now` by an end that is worked out, as (ip, jail, end, special), in bulk.
        An end that cannot be read is None; `special` are rows that allow, or were forced."""
        special = or_(IPS.c.whitelisted == YES, IPS.c.forced == YES)
        # As plain strings: what their own type does for each row of a hundred thousand is felt.
        ip, jail = (type_coerce(column, String()) for column in (IPS.c.ip, IPS.c.jail))
        query = select(ip, jail, epoch(IPS.c.until), special)
        query = query.where(_ACTIVE, IPS.c.until > to_datetime(now))
        known = set(jails)
        for address, name, end, odd in self._connection.execute(query):
            if name in known:
                yield read_text(address), name, end, bool(odd)

    def running_counts(self, jails: Collection[str], early: int, late: int) -> dict[str, tuple[int, int]]:
        """By jail, how many bans with an end that is worked out run after `late` and after `early`: the fewest and the
        most that the kernel can hold if its clock is between the two."""

        found: dict[str, tuple[int, int]] = {}
        names, times = list(jails), {"early": to_datetime(early), "late": to_datetime(late)}
        for start in range(0, len(names), _COUNTED_AT_ONCE):
            some = names[start : start + _COUNTED_AT_ONCE]
            asked = {f"jail{n}": name for n, name in enumerate(some)}
            for n, fewest, between in self._connection.execute(_counting(len(some)), {**times, **asked}):
                found[some[n]] = fewest, fewest + between
        return found

    def allowing(self) -> list[AddressRecord]:
        """The rows that allow."""
        return list(self._records(select(*_COLUMNS).where(IPS.c.whitelisted == YES).order_by(IPS.c.id)))

    def unsettled(self, now: int) -> list[AddressRecord]:
        """The active rows whose end is not worked out yet: someone's plain SQL made them, or renewed them, which
        shows in a last hit after their end."""
        over = and_(IPS.c.until <= to_datetime(now), _RENEWED)
        # One after the other, for each is answered by an index.
        return [row for ends in (IPS.c.until.is_(None), over) for row in self._records(_select(_ACTIVE, ends))]

    def unsigned(self, now: int) -> list[AddressRecord]:
        """The running bans with an end of their own but no beginning: someone's plain SQL made them."""
        # The end is looked at here, lest SQLite take the index of ends, which leads to every running ban.
        rows = self._records(_select(_ACTIVE, IPS.c.since.is_(None)))
        return [row for row in rows if row.until is not None and row.until > now]

    def ended_by_sql(self, now: int) -> list[AddressRecord]:
        """The rows that someone's plain SQL made inactive before their end."""
        early = and_(IPS.c.until > to_datetime(now), IPS.c.lifted_after.is_(None))
        unmarked = (IPS.c.active == NO, IPS.c.active.is_(None))
        return [row for inactive in unmarked for row in self._records(_select(inactive, early))]

    def covering(self, entry: str) -> list[AddressRecord]:
        """The active bans of networks that hold the address or network `entry` and more. They are asked for by name,
        since to look for a "/" in every ban takes longer with each."""
        return [row for row in self.get(wider_networks(entry)) if row.active]

    def save(self, records: Iterable[AddressRecord]) -> None:
        """Insert the rows, or replace those of the same (ip, jail)."""
        rows = [_row_of(record) for record in records]
        for place, column in enumerate((IPS.c.ip, IPS.c.jail)):
            for row in rows:
                if isinstance(row[place], Blob):
                    self._to_bytes(column, row[place].raw)
        upsert_rows(self._connection, IPS, ("ip", "jail"), _NAMES, rows)

    def _to_bytes(self, column: ColumnElement[Any], raw: bytes) -> None:
        """Let text that is no UTF-8, which cannot be asked for, be the bytes as which it was read."""
        if raw.decode("utf-8", "ignore").encode() == raw:
            return  # these are bytes already: as text they would be another row
        data = cast(column, LargeBinary)
        change = update(IPS).prefix_with("OR IGNORE").where(func.typeof(column) == "text", data == raw)
        self._connection.execute(change.values({column: data}))

    def delete(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remove the rows of these (ip, jail)."""
        for ip, jail in keys:
            self._connection.execute(delete(IPS).where(IPS.c.ip == ip, IPS.c.jail == jail))

    def any_over(self, now: int) -> bool:
        """Whether some ban has ended and is not marked so yet."""
        query = select(IPS.c.id).where(_ACTIVE, IPS.c.until <= to_datetime(now), ~_RENEWED).limit(1)
        return self._connection.execute(query).first() is not None

    def expire(self, now: int, rows: int = EXPIRE_STEP) -> list[tuple[str, str, int]]:
        """Mark bans that have ended as no longer active, `rows` of them at the most; returns their (ip, jail, end)."""
        over = (_ACTIVE, IPS.c.until <= to_datetime(now), ~_RENEWED)
        ended = self._connection.execute(select(IPS.c.id, IPS.c.ip, IPS.c.jail, IPS.c.until).where(*over).limit(rows))
        found = ended.all()
        for some in slices([row.id for row in found]):
            ending = update(IPS).where(IPS.c.id.in_(some))
            self._connection.execute(ending.values(active=False, blacklisted=False, forced=False))
        return [(row.ip, row.jail, to_seconds(row.until) or 0) for row in found]

    def purge(self, before: int, after: int = 0, rows: int = PURGE_STEP) -> int:
        """Drop, among the next `rows` rows behind the number `after`, those that hold and allow nobody and whose ban
        ended before `before`; where no end is known, those last hit before. Returns the number it came to, 0 at the end
        of all."""
        c = IPS.c
        end = self._connection.execute(
            select(c.id).where(c.id > after).order_by(c.id).offset(rows - 1).limit(1)
        ).scalar()
        slice_ = (c.id > after,) if end is None else (c.id > after, c.id <= end)
        idle = (func.coalesce(c.active, NO) != YES, func.coalesce(c.whitelisted, NO) != YES)
        old = func.coalesce(c.until, c.last_hit) < to_datetime(before)
        self._connection.execute(delete(IPS).where(*slice_, *idle, old))
        return end or 0

    def counts(self, now: int) -> dict[str, tuple[int, int]]:
        """By jail: the bans that run at `now`, and the bans that there ever were."""
        running = (
            _ACTIVE
            & (func.coalesce(IPS.c.whitelisted, NO) == NO)
            & or_(IPS.c.until.is_(None), IPS.c.until > to_datetime(now))
        )
        ever_in = case((IPS.c.count.between(0, MOST), IPS.c.count), else_=0)
        query = select(IPS.c.jail, func.sum(case((running, 1), else_=0)), func.sum(ever_in)).group_by(IPS.c.jail)
        return {jail: (int(now_in), int(ever)) for jail, now_in, ever in self._connection.execute(query)}

    def _records(self, query: Select[Any], values: dict[str, Any] | None = None) -> Iterator[AddressRecord]:
        for row in self._connection.execute(query, values):
            values = row._asdict()
            for name in _TIMES:
                values[name] = to_seconds(values[name])
            for name in ("active", "blacklisted", "whitelisted"):
                values[name] = bool(values[name])
            for name, otherwise in _NUMBERS.items():
                if not isinstance(values[name], int):  # SQLite takes any text for a number
                    values[name] = otherwise
            yield AddressRecord(**values)


_COUNTED_AT_ONCE = 64
"""Jails that one statement counts; SQLite takes 500 parts of one."""


@lru_cache
def _counting(jails: int) -> CompoundSelect[Any]:
    """Asks of so many jails for the bans that run after `late`, and for those that end between `early` and that."""

    def count(n: int, *until: ColumnElement[bool]) -> ScalarSelect[int]:
        # Each is answered by an index alone: counting a hundred thousand takes 5 ms.
        return select(func.count()).where(IPS.c.jail == bindparam(f"jail{n}"), _ACTIVE, *until).scalar_subquery()

    late, over = IPS.c.until > bindparam("late"), IPS.c.until <= bindparam("late")
    early = IPS.c.until > bindparam("early")
    return union_all(*(select(literal_column(str(n)), count(n, late), count(n, early, over)) for n in range(jails)))


def _row_of(record: AddressRecord) -> tuple[Any, ...]:
    """The values of _COLUMNS. Spelt out, for there may be ten thousand."""
    return (
        record.ip,
        record.jail,
        min(record.count, MOST),
        record.active,
        record.blacklisted,
        record.whitelisted,
        record.since,
        record.until,
        record.last_hit,
        record.reason[:REASON_LENGTH] if record.reason else None,
        record.host,
        record.lifted_after,
        record.forced,
    )
