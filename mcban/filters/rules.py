"""One rule, and what a line tells by it: who the offender is, and by which login.

An address in a match is canonical and was parsed. A name where an address might stand is told as a name: it is the
attacker's to choose, so it is never resolved and bans nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mcban.core.address import exceeded_width, parse_network
from mcban.filters.expression import Expression, Search

Groups = Mapping[str, str | None]
"""What a rule's named groups took, those of the prefregex included."""

ADDRESS_GROUPS = ("fid", "ip4", "ip6", "addr", "host")
"""The groups in which a rule may leave the offender, in the order in which they are asked: who is to be banned may be
another than who is named, when a rule says so by <F-ID>."""
SOURCE_GROUPS = frozenset((*ADDRESS_GROUPS, "dns", "mlfid"))
"""A rule without any of these names no offender, and no other line that might."""
ALTERNATIVE_USER = re.compile(r"alt_user(?:_\d+)?")
"""The groups of <F-ALT_USER> and <F-ALT_USER_1>; <F-ALT_USER1> is something else, as it is with fail2ban: its filters
put there who runs the daemon."""
_WHERE = frozenset(("ip4", "ip6", "addr", "host", "dns", "cidr"))
"""The groups that together say where an offender is: one who is told by some of them is not told by others."""
LONGEST_USER = 255
"""Characters of a login or host name that are kept: the rest of an attacker's megabyte is of no use."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One failregex: its number from 1, its text as the file has it after interpolation, the file, the expression.

    `repeated` pairs each group of the expression that stands for a tag used more than once with the tag's own group.
    """

    number: int
    text: str
    path: Path
    expression: Expression
    repeated: tuple[tuple[str, str], ...] = ()

    @property
    def search(self) -> Search:
        """See `Expression.search`."""
        return self.expression.search

    def groups(self, found: re.Match[str]) -> dict[str, str | None]:
        """The named groups of a match; of a tag in several branches, what the branch taken has."""
        groups: dict[str, str | None] = found.groupdict()
        for alias, name in self.repeated:
            value = groups.pop(alias)
            if value is not None and not groups[name]:
                groups[name] = value
        return groups


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule found. `rule` counts from 1; `ip` is an address or a network in canonical form.

    Of a failure that takes several lines `at` is the moment of the last of them that has a date; otherwise it is
    None, and the moment is the line's own.
    """

    rule: int
    ip: str
    user: str | None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a line is to a filter.

    `outcome` is `hit`, `name` (an offender that is no address: `name` says which), `context` (no failure, or none
    whose offender is known yet), `ignored` or `missed`. `rule` is the failregex that matched, `ignored_by` the
    ignoreregex that overruled it, both from 1.
    """

    outcome: str
    match: Match | None = None
    rule: int | None = None
    ignored_by: int | None = None
    name: str | None = None
    user: str | None = None


MISSED = Verdict("missed")


def cut_content(prefix: Rule | None, line: str) -> tuple[str, Groups] | None:
    """What rules see of `line`, and what the prefregex found before it; None when the prefregex does not match."""
    if prefix is None:
        return line, {}
    found = prefix.search(line)
    if not found:
        return None
    before = prefix.groups(found)
    content = before.get("content")
    return (line if content is None else content + "\n"), before


def search_rules(line: str, before: Groups, rules: Sequence[Rule]) -> Iterator[tuple[Rule, re.Match[str], Groups]]:
    """Each of `rules` that matches, with its groups; those of the prefregex where the rule has none of its own.

    A rule that finds an address or name leaves no other one of the prefregex: that may be a proxy's, and of another
    family.
    """
    for rule in rules:
        found = rule.search(line)
        if found:
            groups = rule.groups(found)
            if before:
                own = {name: value for name, value in groups.items() if value is not None}
                told = before
                if not _WHERE.isdisjoint(own):
                    told = {name: value for name, value in before.items() if name not in _WHERE}
                groups = {**told, **own}
            yield rule, found, groups


