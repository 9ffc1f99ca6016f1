"""What the ladder would have done on a log, on the log's own clock: neither SQL nor kernel is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcban.core.allowlist import AllowList
from mcban.core.escalation import Record, counted_for, judge, seen_from
from mcban.core.model import Ban, Group, Jail
from mcban.filters import load_filter
from mcban.service.context import Context
from mcban.service.sources import Intake, Source, reading_jail


@dataclass(frozen=True, slots=True)
class Replayed:
    """Lines read, hits that counted, bans in their order, and warnings."""

    lines: int
    hits: int
    bans: tuple[Ban, ...]
    warnings: tuple[str, ...]


def replay(context: Context, group: Group, allow: AllowList, blocks: Iterable[tuple[str, bytes]]) -> Replayed:
    """Run the ladder of `group` over `blocks` of (log's name, whole lines). Raises FilterError."""
    jail = reading_jail(group) or group.tiers[0]
    intake = Intake([Source(group.name, ("log",), load_filter(jail.filter, context.config.filter_path))])
    records: dict[str, Record] = {}
    bans: list[Ban] = []
    lines = hits = number = 0
    for path, data in blocks:
        lines += data.count(b"\n")
        for hit in intake.hits(path, data, ("log",), context.now):
            number += 1
            whom = counted_for(group, hit.ip, allow)
            record = records.setdefault(whom, Record())

            def allowed(jail: Jail, entry: str = whom) -> bool:
                return allow.covering(entry, jail) is not None

            verdict = judge(group, record, hit._replace(ip=whom), number, allowed)
            hits += verdict.counted
            bans += [seen_from(ban, hit.ip) for ban in verdict.bans]
    return Replayed(lines, hits, tuple(bans), tuple(intake.warnings))
