"""A filter as it reads the journal's lines instead of a file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mcban.errors import FilterError
from mcban.filters.datepattern import compile_datepattern
from mcban.filters.filter import Filter, load_filter
from mcban.filters.reader import parse_spec

JOURNAL_DATE = r"^%Y-%m-%dT%H:%M:%S\.%f%z\s"
"""How lines of the journal begin, whatever dates the filter looks for in files: the journal knows the time of each
entry. The blank goes with the date, since fail2ban gives its filters the rest of such lines without one."""


def load_journal_filter(spec: str, folders: Sequence[Path]) -> Filter:
    """As `load_filter`, for lines of the journal: with `logtype=journal`, as fail2ban's common.conf asks for, unless
    the row names a logtype itself. Raises FilterError."""
    _, parameters = parse_spec(spec)
    if "logtype" not in parameters:
        name, bracket, rest = spec.strip().partition("[")
        rest = rest.strip().removesuffix("]").strip()
        spec = f"{name}[logtype=journal{', ' if rest else ''}{rest}]" if bracket else f"{name}[logtype=journal]"
    return for_journal(load_filter(spec, folders))


def for_journal(one: Filter) -> Filter:
    """The same filter, finding its dates as lines of the journal have them."""

    def fail(what: str) -> FilterError:
        return FilterError(f"filter {one.name}: {what}")

    return replace(one, dates=compile_datepattern(JOURNAL_DATE, fail))
