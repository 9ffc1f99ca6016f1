"""Several thresholds tried on one log, side by side: whom each would have held, and whether those were customers.

One pass: a hit is given to one ladder for each threshold. Like `replay`, it takes the log as it is: what a ban would
have kept out stands in the log all the same, and carries its address up the ladder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcban.core import ladder
from mcban.core.allowlist import AllowList
from mcban.core.escalation import counted_for
from mcban.core.model import Group, Hit, Jail, Kind
from mcban.errors import UsageError
from mcban.service.context import Context
from mcban.service.replay import Blocks, Spans, Trial, pattern_of
from mcban.service.sources import Intake, Source

MOST_THRESHOLDS = 20
_LOGINS = "logins that succeed"  # no group's name: it has blanks


@dataclass(frozen=True, slots=True)
class Effect:
    """What one jail, or all of a group's together, would have done.

    `held` counts the addresses (of IPv6 the networks, where a jail counts by them) that it would have held at some
    time, `kept_out` the hits that came from an address while it was held. `customers` are those of the held that also
    logged in somewhere in the log, sorted; None when the filter does not say what a login looks like.
    """

    held: int
    kept_out: int
    customers: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Column:
    """One threshold: what each jail would have done, from the lowest tier to the blacklist, and all together."""

    maxretry: int
    jails: dict[str, Effect]
    together: Effect


@dataclass(frozen=True, slots=True)
class Preview:
    """Lines read, hits of the filter, logins that succeeded (None: the filter does not know them), warnings."""

    lines: int
    hits: int
    logins: int | None
    columns: tuple[Column, ...]
    warnings: tuple[str, ...]


def with_threshold(group: Group, maxretry: int) -> Group:
    """The group as `jail change --option maxretry` makes it: its ladder generated anew, or its one jail changed."""
    steps = {ladder.tier_name(group.name, step.suffix): step for step in ladder.generate(maxretry)}

    def changed(tier: Jail) -> Jail:
        if tier.kind is not Kind.TIER:
            return replace(tier, maxretry=maxretry)
        step = steps[tier.name]
        return replace(tier, maxretry=step.maxretry, findtime=step.findtime, bantime=step.bantime)

    return replace(group, tiers=tuple(changed(tier) for tier in group.tiers))


class _Watched:
    """A trial, and who was held from when until when."""

    def __init__(self, group: Group, allow: AllowList) -> None:
        self._trial = Trial(group, allow)
        self._holds: dict[str, dict[str, tuple[int, int]]] = {}  # address to jail to the last ban's beginning and end
        self._held: dict[str, set[str]] = {jail.name: set() for jail in group.jails if jail.enabled}
        self._kept: Counter[str] = Counter()
        self._kept_by_any = 0

    def take(self, hit: Hit, whom: str) -> None:
        """Note whether the hit would have been kept out, then let the ladder have it."""
        holding = [jail for jail, (since, until) in self._holds.get(whom, {}).items() if since <= hit.at < until]
        self._kept.update(holding)
        self._kept_by_any += bool(holding)
        for ban in self._trial.take(hit, whom).bans:
            self._holds.setdefault(whom, {})[ban.jail] = (ban.since, ban.until)
            self._held[ban.jail].add(whom)

    def column(self, maxretry: int, logged_in: set[str] | None) -> Column:
        """What came of it."""

        def effect(held: set[str], kept_out: int) -> Effect:
            return Effect(len(held), kept_out, None if logged_in is None else tuple(sorted(held & logged_in)))

        jails = {jail: effect(held, self._kept[jail]) for jail, held in self._held.items()}
        return Column(maxretry, jails, effect(set().union(*self._held.values()), self._kept_by_any))


def preview(
    context: Context,
    group: Group,
    allow: AllowList,
    sources: Sequence[Source],
    blocks: Blocks,
    thresholds: Sequence[int],
) -> Preview:
    """Try each of `thresholds` (whole numbers above 0, each once) on `blocks`, as `sources` read them.

    Raises UsageError when there are too many, and what the blocks raise.
    """
    if len(thresholds) > MOST_THRESHOLDS:
        raise UsageError(f"--maxretry: {len(thresholds)} numbers; {MOST_THRESHOLDS} are tried at once at the most")
    of_logins = [made for one in sources if (made := _of_logins(one))]
    intake = Intake([*sources, *of_logins])
    watched = {number: _Watched(with_threshold(group, number), allow) for number in thresholds}
    whom: dict[str, str] = {}
    logged_in: set[str] = set()
    spans = Spans()
    lines = hits = logins = 0
    for path, data in blocks:
        lines += data.count(b"\n")
        found = intake.hits(path, data, (pattern_of(path),), context.own_now)
        spans.note(path, found)
        for hit in found:
            if hit.ip not in whom:
                whom[hit.ip] = counted_for(group, hit.ip, allow)
            if hit.group == _LOGINS:
                logins += 1
                logged_in.add(whom[hit.ip])
                continue
            hits += 1
            for trial in watched.values():
                trial.take(hit, whom[hit.ip])
    columns = tuple(trial.column(number, logged_in if of_logins else None) for number, trial in watched.items())
    return Preview(
        lines, hits, logins if of_logins else None, columns, (*intake.remarks, *intake.warnings, *spans.warnings())
    )


def _of_logins(source: Source) -> Source | None:
    """The same logs, read for the logins that succeed; None when the filter does not know them."""
    successes = source.filter.of_successes()
    return None if successes is None else replace(source, group=_LOGINS, filter=successes)
