"""Which logs feed which groups, through which filter; and from a block of lines to hits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from mcban.core.model import Group, Hit, Jail, Kind
from mcban.errors import DataError, FilterError, printable
from mcban.filters import Filter, Scanner, load_filter, load_journal_filter, parse_zone
from mcban.logs import UTF16_SAID, is_journal, is_utf16, name_entries, split_logpath
from mcban.service.context import Context, Fault, JailBook

FUTURE = 60
"""Seconds by which a log's clock may be ahead; a hit beyond takes the time of reading (specification, "Counting")."""


@dataclass(frozen=True, slots=True)
class Source:
    """Logs of one group, and the filter for them."""

    group: str
    patterns: tuple[str, ...]
    filter: Filter
    zone: tzinfo | None = None
    """The zone of times that name none; None is the system's."""


def check_source(context: Context, jail: Jail) -> None:
    """Raises FilterError or DataError when a jail's filter or logpath cannot work."""
    try:
        load_sources(jail, FilterShelf(context.config.filter_path))
    except ValueError as error:
        raise DataError(f"{jail.name}: {printable(str(error))}") from None


class FilterShelf:
    """Filters, loaded once however many groups use them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._loaded: dict[tuple[str, bool], Filter] = {}

    def get(self, spec: str, *, journal: bool) -> Filter:
        """The filter, as it reads files or the journal. Raises FilterError."""
        if (spec, journal) not in self._loaded:
            load = load_journal_filter if journal else load_filter
            self._loaded[spec, journal] = load(spec, self._folders)
        return self._loaded[spec, journal]


def load_sources(jail: Jail, shelf: FilterShelf) -> list[Source]:
    """What a jail reads for its group: its files, and what its filter asks of the journal. Raises FilterError, or
    ValueError with one line for a person."""
    paths = split_logpath(jail.logpath)
    files = tuple(path for path in paths if not is_journal(path))
    journals = [path for path in paths if is_journal(path)]
    zone = parse_zone(jail.logtimezone) if jail.logtimezone else None
    sources = [Source(jail.group, files, shelf.get(jail.filter, journal=False), zone)] if files else []
    if journals:
        one = shelf.get(jail.filter, journal=True)
        names = tuple(name_entries(journal, one.journalmatch) for journal in journals)
        sources.append(Source(jail.group, names, one))
    return sources


def find_sources(context: Context, book: JailBook) -> tuple[list[Source], list[Fault]]:
    """The sources of all groups with an enabled tier, and what cannot be used."""
    shelf = FilterShelf(context.config.filter_path)
    sources: list[Source] = []
    faults: list[Fault] = []
    for group in book.groups.values():
        jail = reading_jail(group)
        if jail is None:
            continue
        try:
            sources += load_sources(jail, shelf)
        except (FilterError, ValueError) as error:
            faults.append(Fault(jail.name, printable(str(error), 400)))
    return sources, faults


def reading_jail(group: Group) -> Jail | None:
    """The jail whose filter and logpath speak for its group: the lowest tier that is enabled."""
    return next((tier for tier in group.tiers if tier.enabled and tier.kind is not Kind.BLACKLIST), None)


def group_zone(group: Group) -> tzinfo | None:
    """The zone of a group's logs, as the jail that reads for it names it; None is the system's."""
    jail = reading_jail(group) or group.tiers[0]
    return parse_zone(jail.logtimezone) if jail.logtimezone else None


MOST_FEEDS = 200
"""Sets of scanners that are kept; logs named by date would make one each day."""


@dataclass(slots=True)
class _Feed:
    """The scanners of one set of patterns, one for each zone that somebody reads them in, and the groups behind each
    of their filters."""

    scanners: list[tuple[Scanner, list[list[str]]]]
    told: set[str] = field(default_factory=set)


class Intake:
    """Turns blocks into hits. A log is scanned once, however many groups read it."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)
        # A filter that joins lines must join those of one log only: then each log has scanners of its own.
        self._joined = frozenset(pattern for one in self._sources if one.filter.stateful for pattern in one.patterns)
        self._feeds: OrderedDict[tuple[frozenset[str], str], _Feed] = OrderedDict()
        self.warnings: list[str] = []
        self.remarks = tuple(dict.fromkeys(said for one in self._sources for said in one.filter.warnings))
        """What there is to say of the filters, whatever is read."""

    @property
    def patterns(self) -> list[str]:
        """Every path and glob that some group reads."""
        return list(dict.fromkeys(pattern for source in self._sources for pattern in source.patterns))

    def hits(self, path: str, data: bytes, patterns: Collection[str], now: int, ahead: int = 0) -> list[Hit]:
        """The hits in `data`, lines of the log at `path`, which `patterns` led to. `now` is by the clock by which the
        log was written; the hits' times are by one that is so many seconds `ahead`."""
        feed = self._feed(frozenset(patterns), path)
        hits: list[Hit] = []
        latest = now + FUTURE
        if is_utf16(data):
            self._warn(feed, path, UTF16_SAID)
        for scanner, groups in feed.scanners:
            overlong = scanner.overlong
            for _, index, at, ip, user, _ in scanner.find(data, now):
                if at is None or at > latest:
                    why = "a hit has no date" if at is None else "a hit lies in the future"
                    self._warn(feed, path, f"{why}: the time of reading is taken; is the clock or the time zone right?")
                    at = now  # noqa: PLW2901  # from here on it is the hit's
                for group in groups[index]:
                    hits.append(Hit(at + ahead if ahead else at, ip, group, user))  # noqa: PERF401  # mostly one: no list for it
            if scanner.overlong > overlong:
                self._warn(feed, path, "lines too long to be matched were passed over")
            for index, count in scanner.gave_up.items():
                # Told at the first such line, the tenth, the hundredth…
                so_far = 10 ** (len(str(count)) - 1)
                self._warn(
                    feed,
                    path,
                    f"filter {scanner.filters[index].name} takes too long with some lines, and they are given up "
                    f"({so_far} so far): is one of its expressions to blame, or an attack?",
                )
        return hits

    def _feed(self, patterns: frozenset[str], path: str) -> _Feed:
        key = (patterns, path if patterns & self._joined else "")
        feed = self._feeds.get(key)
        if feed is None:
            zones: dict[tzinfo | None, dict[int, tuple[Filter, list[str]]]] = {}
            for source in self._sources:
                if patterns & set(source.patterns):
                    by_filter = zones.setdefault(source.zone, {})
                    by_filter.setdefault(id(source.filter), (source.filter, []))[1].append(source.group)
            feed = _Feed(
                [
                    (Scanner([f for f, _ in used.values()], zone), [groups for _, groups in used.values()])
                    for zone, used in zones.items()
                ]
            )
            self._feeds[key] = feed
            if len(self._feeds) > MOST_FEEDS:
                self._feeds.popitem(last=False)
        self._feeds.move_to_end(key)
        return feed

    def _warn(self, feed: _Feed, path: str, what: str) -> None:
        """Once per log and kind."""
        line = f"{path}: {what}"
        if line not in feed.told:
            feed.told.add(line)
            self.warnings.append(line)
