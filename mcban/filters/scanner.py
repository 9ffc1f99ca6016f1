"""Finds the hits in a block of a log: one pass for all filters.

Most lines match nothing. Which lines could match at all is found out for the block as a whole, by what the rules'
expressions demand of a line (`demands.py`, `prefilter.py`); only those lines are cut out, decoded and given to the
exact expressions, under the eyes of a watchdog. docs/matching.md says why, and how fast.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import tzinfo
from operator import itemgetter
from typing import Any, NamedTuple

from mcban.filters.clock import Clock
from mcban.filters.dates import DateForm, FoundDate, find_date
from mcban.filters.demands import Demand, Needle, required_needles
from mcban.filters.expression import forget_trees
from mcban.filters.filter import Filter
from mcban.filters.matcher import Matcher, WindowMatcher
from mcban.filters.prefilter import Candidate, Finder, Prefilter, make_finder
from mcban.filters.quick import Finding, QuickMatcher, Reader, make_quick
from mcban.filters.rules import MISSED, Rule
from mcban.filters.watchdog import GaveUp, Watchdog
from mcban.filters.window import Line, Window

OVERLONG = 128 * 1024
"""Bytes; a longer line is not matched, but counted."""

_MOST_PLANS = 1024


class LineMatch(NamedTuple):
    """A hit in a block: the line's index from 0, the filter's index in the scanner, the date's moment or None."""

    line: int
    filter: int
    at: int | None
    ip: str
    user: str | None
    rule: int


Found = tuple[int, int, int | None, str, str | None, int]
"""The same with the offset at which the line begins in place of its index."""


class _Dates:
    """Dates in one set of forms, in one log. Most logs have theirs in the form that is tried first."""

    __slots__ = ("_clock", "_first", "_kept", "_look", "_now", "_others")

    MOST_KEPT = 4096

    def __init__(self, forms: tuple[DateForm, ...], clock: Clock) -> None:
        self._clock = clock
        self._first = forms[0]
        # Of forms that are searched for, the leftmost date counts, whichever form has it.
        decides = not self._first.anywhere or len(forms) == 1
        is_plain = self._first.after is None and decides and self._first.cut.decides
        self._look = self._first.look if is_plain else None
        self._others = forms[1:] if is_plain else forms
        self._kept: dict[str, int | None] = {}
        self._now = 0

    def cut_out(self, text: str) -> tuple[str, FoundDate | re.Match[str] | None]:
        """A line without its date, but with its line end, and what `read` wants to know about the date."""
        # A pattern that ends in white space may count on the line end, as it may with fail2ban.
        if self._look:
            match = self._look(text)
            if match:
                start, end = match.span(1)
                return f"{text[:start]}{text[end:]}\n" if start else f"{text[end:]}\n", match
        found = find_date(text, self._others)
        return (f"{text[: found.start]}{text[found.end :]}\n" if found else f"{text}\n"), found

    def read(self, date: FoundDate | re.Match[str], now: int) -> int | None:
        """The moment of a date that was found; see `Clock.read`."""
        if isinstance(date, FoundDate):
            return self._clock.read(date, now)
        if now != self._now or len(self._kept) > self.MOST_KEPT:
            self._kept.clear()
            self._now = now
        text = date[1]
        try:
            return self._kept[text]
        except KeyError:
            at = self._kept[text] = self._clock.read(FoundDate(*date.span(1), self._first, date), now)
            return at


class _Task(NamedTuple):
    """One filter's part in matching a line: what matches, with those of its rules that could, where its dates stand,
    and whether the line's moment matters to it."""

    filter: int
    match: Callable[[str, Any, int | None], Finding | None]
    rules: tuple[Reader, ...] | tuple[Rule, ...]
    dates: _Dates
    wants_moment: bool


