"""Judging hits while SQL cannot be asked: by what was last known, in a bounded memory, without writing anything.

The ladder is the same (`core.escalation.judge`); what differs is the memory. It knows the bans that run, the hits that
this node counted last, and those that it has judged since, not what other nodes counted, nor how often an address was
banned before: nobody is blacklisted here. What is decided puts attackers out until SQL is back. Then all is read again
and judged by SQL, and what it does not say leaves the kernel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from mcban.core.allowlist import AllowList
from mcban.core.escalation import Allowed, Record, Standing, counted_for, judge, nobody, seen_from
from mcban.core.model import Ban, Group, Hit
from mcban.core.plan import Plan, Wanted
from mcban.service.context import Context, World
from mcban.service.known import Known
from mcban.service.sync import Aim, Outcome, enforce, wanted_rules
from mcban.service.world import allowed_here
from mcban.store.addresses import AddressRecord

MOST = 20_000
"""Addresses that are remembered, counted once for each group: about 1 kB each. With more of them at once, those that
were quiet for longest begin anew."""


ENDED = 1_000
"""Bans among those of the outage that may have ended; from twice as many bans on as ran last, they are forgotten."""


class Provisional:
    """The judgement of hits by what is `known`. `bans` has by jail the entries that were put into the kernel, with
    their ends; those that ended are forgotten by and by."""

    def __init__(self, context: Context, known: Known) -> None:
        self._context, self._known, self._ends = context, known, known.ends()
        self._records: OrderedDict[tuple[str, str], Record] = OrderedDict()
        self._number = 0
        self._protected: dict[str, str] = {}
        self._world = known.world
        self.bans: dict[str, dict[str, int]] = {}
        self._most = ENDED

    def learn(self, hits: Iterable[Hit]) -> None:
        """Take in what SQL has counted: what followed from that, followed."""
        self._judge(hits)

    def take(self, hits: Iterable[Hit]) -> list[Ban]:
        """Judge these hits, in their order; the bans that follow and are not over yet."""
        return [ban for ban in self._judge(hits) if ban.in_force(self._context.now)]

    def enforce(self, bans: Iterable[Ban]) -> Outcome:
        """Put these into the kernel. Raises what the firewall raises; they are among `bans` then, too."""
        world = self._current()
        records = [AddressRecord(ban.ip, ban.jail, ban.count, True, since=ban.since, until=ban.until) for ban in bans]
        for record in records:
            self.bans.setdefault(record.jail, {})[record.ip] = record.until or 0
        outcome = enforce(self._context, world, records)
        for jail, gone in outcome.plan.remove.items():  # what is not to be banned here after all
            for entry in gone:
                self.bans[jail].pop(entry, None)
        self._forget_ended()
        return outcome

    def _forget_ended(self) -> None:
        """What it costs is in proportion to the bans that came since the last time."""
        if sum(map(len, self.bans.values())) < self._most:
            return
        now = self._context.now
        for ends in self.bans.values():
            for entry in [entry for entry, end in ends.items() if end <= now]:
                del ends[entry]
        self._most = max(ENDED, 2 * sum(map(len, self.bans.values())))

    def note(self, plan: Plan) -> None:
        """SQL says that these bans came, or went: what is provisional of them is so no more, and of whom it let in
        nothing is remembered."""
        jails = self._known.world.book.jails
        for name, ends in plan.add.items():
            self._ends.get(name, {}).update(ends)
            for entry, end in ends.items():
                self.bans.get(name, {}).pop(entry, None)
                record = self._records.get((jails[name].group, entry)) if name in jails else None
                if record is not None:
                    record.standings[name] = Standing(until=end)
        for name, entries in plan.remove.items():
            for entry in entries:
                self._ends.get(name, {}).pop(entry, None)
                self.bans.get(name, {}).pop(entry, None)
                if name in jails:
                    self._records.pop((jails[name].group, entry), None)

    def aim(self) -> Aim:
        """All that the kernel should hold by now."""
        merged = {jail: {**ends, **self.bans.get(jail, {})} for jail, ends in self._ends.items()}
        return Aim(Wanted(wanted_rules(self._context, self._current().book.groups.values()), merged), {})

    def _judge(self, hits: Iterable[Hit]) -> list[Ban]:
        world = self._current()
        bans: list[Ban] = []
        for hit in hits:
            group = world.book.groups.get(hit.group)
            if group is None:
                continue
            self._number += 1
            entry = counted_for(group, hit.ip, world.allow)
            allowed = self._allowed(world, group, entry)
            verdict = judge(group, self._record(group, entry), hit._replace(ip=entry), self._number, allowed)
            bans += [seen_from(ban, hit.ip) for ban in verdict.bans]
        return bans

    def _record(self, group: Group, entry: str) -> Record:
        key = (group.name, entry)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record()
            for jail in group.jails:
                end = self._ends.get(jail.name, {}).get(entry)
                if end is not None:
                    record.standings[jail.name] = Standing(until=end)
            if len(self._records) > MOST:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(key)
        return record

    def _allowed(self, world: World, group: Group, entry: str) -> Allowed:
        if not world.allow.mentions(entry):
            return nobody
        jails = frozenset(jail.name for jail in group.jails if world.allow.touching(entry, jail) is not None)
        return lambda jail: jail.name in jails

    def _current(self) -> World:
        """The world as it was known, with what this host protects now."""
        protected = self._context.host.protected()
        if protected != self._protected:
            self._protected = dict(protected)
            allow = AllowList([*self._known.world.allow.allowances, *allowed_here(self._context)])
            self._world = replace(self._known.world, allow=allow)
        return self._world
