"""What a filter makes of the lines of a log, one by one, and why: for whoever writes or mends a filter.

Judges each line by the exact expressions, as the engine does in the end; without the engine's way to find out quickly
that a line cannot match, since here the question is why it does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import tzinfo

from mcban.filters import OVERLONG, Explanation, Filter

OUTCOMES = ("hit", "ignored", "name", "context", "missed")


@dataclass(slots=True)
class Inspection:
    """A filter, and what was counted with it so far.

    `outcomes` counts lines by what became of them, `rules` the hits by failregex, `ignored` the lines by ignoreregex,
    `dates` the lines by the form of their date. `dateless` are hits without a date that can be read, `undated` lines
    without any date, `overlong` those too long to be matched.
    """

    filter: Filter
    zone: tzinfo | None = None
    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[int] = field(default_factory=Counter)
    ignored: Counter[int] = field(default_factory=Counter)
    dates: Counter[str] = field(default_factory=Counter)
    undated: int = 0
    dateless: int = 0
    overlong: int = 0

    def look(self, blocks: Iterator[bytes], now: int) -> Iterator[tuple[int, str, Explanation]]:
        """Each line that was matched, by its number from 1, with what became of it; `now` is the time of reading."""
        matcher = self.filter.matcher()
        for block in blocks:
            for raw in block.split(b"\n")[:-1]:
                self.lines += 1
                if len(raw) > OVERLONG:
                    self.overlong += 1
                    continue
                line = raw.decode("utf-8", "replace").rstrip("\r")
                told = self.filter.explain(line, now, self.zone, matcher=matcher)
                self._count(told)
                yield self.lines, line, told

    def _count(self, told: Explanation) -> None:
        self.outcomes[told.outcome] += 1
        if told.outcome == "hit" and told.rule is not None:
            self.rules[told.rule] += 1
            self.dateless += told.at is None
        if told.ignored_by is not None:
            self.ignored[told.ignored_by] += 1
        if told.form is None:
            self.undated += 1
        else:
            self.dates[told.form] += 1