class Scanner:
    """Matches blocks of one log with all filters that want it, in the order of the log.

    Since the scanner was made, `overlong` counts the lines that were too long to be matched, `dateless` the hits
    without a date that can be read, and `gave_up`, by the filter's index, the lines that took a filter too long or
    were passed over because it had spent its time on such lines (`watchdog.py`; in the main thread only).
    """

    def __init__(
        self,
        filters: Sequence[Filter],
        zone: tzinfo | None = None,
        find_needles: Callable[[Sequence[Needle]], Finder] = make_finder,
    ) -> None:
        self.filters = tuple(filters)
        self.overlong = 0
        self.dateless = 0
        self.gave_up: Counter[int] = Counter()
        self.clock = Clock(zone)
        self.watchdog = Watchdog()
        # Bit n of a mask stands for the n-th of these pairs, in the order in which they are tried.
        self._rules = [(index, rule) for index, one in enumerate(self.filters) for rule in one.rules]
        self._prefilter = Prefilter([_demand(self.filters[index], rule) for index, rule in self._rules], find_needles)
        self._quick: dict[int, QuickMatcher | None] = {}
        self._matchers = [one.matcher() for one in self.filters]
        kinds: dict[tuple[DateForm, ...], _Dates] = {}
        self._dates = [kinds.setdefault(one.dates, _Dates(one.dates, self.clock)) for one in self.filters]
        self._plans: dict[int, tuple[_Task, ...]] = {}
        forget_trees()
        self._windows = {i: Window(m) for i, m in enumerate(self._matchers) if isinstance(m, WindowMatcher)}
        for index in self._windows:
            self.filters[index].compile(self.filters[index].rules)
        self._window_masks = {
            index: sum(1 << bit for bit, (owner, _) in enumerate(self._rules) if owner == index)
            for index in self._windows
        }

    def scan(self, block: bytes, now: int) -> list[LineMatch]:
        """As `find`, with the numbers of the lines."""
        return _number(block, self.find(block, now))

    def find(self, block: bytes, now: int) -> list[Found]:
        """The hits in `block`, whole lines each with its line end, in the order of the lines and then of the filters.

        One line gives at most one hit for each filter. `now`, in seconds since the epoch, is only for dates that
        leave out the year or the day. Ends in bounded time, whatever the expressions make of the lines.
        """
        self._count_overlong(block)
        candidates = self._prefilter.find(block)
        matches: list[Found] = []
        if candidates or self._windows:
            with self.watchdog:
                self._match_lines(block, candidates, now, matches)
                self._match_windows(block, candidates, now, matches)
        return matches

    def _match_lines(self, block: bytes, candidates: list[Candidate], now: int, matches: list[Found]) -> None:
        plans = self._plans
        for start, end, mask in candidates:
            tasks = plans.get(mask)
            if tasks is None:
                tasks = self._plan(mask)
            if end - start > OVERLONG or not tasks:
                continue
            text = block[start:end].decode("utf-8", "replace").rstrip("\r")
            self._match_line(start, text, tasks, now, matches)

    def _match_line(self, start: int, text: str, tasks: tuple[_Task, ...], now: int, matches: list[Found]) -> None:
        watchdog, first = self.watchdog, len(matches)
        dated = found = rest = None
        for index, match, rules, dates, wants_moment in tasks:
            if index in watchdog.spent:
                self.gave_up[index] += 1
                continue
            done, hit = False, None
            try:
                watchdog.running = start, index
                if dates is not dated:
                    # Should this take too long, the other filters with these dates have no rest to match, either.
                    dated, rest = dates, None
                    rest, found = dates.cut_out(text)
                if rest is not None:
                    hit = match(rest, rules, dates.read(found, now) if wants_moment and found else None)
                    done = True
                watchdog.running = None
            except GaveUp:
                watchdog.punish(index)
            if hit:
                number, ip, user = hit
                at = dates.read(found, now) if found else None
                if at is None:
                    self.dateless += 1
                matches.append((start, index, at, ip, user, number))
            elif not done:
                self.gave_up[index] += 1
        if len(matches) > first + 1:
            matches[first:] = sorted(matches[first:], key=_in_order)

    def _match_windows(self, block: bytes, candidates: list[Candidate], now: int, matches: list[Found]) -> None:
        for index, window in self._windows.items():
            mask = self._window_masks[index]
            telling = [(start, end) for start, end, rules in candidates if rules & mask]
            one = _WindowPass(self, window.matcher, block, index, now)
            found = list(window.scan(block, telling, one.judge, one.remember))
            if found:
                matches += found
                matches.sort(key=_in_order)

    def _plan(self, mask: int) -> tuple[_Task, ...]:
        """What is to be done with a line in which only the rules of `mask` could match."""
        by_filter: dict[int, list[Rule]] = {}
        for bit, (index, rule) in enumerate(self._rules):
            if mask >> bit & 1 and index not in self._windows:
                by_filter.setdefault(index, []).append(rule)
        tasks = [self._task(index, tuple(rules)) for index, rules in by_filter.items()]
        # Filters with the same forms of a date share the search for it.
        tasks.sort(key=lambda task: id(task.dates))
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[mask] = plan = tuple(tasks)
        return plan

    def _task(self, index: int, rules: tuple[Rule, ...]) -> _Task:
        one, dates = self.filters[index], self._dates[index]
        if index not in self._quick:
            self._quick[index] = make_quick(one)
        quick = self._quick[index]
        if quick:
            return _Task(index, quick.match, tuple(map(quick.reader, rules)), dates, False)
        one.compile(rules)
        return _Task(index, _adapt(self._matchers[index]), rules, dates, one.stateful)

    def _count_overlong(self, block: bytes) -> None:
        start = 0
        while start + OVERLONG < len(block):
            end = block.rfind(b"\n", start, start + OVERLONG + 1)
            if end < 0:
                self.overlong += 1
                end = block.find(b"\n", start)
                if end < 0:
                    return
            start = end + 1


