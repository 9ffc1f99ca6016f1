"""Matching the lines of one log in their order, for filters that join several lines into one failure.

Two ways lead there. With `<F-MLFID>` lines that carry the same identifier, such as a daemon's process id, belong to
one session: one line tells the address, another that the login failed. With `maxlines` above 1 an expression is
matched with the last lines as one text. Which is which, and what counts, are facts of fail2ban's format (its manual
page jail.conf(5), its change log for 0.10 and 0.11).
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcban.filters.rules import (
    MISSED,
    Groups,
    Match,
    Rule,
    Verdict,
    choose_ignoring_all,
    conclude,
    cut_content,
    find_address,
    find_ignoring,
    find_name,
    find_user,
    judge_line,
    search_rules,
)

MOST_SESSIONS = 1000
"""Sessions that are remembered; the one that was silent for longest goes first, so a flood takes no memory."""
LONGEST_ID = 1000
"""Characters; a longer identifier joins nothing. Cutting it could join what is not the same."""
SESSION_SECONDS = 600
"""A session silent for longer, by the log's clock, is over: process ids come again, and then mean somebody else."""


class Matcher:
    """Matches the lines of one log with one filter. This one keeps nothing from line to line."""

    def __init__(self, prefix: Rule | None, rules: Sequence[Rule], ignore: Sequence[Rule]) -> None:
        self.prefix, self.rules, self.ignore = prefix, tuple(rules), tuple(ignore)
        self.ignore_all = choose_ignoring_all(prefix, self.rules, self.ignore)

    def match(self, rest: str, rules: Sequence[Rule], at: int | None = None) -> Match | None:
        """The failure that the next line completes, or None.

        `rest` is the line without its date and line end, `rules` those of the filter that could match it, in their
        order, and `at` its moment in seconds since the epoch where it is known: old sessions end by it.
        """
        return self.judge(rest, rules, at).match

    def judge(self, rest: str, rules: Sequence[Rule], at: int | None = None) -> Verdict:
        """As `match`, and why."""
        return judge_line(rest, self.prefix, rules, self.ignore, self.ignore_all)


@dataclass(slots=True)
class _Session:
    """What the lines of one identifier have told so far."""

    ip: str | None = None
    name: str | None = None
    user: str | None = None
    users: set[str] = field(default_factory=set)
    pending: bool = False
    """A failure was seen before the address was known."""
    at: int | None = None


class _Sessions:
    """The sessions of one log."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Session] = OrderedDict()

    def _take(self, identifier: str, at: int | None) -> _Session:
        session = self._open.pop(identifier, None)
        if session and at is not None and session.at is not None and abs(at - session.at) > SESSION_SECONDS:
            session = None
        session = session or _Session()
        session.at = session.at if at is None else at
        return session

    def conclude(self, rule: Rule, groups: Groups, at: int | None, moment: int | None = None) -> Verdict:
        """What a rule's match says: with the session that it names, or by itself."""
        identifier = groups.get("mlfid")
        return self._judge(identifier, rule, groups, at) if identifier else conclude(rule, groups, moment)

    def _judge(self, identifier: str, rule: Rule, groups: Groups, at: int | None) -> Verdict:
        """What a line of the session `identifier` is, with all that its lines before have told."""
        session = self._take(identifier, at)
        failed = not groups.get("nofail")
        if groups.get("mlfgained"):
            # Who got in made his earlier failures good.
            failed = session.pending = False
        self._merge(session, groups)
        if not groups.get("mlfforget") and len(identifier) <= LONGEST_ID:
            self._open[identifier] = session
            if len(self._open) > MOST_SESSIONS:
                self._open.popitem(last=False)
        # What only adds to the session also completes a failure that waited for an address; and who tries several
        # logins in one session fails with each.
        if not failed and not session.pending and len(session.users) < 2:
            return Verdict("context", rule=rule.number)
        session.pending = not (session.ip or session.name)
        if session.ip:
            match = Match(rule.number, session.ip, session.user)
            return Verdict("hit", match, rule.number, user=session.user)
        if session.name:
            return Verdict("name", rule=rule.number, name=session.name, user=session.user)
        return Verdict("context", rule=rule.number)

    @staticmethod
    def _merge(session: _Session, groups: Groups) -> None:
        ip, name = find_address(groups), find_name(groups)
        if ip or name:
            if (session.ip or session.name) not in (None, ip or name):
                # Logins tried before are not those of whoever comes now, or a login that only looks like an address
                # would make somebody else one who tries several.
                session.users.clear()
            # Also a name takes the place of an address: it may be that of the next owner of the same process id.
            session.ip, session.name = ip, None if ip else name
        user = find_user(groups)
        if user or groups.get("user") is not None:
            session.user = user  # an empty login is one, too
        if user and len(session.users) < 2:
            session.users.add(user)


