"""What the ladder would have done on a log, on the log's own clock: neither SQL nor kernel is touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcban.core.allowlist import AllowList
from mcban.core.escalation import Record, Verdict, counted_for, judge, seen_from
from mcban.core.model import Ban, Group, Hit, Jail
from mcban.errors import UsageError, printable
from mcban.logs import is_journal, name_entries
from mcban.service.context import Context
from mcban.service.sources import FilterShelf, Intake, Source, group_zone, reading_jail

Blocks = Iterable[tuple[str, bytes]]
"""Whole lines, each time with the name of the log that they are from."""
_FILE, _JOURNAL = "file", "journal"


def pattern_of(log: str) -> str:
    """What stands for the log among the sources of a replay: all files go through the group's filter, wherever they
    lie, and all of the journal through the same filter as it reads the journal."""
    return _JOURNAL if is_journal(log) else _FILE


@dataclass(frozen=True, slots=True)
class Replayed:
    """Lines read, hits that counted, bans in their order, and warnings."""

    lines: int
    hits: int
    bans: tuple[Ban, ...]
    warnings: tuple[str, ...]


class Spans:
    """From when until when the hits of each log are, in the order in which the logs are read."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[int, int]] = {}

    def note(self, log: str, hits: Sequence[Hit]) -> None:
        """Hits were found in `log`."""
        if hits:
            times = [hit.at for hit in hits]
            first, last = self._spans.get(log, (times[0], times[0]))
            self._spans[log] = min(first, *times), max(last, *times)

    def warnings(self) -> list[str]:
        """One line where a log is wholly older than one that was read before it, as `mainlog*` names them: the ladder
        was climbed in another order than it would have been. Logs that overlap are those of several services."""
        newest = ""
        for log, (first, last) in self._spans.items():
            if newest and last < self._spans[newest][0]:
                why = "name the oldest log first, or bans come out too few or too late"
                return [f"{printable(log)} is older than {printable(newest)}, which was read before it: {why}"]
            if not newest or first > self._spans[newest][0]:
                newest = log
        return []


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


def choose_sources(context: Context, group: Group, logs: Sequence[str]) -> list[Source]:
    """What reads `logs` for a replay: the filter of the group's lowest enabled tier. Raises FilterError."""
    jail = reading_jail(group) or group.tiers[0]
    shelf = FilterShelf(context.config.filter_path)
    patterns = sorted({pattern_of(log) for log in logs})
    return [
        Source(
            group.name,
            (pattern,),
            shelf.get(jail.filter, journal=pattern == _JOURNAL),
            group_zone(group) if pattern == _FILE else None,
        )
        for pattern in patterns
    ]


def name_logs(sources: Sequence[Source], logs: Sequence[str]) -> list[str]:
    """`logs` with, of the journal, the entries that the filter of `sources` asks for. Raises UsageError."""
    asked = {pattern: one.filter.journalmatch for one in sources for pattern in one.patterns}
    try:
        return [name_entries(log, asked[_JOURNAL]) if is_journal(log) else log for log in logs]
    except ValueError as error:
        raise UsageError(str(error)) from None


def replay(context: Context, group: Group, allow: AllowList, sources: Sequence[Source], blocks: Blocks) -> Replayed:
    """Run the ladder of `group` over `blocks`, as `sources` read them. Raises what the blocks raise."""
    intake = Intake(sources)
    trial = Trial(group, allow)
    spans = Spans()
    bans: list[Ban] = []
    lines = hits = 0
    for path, data in blocks:
        lines += data.count(b"\n")
        found = intake.hits(path, data, (pattern_of(path),), context.own_now)
        spans.note(path, found)
        for hit in found:
            verdict = trial.take(hit, counted_for(group, hit.ip, allow))
            hits += verdict.counted
            bans += [seen_from(ban, hit.ip) for ban in verdict.bans]
    return Replayed(lines, hits, tuple(bans), (*intake.remarks, *intake.warnings, *spans.warnings()))