class _WindowPass:
    """One block's lines as a filter with a window sees them, in their order."""

    def __init__(self, scanner: Scanner, matcher: WindowMatcher, block: bytes, index: int, now: int) -> None:
        self._scanner, self._matcher, self._block, self._index, self._now = scanner, matcher, block, index, now
        self._start = 0

    def judge(self, line: Line) -> tuple[Found | None, bool] | None:
        """See `window.Judge`."""
        return self._watched(line, self._judge)

    def remember(self, line: Line) -> None:
        """Put a line into the window."""
        self._watched(line, self._remember)

    def _watched(
        self, line: Line, work: Callable[[str, int | None], tuple[Found | None, bool]]
    ) -> tuple[Found | None, bool] | None:
        start, end = line
        if end - start > OVERLONG:
            return None
        scanner, index = self._scanner, self._index
        told = None
        if index not in scanner.watchdog.spent:
            self._start = start
            text = self._block[start:end].decode("utf-8", "replace").rstrip("\r")
            try:
                scanner.watchdog.running = start, index
                found = find_date(text, scanner.filters[index].dates)
                rest = text[: found.start] + text[found.end :] if found else text
                told = work(rest, scanner.clock.read(found, self._now) if found else None)
                scanner.watchdog.running = None
            except GaveUp:
                scanner.watchdog.punish(index)
        if told is None:
            scanner.gave_up[index] += 1
        return told

    def _judge(self, rest: str, at: int | None) -> tuple[Found | None, bool]:
        verdict = self._matcher.judge(rest, (), at)
        match = verdict.match
        if match is None:
            return None, verdict is not MISSED
        at = at if match.at is None else match.at
        if at is None:
            self._scanner.dateless += 1
        return (self._start, self._index, at, match.ip, match.user, match.rule), True

    def _remember(self, rest: str, at: int | None) -> tuple[Found | None, bool]:
        self._matcher.remember(rest, at)
        return None, False


def _number(block: bytes, found: list[Found]) -> list[LineMatch]:
    """Hits with the numbers of their lines for the offsets."""
    matches: list[LineMatch] = []
    line = counted = 0
    for one in found:
        line += block.count(b"\n", counted, one[0])
        counted = one[0]
        matches.append(LineMatch(line, *one[1:]))
    return matches


_in_order = itemgetter(0, 1)


def _adapt(matcher: Matcher) -> Callable[[str, Any, int | None], Finding | None]:
    """A filter's own matcher, as a task wants it."""

    def match(line: str, rules: tuple[Rule, ...], at: int | None) -> Finding | None:
        found = matcher.match(line[:-1], rules, at)
        return (found.rule, found.ip, found.user) if found else None

    return match


def _demand(one: Filter, rule: Rule) -> Demand | None:
    """What a line must hold for a rule to be tried."""
    expressions = (rule.expression, one.prefix.expression) if one.prefix else (rule.expression,)
    return required_needles(expressions, frozenset(form.cut for form in one.dates))
