"""Hits to bans: the one place where what was read from logs is counted, decided and written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcban.core.escalation import Allowed, Record, Standing, counted_for, judge_all, seen_from
from mcban.core.model import Ban, Group, Hit, Jail, Position
from mcban.errors import DatabaseError
from mcban.service.context import Context, World
from mcban.service.memory import Memory
from mcban.service.sync import entry_of
from mcban.service.world import load_world
from mcban.store.addresses import AddressRecord
from mcban.store.database import Transaction
from mcban.store.events import Event

LONGEST_PREFIX = 128
"""From here on a group counts single addresses, of whatever family."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a batch led to: hits that counted, bans, the rows that hold them, and the world they were judged in; the
    numbers of the changes that were noted of it, as far as that is certain."""

    hits: int
    bans: tuple[Ban, ...]
    records: tuple[AddressRecord, ...]
    world: World
    noted: range = range(0)


class ForgottenError(DatabaseError):
    """The database lacks what it had confirmed: it crashed before that was on its disk, or a replica that was behind,
    or a backup, has taken its place."""


def record(
    context: Context,
    hits: Sequence[Hit],
    positions: Sequence[Position] = (),
    finished: Sequence[Position] = (),
    memory: Memory | None = None,
    *,
    batch: str = "",
    again: bool = False,
    after: str = "",
) -> Recorded:
    """Count `hits`, in their order, and commit them together with the positions of the logs up to which they were read.

    Everything is read, judged and written in one transaction, so that a hit is counted exactly once whatever happens.
    Whoever records batch after batch hands in the same `memory` each time. Raises DatabaseError with nothing written,
    save where a server's answer to the commit itself is lost: then nobody knows. So the caller gives each batch that
    has positions a name that no other ever had, and offers it `again` as it was: what was written by then is found,
    and not counted twice. `after` is the name of the batch that was written before; where a new connection leads to a
    database without it, ForgottenError is raised, for what was read since then is lost there.
    """
    known = Memory() if memory is None else memory
    tries = [again]

    def work(transaction: Transaction) -> Recorded:
        offered, tries[0] = tries[0], True
        if offered and batch and transaction.positions.written_by(context.config.node, batch):
            return _written(context, transaction, hits)
        if transaction.is_first:
            if after and not transaction.positions.written_by(context.config.node, after):
                raise ForgottenError(f"{context.database.shown_url} lacks what it had confirmed")
            transaction.meet()
        known.open(transaction.edition)
        world = known.world(context, transaction)
        # Nobody else's change can lie between ours where nobody else writes meanwhile.
        before = transaction.changes.last() if transaction.edition else None
        recorded = _count(context, transaction, world, hits, known)
        transaction.positions.save(context.config.node, positions, batch)
        transaction.positions.delete(context.config.node, finished)
        known.close(transaction.edition)
        if before is None or not recorded.bans:
            return recorded
        return replace(recorded, noted=range(before + 1, transaction.changes.last() + 1))

    try:
        return context.database.write(work)
    except BaseException:
        known.forget()
        raise


def is_written(context: Context, batch: str) -> bool:
    """Whether `batch` is in the database, and nothing newer of this node. Raises DatabaseError."""
    # By a writer: one node of a cluster may show later what another has taken, but it writes nothing before.
    return context.database.write(lambda t: t.positions.written_by(context.config.node, batch))


def _written(context: Context, transaction: Transaction, hits: Sequence[Hit]) -> Recorded:
    """What a batch led to that was written, though its answer never came: as SQL has it now, for others may have
    changed it since."""
    world = load_world(context, transaction)
    bans: list[Ban] = []
    records: list[AddressRecord] = []
    for group in world.book.groups.values():
        first = {hit.ip: hit.at for hit in reversed(hits) if hit.group == group.name}
        whom = {counted_for(group, ip, world.allow): at for ip, at in first.items()}
        for row in transaction.addresses.get(list(whom), [jail.name for jail in group.jails]):
            if not row.active or row.since is None or row.until is None:
                continue
            records.append(row)
            if row.host == context.config.node and row.since >= whom[row.ip]:
                ban = Ban(row.ip, row.jail, row.since, row.until, row.count, row.reason or "")
                bans.append(replace(ban, blacklisted=row.blacklisted))
    return Recorded(0, tuple(bans), tuple(records), world)


def _count(context: Context, transaction: Transaction, world: World, hits: Sequence[Hit], memory: Memory) -> Recorded:
    batches: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        if hit.group in world.book.groups:
            batches[hit.group].append(hit)
    if not batches:
        return Recorded(0, (), (), world)
    bans: list[Ban] = []
    changed: list[AddressRecord] = []
    counted: Counter[str] = Counter()
    number = transaction.hits.first_free()
    for name, batch in batches.items():
        result = _GroupBatch(context, transaction, world, world.book.groups[name], memory)
        result.take(batch, number)
        number += len(batch)
        bans += result.bans
        changed += result.write(number - 1)
        counted[name] += result.counted
    transaction.hits.add_totals({name: n for name, n in counted.items() if n})
    return Recorded(sum(counted.values()), tuple(bans), tuple(changed), world)


class _GroupBatch:
    """The hits of one batch for one group: loaded, judged, written."""

    def __init__(self, context: Context, transaction: Transaction, world: World, group: Group, memory: Memory) -> None:
        self._context, self._transaction, self._world, self._group = context, transaction, world, group
        self._memory = memory
        self._counted_as = group.counted_as(context.config.node)
        self.bans: list[Ban] = []
        self.counted = 0
        self._new: dict[int, Hit] = {}
        self._dropped: list[tuple[str, int]] = []
        self._rows: dict[tuple[str, str], AddressRecord] = {}

    def take(self, hits: Sequence[Hit], first: int) -> None:
        """Judge the hits one after the other, numbered from `first` on."""
        ips = {hit.ip for hit in hits}
        whom = self._whom(ips)
        seen = hits
        if whom:
            hits = [hit._replace(ip=whom[hit.ip]) if hit.ip in whom else hit for hit in hits]
        entries = {whom.get(ip, ip) for ip in ips} if whom else ips
        known = self._memory.of(self._group.name)
        loaded = self._load(entries - known.keys())
        known |= {ip: one for ip, one in loaded.items() if all(standing.count for standing in one.standings.values())}
        unkept = {ip: one for ip, one in loaded.items() if ip not in known}
        records = {**known, **unkept} if unkept else known
        allowed = {entry: self._allowed(entry) for entry in self._world.allow.mentioned(entries)}
        told = judge_all(self._group, records, hits, first, allowed)
        new = self._new = dict(enumerate(hits, first))
        for number, verdict in told:
            if not verdict.counted:
                del new[number]
        self.counted += len(new)
        for number, verdict in told:
            for dropped in verdict.dropped:
                if new.pop(dropped, None) is None:
                    self._dropped.append((hits[number - first].ip, dropped))
            for ban in verdict.bans:
                self.bans.append(seen_from(ban, seen[number - first].ip))

    def _whom(self, ips: set[str]) -> dict[str, str]:
        """For whom the hits of an address are counted, where that is not the address."""
        if self._group.v6_prefix >= LONGEST_PREFIX:
            return {}
        return {ip: entry for ip in ips if (entry := counted_for(self._group, ip, self._world.allow)) != ip}

    def write(self, last: int) -> list[AddressRecord]:
        """Write what changed, `last` being the last number given; returns the rows of the bans."""
        self._transaction.hits.drop(self._counted_as, self._dropped)
        self._transaction.hits.add(self._new.items(), last, self._counted_as)
        changed = self._banned()
        self._transaction.addresses.save(changed)
        node = self._context.config.node
        self._transaction.events.add(
            [
                Event(b.since, "blacklist" if b.blacklisted else "ban", b.ip, b.jail, b.until, b.reason, node)
                for b in self.bans
            ]
        )
        return changed

    def _load(self, ips: set[str]) -> dict[str, Record]:
        records = {ip: Record() for ip in ips}
        for (_, ip), kept in self._transaction.hits.of(ips, self._counted_as).items():
            records[ip].hits = kept
        for row in self._transaction.addresses.get(ips, [jail.name for jail in self._group.jails]):
            self._rows[row.ip, row.jail] = row
            records[row.ip].standings[row.jail] = standing_of(row, self._world.book.jails[row.jail], self._context.now)
        return records

    def _allowed(self, ip: str) -> Allowed:
        """Asked once per address and batch, however many hits it has."""
        allow = self._world.allow
        jails = frozenset(jail.name for jail in self._group.jails if allow.covering(ip, jail) is not None)
        return lambda jail: jail.name in jails

    def _banned(self) -> list[AddressRecord]:
        """The rows of all bans, each as the last ban leaves it."""
        # A record that was remembered came without its rows. Where it was banned before, there is one.
        again = {ban.ip for ban in self.bans if ban.count > 1 and (ban.ip, ban.jail) not in self._rows}
        for row in self._transaction.addresses.get(again, [jail.name for jail in self._group.jails]):
            self._rows.setdefault((row.ip, row.jail), row)
        changed: dict[tuple[str, str], AddressRecord] = {}
        for ban in self.bans:
            key = (ban.ip, ban.jail)
            row = changed[key] = self._rows.get(key) or changed.get(key) or AddressRecord(ban.ip, ban.jail)
            row.active, row.since, row.until, row.last_hit = True, ban.since, ban.until, ban.since
            row.count, row.reason, row.blacklisted = ban.count, ban.reason, ban.blacklisted
            row.host, row.lifted_after, row.forced = self._context.config.node, None, False
        return list(changed.values())


def standing_of(row: AddressRecord, jail: Jail, now: int) -> Standing:
    """What a row of SQL says to the ladder."""
    if entry_of(row) is None:
        return Standing(count=row.count)
    if row.lifted_after is not None:
        return Standing(0, row.lifted_after, row.count)
    if row.active:
        until = row.until
        if until is None:
            until = now + 1 if jail.bantime >= 0 else 1 << 62
        return Standing(until, 0, row.count)
    return Standing(row.until or 0, 0, row.count)
