"""A filter ready to match: its rules, what it makes of a line, and why.

Like fail2ban, a rule sees the line without its date: what stood before and after the date, joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path

from mcban.errors import FilterError, printable
from mcban.filters.clock import Clock
from mcban.filters.compile import compile_rule, find_misspelt_tag, repeated_groups
from mcban.filters.datepattern import compile_datepattern
from mcban.filters.dates import DateForm, find_date
from mcban.filters.matcher import Matcher, SessionMatcher, WindowMatcher
from mcban.filters.reader import Definition, read_definition
from mcban.filters.rules import SOURCE_GROUPS, Match, Rule, choose_ignoring_all, judge_line

_NO_FILE = Path("-")
MOST_LINES = 1000
"""The largest `maxlines`: each line is matched together with so many before it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a filter makes of a line and why.

    `outcome` is `hit`; `name` when the offender is `name` and no address; `context` when the line is no failure but
    tells about a session, or a failure whose address another line must tell; `ignored`; or `missed`. `rule` is the
    failregex that matched, `ignored_by` the ignoreregex that overruled it, both from 1. `date` is the date as the
    line has it, `at` its moment in seconds since the epoch, `rest` the line as the rules saw it.
    """

    outcome: str
    match: Match | None
    rule: int | None
    ignored_by: int | None
    date: str | None
    at: int | None
    rest: str
    name: str | None = None
    user: str | None = None
    form: str | None = None
    """The way in which the date is written, by its name or the filter's own pattern."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A loaded filter.

    `stateful` filters join lines and want a `matcher` for each log; `every_line` says that its matcher must be given
    all lines of the log, also those that no rule could match alone.
    """

    name: str
    path: Path
    rules: tuple[Rule, ...]
    ignore: tuple[Rule, ...]
    prefix: Rule | None
    dates: tuple[DateForm, ...]
    journalmatch: str
    maxlines: int = 1
    success: tuple[Rule, ...] = ()
    """`successregex`, an option of ours: what a login that succeeds looks like. It bans nobody; previews tell by it who
    is likely to be a customer."""
    files: tuple[Path, ...] = ()
    """All files that were read for it: its own, its `.local`, what they include."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with it although it can be used."""

    @property
    def every_line(self) -> bool:
        """Whether rules are matched with several lines at once."""
        return self.maxlines > 1

    @property
    def stateful(self) -> bool:
        """Whether what a line means depends on lines before it."""
        expressions = (*self.rules, self.prefix) if self.prefix else self.rules
        return self.every_line or any("mlfid" in rule.expression.groupindex for rule in expressions)

    def compile(self, rules: Sequence[Rule]) -> None:
        """Have compiled what matching with some of its `rules` searches for: for who gives each line so much time, and
        none of it for that."""
        for rule in (*rules, *self.ignore, *([self.prefix] if self.prefix else [])):
            _ = rule.search

    def matcher(self) -> Matcher:
        """What matches the lines of one log with this filter, in their order; knows of no line yet."""
        if self.every_line:
            return WindowMatcher(self.prefix, self.rules, self.ignore, self.maxlines)
        return (SessionMatcher if self.stateful else Matcher)(self.prefix, self.rules, self.ignore)

    def of_successes(self) -> Filter | None:
        """A filter the hits of which are the logins that succeed; None when this one does not know them.

        It sees whole lines: a prefregex is there for failures, and may well want to see one.
        """
        if not self.success:
            return None
        return replace(self, rules=self.success, ignore=(), prefix=None, maxlines=1, success=())

    def match(self, text: str) -> Match | None:
        """The first rule that finds an offender in `text`, a line without its date and line end, seen alone."""
        return self.match_some(text, self.rules)

    def match_some(self, text: str, rules: Sequence[Rule]) -> Match | None:
        """As `match`, when only `rules` can be the ones that match."""
        ignore_all = choose_ignoring_all(self.prefix, self.rules, self.ignore)
        return judge_line(text, self.prefix, rules, self.ignore, ignore_all).match

    def explain(
        self, line: str, now: int, zone: tzinfo | None = None, *, matcher: Matcher | None = None
    ) -> Explanation:
        """What becomes of a whole line, and why; `now` is for dates without a year.

        Lines of a log of a stateful filter are explained in their order with the same `matcher`; without one the
        line is seen alone.
        """
        line = line.rstrip("\r\n")
        found = find_date(line, self.dates)
        rest = line[: found.start] + line[found.end :] if found else line
        at = Clock(zone).read(found, now) if found else None
        date = line[found.start : found.end] if found else None
        told = (matcher or self.matcher()).judge(rest, self.rules, at)
        if told.match and told.match.at is not None:
            at = told.match.at
        form = found.form.name if found else None
        return Explanation(
            told.outcome, told.match, told.rule, told.ignored_by, date, at, rest, told.name, told.user, form
        )


