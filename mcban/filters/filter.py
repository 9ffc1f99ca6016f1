"""A filter ready to match: its rules, what it makes of a line, and why.

Like fail2ban, a rule sees the line without its date: what stood before and after the date, joined. An address in a
match is canonical and was parsed; what looks like one and is none is no match, and neither is a DNS name where
`<HOST>` would take one: a name in a log is the attacker's to choose, and is never resolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import lru_cache
from pathlib import Path

from mcban.core.address import parse_network
from mcban.errors import FilterError, printable
from mcban.filters.compile import ADDRESS_GROUPS, SOURCE_GROUPS, compile_rule
from mcban.filters.datepattern import compile_datepattern
from mcban.filters.dates import Clock, DateForm, find_date
from mcban.filters.reader import Definition, FilterFile, list_filters, read_definition

LONGEST_USER = 255
"""Characters of a login name that are kept: the rest of an attacker's megabyte is of no use."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One failregex: its number from 1, its text as the file has it after interpolation, the file, the expression."""

    number: int
    text: str
    path: Path
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule found. `rule` counts from 1; `ip` is an address or a network in canonical form."""

    rule: int
    ip: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a filter makes of a line and why.

    `outcome` is `hit`, `ignored` or `missed`; `rule` the failregex that matched, `ignored_by` the ignoreregex that
    overruled it, both from 1. `date` is the date as the line has it, `at` its moment in seconds since the epoch,
    `rest` the line as the rules saw it.
    """

    outcome: str
    match: Match | None
    rule: int | None
    ignored_by: int | None
    date: str | None
    at: int | None
    rest: str


@dataclass(frozen=True, slots=True)
class Filter:
    """A loaded filter."""

    name: str
    path: Path
    rules: tuple[Rule, ...]
    ignore: tuple[Rule, ...]
    prefix: Rule | None
    dates: tuple[DateForm, ...]
    journalmatch: str

    def match(self, text: str) -> Match | None:
        """The first rule that finds an offender in `text`, a line without its date and line end."""
        return self.match_some(text, self.rules)

    def match_some(self, text: str, rules: Sequence[Rule]) -> Match | None:
        """As `match`, when only `rules` can be the ones that match."""
        match = self._offender(text, rules)
        if match and self.ignore and self._ignored_by(text):
            return None
        return match

    def explain(self, line: str, now: int, zone: tzinfo | None = None) -> Explanation:
        """What becomes of a whole line, and why; `now` is for dates without a year."""
        line = line.rstrip("\r\n")
        found = find_date(line, self.dates)
        rest = line[: found.start] + line[found.end :] if found else line
        match = self._offender(rest, self.rules)
        ignored_by = self._ignored_by(rest)
        at = Clock(zone).read(found, now) if found else None
        date = line[found.start : found.end] if found else None
        outcome = "ignored" if ignored_by else "hit" if match else "missed"
        return Explanation(
            outcome, None if ignored_by else match, match.rule if match else None, ignored_by, date, at, rest
        )

    def _ignored_by(self, text: str) -> int | None:
        line = text + "\n"
        return next((rule.number for rule in self.ignore if rule.pattern.search(line)), None)

    def _offender(self, text: str, rules: Sequence[Rule]) -> Match | None:
        # A pattern that ends in white space may count on the line end, as it may with fail2ban.
        line = text + "\n"
        before: Mapping[str, str | None] = {}
        if self.prefix:
            found = self.prefix.pattern.search(line)
            if not found:
                return None
            before = found.groupdict()
            content = before.get("content")
            line = line if content is None else content + "\n"
        for rule in rules:
            found = rule.pattern.search(line)
            if found:
                groups = {**before, **found.groupdict()} if before else found.groupdict()
                ip = _address(groups)
                if ip:
                    return Match(rule.number, ip, _user(groups))
        return None


def _address(groups: Mapping[str, str | None]) -> str | None:
    for name in ADDRESS_GROUPS:
        text = groups.get(name)
        if text:
            cidr = groups.get("cidr")
            return _canonical(f"{text}/{cidr}" if cidr else text)
    return None


@lru_cache(maxsize=8192)
def _canonical(text: str) -> str | None:
    """The canonical form of an address or network, or None; kept, since offenders come again and again."""
    try:
        return parse_network(text)
    except ValueError:
        return None


def _user(groups: Mapping[str, str | None]) -> str | None:
    user = groups.get("user")
    if not user:
        user = next((value for name, value in groups.items() if value and name.startswith("alt_user")), None)
    return user[:LONGEST_USER] if user else None


def load_filter(spec: str, folders: Sequence[Path]) -> Filter:
    """The filter that a jail's row names, `NAME` or `NAME[key=value, …]`; raises FilterError."""
    definition = read_definition(spec, folders)
    options = definition.options

    def fail(what: str) -> FilterError:
        return FilterError(f"filter {definition.name}: {printable(str(definition.path))}: {printable(what, 300)}")

    if options.get("maxlines", "1").strip() != "1":
        raise fail(f"maxlines = {options['maxlines']}: mcban matches single lines only, so far")
    rules = _rules(definition, "failregex", fail)
    if not rules:
        raise fail("has no failregex")
    prefixes = _rules(definition, "prefregex", fail, lines=False)
    prefix = prefixes[0] if prefixes else None
    sources = set(prefix.pattern.groupindex) if prefix else set()
    for rule in rules:
        if not SOURCE_GROUPS & (sources | set(rule.pattern.groupindex)):
            raise fail(f"failregex {rule.number} has no <HOST>, <ADDR> or other tag for the offender's address")
    return Filter(
        name=definition.name,
        path=definition.path,
        rules=rules,
        ignore=_rules(definition, "ignoreregex", fail),
        prefix=prefix,
        dates=compile_datepattern(options.get("datepattern", ""), fail),
        journalmatch=options.get("journalmatch", ""),
    )


def _rules(
    definition: Definition, option: str, fail: Callable[[str], Exception], *, lines: bool = True
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

            rules.append(Rule(number, text, path, compile_rule(text, failed)))
    return tuple(rules)


__all__ = ["Explanation", "Filter", "FilterFile", "Match", "Rule", "list_filters", "load_filter"]
