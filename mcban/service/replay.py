"""What the ladder would have done on a log, on the log's own clock: neither SQL nor kernel is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcban.core.allowlist import AllowList
from mcban.core.escalation import Record, Verdict, counted_for, judge, seen_from
from mcban.core.model import Ban, Group, Hit, Jail
from mcban.filters import Filter, load_filter
from mcban.service.context import Context
from mcban.service.sources import Intake, Source, group_zone, reading_jail

Blocks = Iterable[tuple[str, bytes]]
"""Whole lines, each time with the name of the log that they are from."""
LOG = "log"
"""The pattern that stands for every log of a replay: all go through the group's filter, wherever they lie."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Lines read, hits that counted, bans in their order, and warnings."""

    lines: int
    hits: int
    bans: tuple[Ban, ...]
    warnings: tuple[str, ...]


class Trial:
    """A ladder that is tried: what `judge` says of one hit after the other, nobody having been known before."""

    def __init__(self, group: Group, allow: AllowList) -> None:
        self.group = group
        self._allow = allow
        self._records: dict[str, Record] = {}
        self._number = 0

    def take(self, hit: Hit, whom: str) -> Verdict:
        """What follows from `hit`, counted for `whom` (see `counted_for`)."""
        self._number += 1
        record = self._records.setdefault(whom, Record())

        def allowed(jail: Jail) -> bool:
            return self._allow.covering(whom, jail) is not None

        return judge(self.group, record, hit._replace(ip=whom), self._number, allowed)


def filter_of(context: Context, group: Group) -> Filter:
    """The filter of the group's lowest enabled tier. Raises FilterError."""
    jail = reading_jail(group) or group.tiers[0]
    return load_filter(jail.filter, context.config.filter_path)


def replay(context: Context, group: Group, allow: AllowList, blocks: Blocks) -> Replayed:
    """Run the ladder of `group` over `blocks`. Raises FilterError, and what the blocks raise."""
    intake = Intake([Source(group.name, (LOG,), filter_of(context, group), group_zone(group))])
    trial = Trial(group, allow)
    bans: list[Ban] = []
    lines = hits = 0
    for path, data in blocks:
        lines += data.count(b"\n")
        for hit in intake.hits(path, data, (LOG,), context.own_now):
            verdict = trial.take(hit, counted_for(group, hit.ip, allow))
            hits += verdict.counted
            bans += [seen_from(ban, hit.ip) for ban in verdict.bans]
    return Replayed(lines, hits, tuple(bans), (*intake.remarks, *intake.warnings))
