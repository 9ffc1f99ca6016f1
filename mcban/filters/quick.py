"""Matching single lines with little work for each: the way of most filters and nearly all lines.

The result is that of `rules.judge_line`. What a rule's groups mean is worked out once, not for each line: which of
them hold the address and the login, and whether an expression can only match at the line's beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_INET, inet_pton
from typing import NamedTuple

from mcban.filters.expression import Search
from mcban.filters.filter import Filter
from mcban.filters.rules import ALTERNATIVE_USER, LONGEST_USER, Rule, canonical, choose_ignoring_all

_ADDRESSES = ("ip4", "ip6", "addr", "host")
_UNUSUAL = frozenset(("fid", "cidr", "nofail", "mlfgained", "mlfid"))
"""Groups that make more of a line than an address and a login."""

Finding = tuple[int, str, str | None]
"""The rule's number from 1, the offender in canonical form, the login."""


class Reader(NamedTuple):
    """A rule made ready: how it is searched for, its number, and the numbers of the groups of addresses and logins."""

    search: Search
    number: int
    addresses: tuple[int, ...]
    users: tuple[int, ...]


class QuickMatcher:
    """Matches single lines with a filter for which that is all; `make_quick` knows which."""

    def __init__(self, one: Filter) -> None:
        self._readers: dict[int, Reader] = {}
        self._prefix = one.prefix.search if one.prefix else None
        self._content = one.prefix.expression.groupindex.get("content", 0) if one.prefix else 0
        self._ignoring = tuple(rule.search for rule in one.ignore)
        self._ignoring_all = tuple(rule.search for rule in choose_ignoring_all(one.prefix, one.rules, one.ignore))
        self.match = self._match if one.prefix or one.ignore else find_offender
        """From a line without its date, but with its line end, and those readers whose rules could match it, in their
        order, to what the filter finds; the third argument is of no use here."""

    def reader(self, rule: Rule) -> Reader:
        """One of the filter's rules, made ready."""
        made = self._readers.get(rule.number)
        if made is None:
            made = self._readers[rule.number] = _reader(rule)
        return made

    def _match(self, whole: str, readers: Sequence[Reader], at: int | None = None) -> Finding | None:
        line = whole
        if self._prefix:
            prefix = self._prefix(line)
            if prefix is None:
                return None
            content = prefix[self._content] if self._content else None
            line = line if content is None else content + "\n"
        found = find_offender(line, readers)
        if found and (
            any(search(line) for search in self._ignoring) or any(search(whole) for search in self._ignoring_all)
        ):
            return None
        return found


def make_quick(one: Filter) -> QuickMatcher | None:
    """A quick matcher for a filter; None when its rules tell more than an address and a login."""
    if one.stateful or any(_UNUSUAL & rule.expression.groupindex.keys() for rule in one.rules):
        return None
    # What the prefregex finds would add to what a rule finds.
    names = one.prefix.expression.groupindex if one.prefix else ()
    if any(name in _UNUSUAL or name.startswith((*_ADDRESSES, "user", "alt_user", "content__")) for name in names):
        return None
    return QuickMatcher(one)


def find_offender(line: str, readers: Sequence[Reader], _at: int | None = None) -> Finding | None:
    """What the first rule that finds an address finds in `line`."""
    for search, number, addresses, users in readers:
        found = search(line)
        if found is None:
            continue
        for group in addresses:
            text = found[group]
            if text:
                break
        else:
            continue
        try:
            inet_pton(AF_INET, text)  # takes nothing but an IPv4 address in canonical form
        except (OSError, ValueError):
            ip = canonical(text)
            if ip is None:
                continue
            text = ip
        for group in users:
            user = found[group]
            if user:
                return number, text, user[:LONGEST_USER]
        return number, text, None
    return None


def _reader(rule: Rule) -> Reader:
    groups = rule.expression.groupindex
    aliases = [(name, groups[alias]) for alias, name in rule.repeated]

    def numbers(name: str) -> list[int]:
        """The groups of a tag, of which at most one takes part in a match."""
        return [groups[name], *(number for alias, number in aliases if alias == name)]

    users = ["user"] if "user" in groups else []
    users += sorted(filter(ALTERNATIVE_USER.fullmatch, groups))
    return Reader(
        rule.search,
        rule.number,
        tuple(number for name in _ADDRESSES if name in groups for number in numbers(name)),
        tuple(number for name in users for number in numbers(name)),
    )