class SessionMatcher(Matcher):
    """Joins lines by `<F-MLFID>`."""

    def __init__(self, prefix: Rule | None, rules: Sequence[Rule], ignore: Sequence[Rule]) -> None:
        super().__init__(prefix, rules, ignore)
        self._sessions = _Sessions()

    def judge(self, rest: str, rules: Sequence[Rule], at: int | None = None) -> Verdict:
        cut = cut_content(self.prefix, rest + "\n")
        if cut is None:
            return MISSED
        line, before = cut
        for rule, _, groups in search_rules(line, before, rules):
            ignored_by = find_ignoring(line, self.ignore) or find_ignoring(rest + "\n", self.ignore_all)
            if ignored_by:
                return Verdict("ignored", rule=rule.number, ignored_by=ignored_by)
            return self._sessions.conclude(rule, groups, at)
        return MISSED


class WindowMatcher(Matcher):
    """Matches with the last `maxlines` lines as one text, of which a failure takes out the lines that it matched.

    Needs every line of the log: also one that no rule could match moves the window on.
    """

    def __init__(self, prefix: Rule | None, rules: Sequence[Rule], ignore: Sequence[Rule], maxlines: int) -> None:
        super().__init__(prefix, rules, ignore)
        self.maxlines = maxlines
        self._lines: deque[tuple[str, int | None]] = deque(maxlen=maxlines)
        self._sessions = _Sessions()

    def judge(self, rest: str, rules: Sequence[Rule], at: int | None = None) -> Verdict:
        self._lines.append((rest, at))
        # Rules that could not match this line alone may match it with those before.
        cut = cut_content(self.prefix, "".join(f"{line}\n" for line, _ in self._lines))
        if cut is None:
            return MISSED
        text, before = cut
        for rule, found, groups in search_rules(text, before, self.rules):
            # Where the prefregex cut something out, places in the text are none in the window: all of it is taken.
            taken, moment = self._take(None if self.prefix else found)
            ignored_by = find_ignoring(taken, self.ignore)
            if ignored_by:
                return Verdict("ignored", rule=rule.number, ignored_by=ignored_by)
            return self._sessions.conclude(rule, groups, at, moment)
        return MISSED

    def remember(self, rest: str, at: int | None) -> None:
        """Move the window on by a line with which, as the caller knows, no rule can match."""
        self._lines.append((rest, at))

    def _take(self, found: re.Match[str] | None) -> tuple[str, int | None]:
        """Take the lines of a match out of the window, but for those that it skipped; their text and last moment."""
        first, last, skipped = 0, sys.maxsize, list[tuple[int, int]]()
        if found:
            first, last = found.span()
            skipped = [found.span(name) for name in found.re.groupindex if name.startswith("skiplines")]
        kept: list[tuple[str, int | None]] = []
        taken: list[str] = []
        moment: int | None = None
        start = 0
        for line, at in self._lines:
            end = start + len(line) + 1
            if start < last and end > first and not any(low <= start and end <= high for low, high in skipped):
                taken.append(line)
                moment = moment if at is None else at
            else:
                kept.append((line, at))
            start = end
        self._lines.clear()
        self._lines.extend(kept)
        return "\n".join(taken) + "\n", moment
