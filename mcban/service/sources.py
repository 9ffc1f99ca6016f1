"""Which logs feed which groups, through which filter; and from a block of lines to hits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mcban.core.model import Group, Hit, Jail, Kind
from mcban.errors import DataError, FilterError, printable
from mcban.filters import Filter, Scanner, load_filter
from mcban.logs import split_logpath
from mcban.service.context import Context, Fault, JailBook

FUTURE = 60
"""Seconds by which a log's clock may be ahead; a hit beyond takes the time of reading (specification, "Counting")."""


@dataclass(frozen=True, slots=True)
class Source:
    """One group's logs and filter."""

    group: str
    patterns: tuple[str, ...]
    filter: Filter


def check_source(context: Context, jail: Jail) -> None:
    """Raises FilterError or DataError when a jail's filter or logpath cannot work."""
    load_filter(jail.filter, context.config.filter_path)
    try:
        split_logpath(jail.logpath)
    except ValueError as error:
        raise DataError(f"{jail.name}: {printable(str(error))}") from None


def find_sources(context: Context, book: JailBook) -> tuple[list[Source], list[Fault]]:
    """The sources of all groups with an enabled tier, and what cannot be used. A filter is loaded once however many
    groups use it."""
    loaded: dict[str, Filter] = {}
    sources: list[Source] = []
    faults: list[Fault] = []
    for group in book.groups.values():
        jail = reading_jail(group)
        if jail is None:
            continue
        try:
            if jail.filter not in loaded:
                loaded[jail.filter] = load_filter(jail.filter, context.config.filter_path)
            sources.append(Source(group.name, tuple(split_logpath(jail.logpath)), loaded[jail.filter]))
        except (FilterError, ValueError) as error:
            faults.append(Fault(jail.name, printable(str(error), 400)))
    return sources, faults


def reading_jail(group: Group) -> Jail | None:
    """The jail whose filter and logpath speak for its group: the lowest tier that is enabled."""
    return next((tier for tier in group.tiers if tier.enabled and tier.kind is not Kind.BLACKLIST), None)


@dataclass(slots=True)
class _Feed:
    """The scanner of one set of patterns, and the groups behind each of its filters."""

    scanner: Scanner
    groups: list[list[str]]
    told: set[str] = field(default_factory=set)


class Intake:
    """Turns blocks into hits. A log is scanned once, however many groups read it."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)
        self._feeds: dict[frozenset[str], _Feed] = {}
        self.warnings: list[str] = []

    @property
    def patterns(self) -> list[str]:
        """Every path and glob that some group reads."""
        return list(dict.fromkeys(pattern for source in self._sources for pattern in source.patterns))

    def hits(self, path: str, data: bytes, patterns: Collection[str], now: int) -> list[Hit]:
        """The hits in `data`, lines of the log at `path`, which `patterns` led to."""
        feed = self._feed(frozenset(patterns))
        overlong = feed.scanner.overlong
        hits: list[Hit] = []
        for match in feed.scanner.scan(data, now):
            at = match.at
            if at is None or at > now + FUTURE:
                why = "a hit has no date" if at is None else "a hit lies in the future"
                self._warn(feed, path, f"{why}: the time of reading is taken; is the clock or the time zone right?")
                at = now
            hits += [Hit(at, match.ip, group, match.user) for group in feed.groups[match.filter]]
        if feed.scanner.overlong > overlong:
            self._warn(feed, path, "lines too long to be matched were passed over")
        return hits

    def _feed(self, patterns: frozenset[str]) -> _Feed:
        feed = self._feeds.get(patterns)
        if feed is None:
            by_filter: dict[int, tuple[Filter, list[str]]] = {}
            for source in self._sources:
                if patterns & set(source.patterns):
                    by_filter.setdefault(id(source.filter), (source.filter, []))[1].append(source.group)
            feed = _Feed(Scanner([f for f, _ in by_filter.values()]), [groups for _, groups in by_filter.values()])
            self._feeds[patterns] = feed
        return feed

    def _warn(self, feed: _Feed, path: str, what: str) -> None:
        """Once per log and kind."""
        line = f"{path}: {what}"
        if line not in feed.told:
            feed.told.add(line)
            self.warnings.append(line)