def find_ignoring(line: str, ignore: Sequence[Rule]) -> int | None:
    """The number of the first ignoreregex that matches."""
    return next((rule.number for rule in ignore if rule.search(line)), None)


def choose_ignoring_all(prefix: Rule | None, rules: Sequence[Rule], ignore: Sequence[Rule]) -> Sequence[Rule]:
    """The ignoreregex that also see what the prefregex cuts away; `rules` are all of the filter.

    They are tried on the content in any case. On the whole line fail2ban tries them where that is less work than the
    rules are, which it takes to be so with three rules more than them; filters are written with that at work.
    """
    return ignore if prefix and len(ignore) < len(rules) - 2 else ()


def judge_line(
    text: str, prefix: Rule | None, rules: Sequence[Rule], ignore: Sequence[Rule], ignore_all: Sequence[Rule] = ()
) -> Verdict:
    """What a line without its date and line end is, by itself.

    The first rule that finds an address decides, unless one before it says that there is no failure. `ignore` sees
    what the rules see, `ignore_all` also what the prefregex cut away.
    """
    # A pattern that ends in white space may count on the line end, as it may with fail2ban.
    cut = cut_content(prefix, text + "\n")
    if cut is None:
        return MISSED
    line, before = cut
    verdict = MISSED
    for rule, _, groups in search_rules(line, before, rules):
        told = conclude(rule, groups)
        if told.match or verdict is MISSED:
            verdict = told
        if told.match or is_no_failure(groups):
            break
    if verdict.rule is not None and ignore:
        ignored_by = find_ignoring(line, ignore) or find_ignoring(text + "\n", ignore_all)
        if ignored_by:
            return Verdict("ignored", rule=verdict.rule, ignored_by=ignored_by)
    return verdict


def is_no_failure(groups: Groups) -> bool:
    """Whether a rule says that what it matched is no failure."""
    return bool(groups.get("nofail") or groups.get("mlfgained"))


def conclude(rule: Rule, groups: Groups, moment: int | None = None) -> Verdict:
    """What a rule's match says by itself; `moment` is for a failure of several lines."""
    if is_no_failure(groups):
        return Verdict("context", rule=rule.number)
    ip, user = find_address(groups), find_user(groups)
    if ip:
        return Verdict("hit", Match(rule.number, ip, user, moment), rule.number, user=user)
    name = find_name(groups)
    return Verdict("name" if name else "context", rule=rule.number, name=name, user=user)


def find_address(groups: Groups) -> str | None:
    """The offender's address or network in canonical form; None when what stands there is none."""
    cidr = groups.get("cidr")
    for name in ADDRESS_GROUPS:
        text = groups.get(name)
        if text:
            ip = canonical(f"{text}/{cidr}" if cidr and "/" not in text else text)
            if ip or name != "fid":
                return ip
    return None


def find_name(groups: Groups) -> str | None:
    """The offender as the line has it, when it is no address."""
    text = next((groups[name] for name in ("dns", *ADDRESS_GROUPS) if groups.get(name)), None)
    cidr = groups.get("cidr")
    return (f"{text}/{cidr}" if cidr and "/" not in text else text)[:LONGEST_USER] if text else None


def find_user(groups: Groups) -> str | None:
    """The login; where it is empty, the first alternative, by its name, that is not."""
    user = groups.get("user")
    if not user:
        user = next((groups[name] for name in sorted(filter(ALTERNATIVE_USER.fullmatch, groups)) if groups[name]), None)
    return user[:LONGEST_USER] if user else None


@lru_cache(maxsize=8192)
def canonical(text: str) -> str | None:
    """The canonical form of an address or network, or None; kept, since offenders come again and again.

    None also for a network that is too wide: where a log says who is to be banned, it may not say everybody.
    """
    try:
        entry = parse_network(text)
    except ValueError:
        return None
    return entry if exceeded_width(entry) is None else None
