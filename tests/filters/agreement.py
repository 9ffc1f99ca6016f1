"""fail2ban's samples, and what mcban makes of them.

A file of samples holds lines of a log; above each stands `# failJSON: {…}` with what fail2ban finds in it: whether
it matches, the offender, the time in the zone of fail2ban's tests, the login. `# filterOptions: […]` names the
parameters of the filter for the lines below, each set in turn; `# fileOptions: {…}` holds for the whole file, and
`# addFILE: "NAME"` adds another file to this one. A line without an expectation must not match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from mcban.core.address import parse_network
from mcban.filters import Filter, Matcher, load_filter
from mcban.filters.journal import load_journal_filter

ZONE = ZoneInfo("Europe/Zurich")
NOW = int(datetime(2005, 8, 14, 10, tzinfo=UTC).timestamp())
"""The clock of fail2ban's tests."""
JOURNAL_TIME = datetime.fromtimestamp(NOW, ZONE).strftime("%Y-%m-%dT%H:%M:%S.%f%z")
_DIRECTIVE = re.compile(r"#+ ?(failJSON|fileOptions|filterOptions|addFILE):(.+)$")
_CONDITION = re.compile(r"(name|opts\.get\('(\w+)'\)) ?(==|!=) ?'([\w-]*)'")


@dataclass(frozen=True)
class Sample:
    """A line, the parameters of the filter that reads it, and what fail2ban makes of it."""

    where: str
    line: str
    options: Mapping[str, str]
    expected: Mapping[str, Any]

    @property
    def spec(self) -> str:
        """The filter's parameters as a jail's row has them."""
        given = ",".join(f'{key}="{value}"' for key, value in self.options.items() if not key.startswith("test."))
        return f"[{given}]" if given else ""


def holds(condition: str, name: str, options: Mapping[str, str]) -> bool:
    """Whether a sample's condition is met; those that are used compare the filter's name or one of its options."""
    found = _CONDITION.fullmatch(condition)
    assert found, f"a condition of a new kind: {condition}"
    value = name if found[1] == "name" else options.get(found[2])
    return (value == found[4]) == (found[3] == "==")


def read_samples(name: str, folder: Path) -> Iterator[Sample]:
    """The samples of filter `name`, in order; lines of several sets of parameters come once for each."""
    files = [name]
    common: dict[str, str] = {}
    sets: list[dict[str, str]] = [{}]
    for file in files:  # grows while it is read
        expected: dict[str, Any] | None = None
        passed_over = False
        for number, line in enumerate((folder / file).read_text("utf-8", "replace").split("\n"), start=1):
            directive = _DIRECTIVE.match(line) if expected is None else None
            if directive:
                value = json.loads(directive[2])
                if directive[1] == "fileOptions":
                    common = value
                elif directive[1] == "addFILE":
                    files.append(value)
                elif directive[1] == "failJSON":
                    expected = value
                else:
                    offered = [common | one for one in (value if isinstance(value, list) else [value])]
                    sets = [one for one in offered if holds_all(one, name)]
                    passed_over = not sets
            elif expected is not None or (line.strip() and not line.startswith("#")):
                if not passed_over:
                    for options in sets:
                        constraint = (expected or {}).get("constraint")
                        if not constraint or holds(constraint, name, options):
                            yield Sample(f"{file}:{number}", line.rstrip("\r"), options, expected or {})
                expected = None


def holds_all(options: Mapping[str, str], name: str) -> bool:
    """Whether a set of parameters is meant for filter `name`."""
    condition = options.get("test.condition")
    return not condition or holds(condition, name, options)


def canonical(host: str) -> str:
    """An address as mcban writes it, a name as it is."""
    try:
        return parse_network(host)
    except ValueError:
        return host


class Reading:
    """One filter with all its sets of parameters, reading its samples."""

    def __init__(self, name: str, folders: list[Path]) -> None:
        self.name, self.folders = name, folders
        self._loaded: dict[str, tuple[Filter, Matcher]] = {}
        self.names = 0
        """Lines that match by a host name: fail2ban would look it up, mcban tells it and bans nobody."""

    def difference(self, sample: Sample) -> str | None:
        """What mcban finds other than fail2ban, or nothing."""
        journal = sample.options.get("logtype") == "journal"
        if sample.spec not in self._loaded:
            one = (load_journal_filter if journal else load_filter)(self.name + sample.spec, self.folders)
            self._loaded[sample.spec] = (one, one.matcher())
        one, matcher = self._loaded[sample.spec]
        line = sample.line
        if journal:  # of which the entries' time is known apart from their text, and here put before it
            line = f"{JOURNAL_TIME} {sample.options.get('test.prefix-line', '')}{line}"
        told = one.explain(line, NOW, ZONE, matcher=matcher)
        outcome, user, name, at = told.outcome, told.user, told.name, told.at
        ip = told.match.ip if told.match else None
        expected = sample.expected
        matched = outcome in {"hit", "name"}
        if matched != expected.get("match", False):
            return f"{outcome} ({ip or name}) instead of {'a match' if expected.get('match') else 'none'}"
        if not matched:
            return None
        self.names += outcome == "name"
        wrong = []
        if "host" in expected and (ip or name) != canonical(expected["host"]):
            wrong.append(f"host {ip or name} instead of {expected['host']}")
        if "dns" in expected and name != expected["dns"]:
            wrong.append(f"name {name} instead of {expected['dns']}")
        if "user" in expected and (user or "") != (expected["user"] or ""):
            wrong.append(f"user {user} instead of {expected['user']}")
        if "users" in expected and user not in expected["users"]:
            wrong.append(f"user {user}, who is none of {expected['users']}")
        if expected.get("time"):
            local = datetime.strptime(expected["time"].partition(".")[0], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=ZONE)
            if at != int(local.timestamp()):
                found = at and datetime.fromtimestamp(at, ZONE).replace(tzinfo=None).isoformat()
                wrong.append(f"time {found} instead of {expected['time']}")
        return "; ".join(wrong) or None