def load_filter(spec: str, folders: Sequence[Path]) -> Filter:
    """The filter that a jail's row names, `NAME` or `NAME[key=value, …]`; raises FilterError."""
    return _compile(read_definition(spec, folders))


def make_filter(failregex: str, ignoreregex: str = "", datepattern: str = "") -> Filter:
    """A filter that stands in no file, of these options as a file has them, `%` being itself; raises FilterError."""
    options = {"failregex": failregex, "ignoreregex": ignoreregex, "datepattern": datepattern}
    return _compile(Definition("by hand", _NO_FILE, options, {}))


def _compile(definition: Definition) -> Filter:
    options = definition.options

    def fail(what: str) -> FilterError:
        place = "" if definition.path == _NO_FILE else f"{printable(str(definition.path))}: "
        return FilterError(f"filter {definition.name}: {place}{printable(what, 300)}")

    maxlines = _maxlines(options.get("maxlines", ""), fail)
    rules = _rules(definition, "failregex", fail, multiline=maxlines > 1)
    if not rules:
        hint = f", and hides {definition.hides}: put it beside that" if definition.hides else ""
        raise fail(f"has no failregex{hint}")
    prefixes = _rules(definition, "prefregex", fail, lines=False, multiline=maxlines > 1)
    prefix = prefixes[0] if prefixes else None
    sources = set(prefix.expression.groupindex) if prefix else set()
    for rule in rules:
        if not SOURCE_GROUPS & (sources | set(rule.expression.groupindex)):
            misspelt = find_misspelt_tag(rule.text)
            hint = f": {misspelt} is none, write <HOST>" if misspelt else ""
            raise fail(f"failregex {rule.number} has no <HOST>, <ADDR> or other tag for the offender's address{hint}")
    success = _rules(definition, "successregex", fail)
    for rule in success:
        if not SOURCE_GROUPS & set(rule.expression.groupindex):
            raise fail(f"successregex {rule.number} has no <ADDR> or other tag for the address that logged in")
    return Filter(
        name=definition.name,
        path=definition.path,
        rules=rules,
        ignore=_rules(definition, "ignoreregex", fail, multiline=maxlines > 1),
        prefix=prefix,
        dates=compile_datepattern(options.get("datepattern", ""), fail),
        journalmatch=options.get("journalmatch", ""),
        maxlines=maxlines,
        success=success,
        files=definition.files,
        warnings=definition.warnings,
    )


def _maxlines(text: str, fail: Callable[[str], Exception]) -> int:
    if not text:
        return 1
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_LINES):
        raise fail(f"maxlines = {text}: a number from 1 to {MOST_LINES} is wanted")
    return int(text)


def _rules(
    definition: Definition,
    option: str,
    fail: Callable[[str], Exception],
    *,
    lines: bool = True,
    multiline: bool = False,
) -> tuple[Rule, ...]:
    value = definition.options.get(option, "")
    texts = [line.strip() for line in value.splitlines()] if lines else [value.strip()]
    path = definition.origins.get(option, definition.path)
    rules: list[Rule] = []
    for text in texts:
        if text:
            number = len(rules) + 1

            def failed(what: str, number: int = number) -> Exception:
                return fail(f"{option} {number} {what}")

            expression = compile_rule(text, failed, multiline=multiline)
            rules.append(Rule(number, text, path, expression, repeated_groups(expression)))
    return tuple(rules)
