"""The hits that a tier may still ask for, and how many there were in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter

from sqlalchemy import Connection, bindparam, case, delete, func, literal, or_, select, update

from mcban.core.model import AT_NODE, Hit, stamp
from mcban.store.tables import HITS, TOTALS, TURN
from mcban.store.upsert import insert_rows, slices, upsert

LOGIN_LENGTH = 250
"""Characters of a login name that are kept: it is the attacker's text."""

PURGE_STEP = 20_000
"""Rows that are looked at in one step for what is too old: some milliseconds."""


def _storable(login: str) -> str:
    """A login name as SQL takes it: cut, and without lone surrogates."""
    kept = login[:LOGIN_LENGTH]
    return kept if kept.isascii() else kept.encode("utf-8", "replace").decode("utf-8")


# Made once: for a single hit, putting a question together takes longer than the answer.
_OF = select(HITS.c.jail_group, HITS.c.ip, HITS.c.at, HITS.c.id).where(HITS.c.ip.in_(bindparam("ips", expanding=True)))
_OF_GROUP = _OF.where(HITS.c.jail_group == bindparam("of_group"))
_LAST_HIT = select(TURN.c.last_hit)
_GIVEN = update(TURN).values(last_hit=bindparam("last"))


class HitTable:
    """Reads and writes `mcban_hit` and `mcban_total`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, ips: Collection[str], group: str | None = None) -> dict[tuple[str, str], list[int]]:
        """The kept hits of `ips`, by (group, address), each as ascending stamps (`model.stamp`)."""
        found: dict[tuple[str, str], list[int]] = {}
        for some in slices(list(ips)):
            query, values = (_OF, {"ips": some}) if group is None else (_OF_GROUP, {"ips": some, "of_group": group})
            for name, ip, at, number in self._connection.execute(query, values):
                if isinstance(at, int) and isinstance(number, int):  # SQLite takes any text for a number
                    found.setdefault((name, ip), []).append(stamp(at, number))
        for hits in found.values():
            hits.sort()
        return found

    def logins(self, ip: str) -> dict[str, list[str]]:
        """The login names tried by `ip` in its kept hits, by group, the newest last."""
        query = select(HITS.c.jail_group, HITS.c.login).where(HITS.c.ip == ip, HITS.c.login.is_not(None))
        found: dict[str, list[str]] = {}
        for group, login in self._connection.execute(query.order_by(HITS.c.id)):
            found.setdefault(group, []).append(login)
        return found

    def first_free(self) -> int:
        """The number for the next hit. What `add` numbers from here on is right only within a writing transaction."""
        return self.last_number() + 1

    def add(self, hits: Iterable[tuple[int, Hit]], last: int, name: str | None = None) -> None:
        """Keep these (number, hit), under `name` where that is not their group's; `last` is the highest number that was
        given out."""
        rows = [
            (ip, name or group, number, at, _storable(login) if login else None)
            for number, (at, ip, group, login) in hits
        ]
        rows.sort(key=itemgetter(0))  # neighbours in SQL: half of the time
        insert_rows(self._connection, HITS, ("ip", "jail_group", "id", "at", "login"), rows)
        self._connection.execute(_GIVEN, {"last": last})

    def drop(self, group: str, hits: Collection[tuple[str, int]]) -> None:
        """Stop keeping these (address, number) of `group`."""
        if hits:
            c = HITS.c
            one = (c.ip == bindparam("of"), c.jail_group == group, c.id == bindparam("number"))
            self._connection.execute(delete(HITS).where(*one), [{"of": ip, "number": number} for ip, number in hits])

    def forget(self, ips: Collection[str], group: str) -> None:
        """Drop all hits of `ips` in `group`, at whatever node they are counted."""
        name = HITS.c.jail_group
        there = or_(name == group, name.startswith(f"{group}{AT_NODE}", autoescape=True))
        for some in slices(list(ips)):
            self._connection.execute(delete(HITS).where(HITS.c.ip.in_(some), there))

    def last_number(self) -> int:
        """The highest number that a hit was given, be it kept or not."""
        return int(self._connection.execute(_LAST_HIT).scalar_one())

    def purge(self, befores: Mapping[str, int], otherwise: int, after: str = "", rows: int = PURGE_STEP) -> str:
        """Drop what is too old among the next `rows` rows, those of addresses behind `after`: up to the time that
        `befores` has for a hit's group, or up to `otherwise`. Returns the address it came to, "" at the end of all.

        The table is walked through in its own order, since an index by time would cost each hit half as much again.
        """
        c = HITS.c
        end = self._connection.execute(select(c.ip).where(c.ip > after).order_by(c.ip).offset(rows).limit(1)).scalar()
        before = case(dict(befores), value=c.jail_group, else_=otherwise) if befores else literal(otherwise)
        slice_ = (c.ip > after,) if end is None else (c.ip > after, c.ip <= end)
        self._connection.execute(delete(HITS).where(*slice_, c.at <= before))
        return "" if end is None else end

    def add_totals(self, counts: Mapping[str, int]) -> None:
        """Count hits per group for ever."""
        rows = [{"jail_group": group, "hits": n} for group, n in sorted(counts.items())]
        upsert(self._connection, TOTALS, ["jail_group"], rows, added=["hits"])

    def totals(self) -> dict[str, int]:
        """All hits that there ever were, by group."""
        rows = self._connection.execute(select(TOTALS.c.jail_group, TOTALS.c.hits))
        return {group: hits for group, hits in rows if isinstance(hits, int)}

    def kept(self) -> dict[str, int]:
        """The hits kept, by group."""
        query = select(HITS.c.jail_group, func.count()).group_by(HITS.c.jail_group)
        found: Counter[str] = Counter()
        for name, count in self._connection.execute(query):
            found[str(name).partition(AT_NODE)[0]] += count
        return dict(found)
