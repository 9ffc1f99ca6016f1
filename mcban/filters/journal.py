"""A filter as it reads the journal's lines instead of a file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mcban.errors import FilterError, printable
from mcban.filters.datepattern import compile_datepattern
from mcban.filters.filter import Filter, load_filter
from mcban.filters.reader import parse_spec

JOURNAL_DATE = r"^%Y-%m-%dT%H:%M:%S\.%f%z\s"
"""How lines of the journal begin, whatever dates the filter looks for in files: the journal knows the time of each
entry. The blank goes with the date, since fail2ban gives its filters the rest of such lines without one."""


def load_journal_filter(spec: str, folders: Sequence[Path]) -> Filter:
    """As `load_filter`, for lines of the journal: with `logtype=journal`, as fail2ban's common.conf asks for, unless
    the row names a logtype itself. Raises FilterError."""

    def fail(what: str) -> FilterError:
        return FilterError(f"filter {printable(spec)}: {what}")

    _, parameters = parse_spec(spec)
    if "logtype" not in parameters:
        name, bracket, rest = spec.strip().partition("[")
        rest = rest.strip().removesuffix("]").strip()
        spec = f"{name}[logtype=journal{', ' if rest else ''}{rest}]" if bracket else f"{name}[logtype=journal]"
    return replace(load_filter(spec, folders), dates=compile_datepattern(JOURNAL_DATE, fail))
