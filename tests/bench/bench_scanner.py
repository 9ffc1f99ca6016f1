"""Finding the hits in a log: the ways to find candidates, and the scanner as a whole, in lines a CPU second.

    python -m tests.bench.bench_scanner [lines]

The log is `exim_log.py`'s, in blocks of 1 MiB as the engine reads them, once with 10 % failures and once with 1 %;
with our exim filter alone, and with the filters of Debian's fail2ban package beside it when FAIL2BAN_ROOT names the
unpacked package. google-re2 is measured when it is installed. docs/matching.md explains the figures.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mcban.errors import McbanError
from mcban.filters import Filter, Scanner, load_filter
from mcban.filters.demands import needle_expression
from mcban.filters.prefilter import make_hyperscan_finder, make_plain_finder
from mcban.filters.scanner import _demand
from mcban.shipped import shipped
from tests.bench import exim_log

LINES = 500_000
BLOCK = 1 << 20
SLOW = 8
"""Blocks that slow ways are given: what they take is counted up."""


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    ours = [load_filter("mc-exim-filter", [shipped("etc") / "filter.d"])]
    theirs = (
        load_all(Path(os.environ["FAIL2BAN_ROOT"], "etc/fail2ban/filter.d")) if "FAIL2BAN_ROOT" in os.environ else []
    )
    for share in (0.1, 0.01):
        blocks = make_blocks(count, share)
        for filters in filter(None, (ours, ours + theirs if theirs else None)):
            print(f"\n{count:,} lines, {share:.0%} failures, {len(filters)} filters; lines a CPU second")
            measure(filters, blocks)
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB, the log included")


def load_all(folder: Path) -> list[Filter]:
    """The filters of a folder; files that are there to be included are none."""
    filters = []
    for path in sorted(folder.glob("*.conf")):
        with contextlib.suppress(McbanError):
            filters.append(load_filter(path.stem, [folder]))
    return filters


def make_blocks(count: int, share: float) -> list[bytes]:
    """The generator's log, cut after line ends."""
    rest = "".join(exim_log.lines(count, share, 20_000)).encode()
    blocks = []
    while rest:
        end = rest.rfind(b"\n", 0, BLOCK) + 1
        blocks.append(rest[:end])
        rest = rest[end:]
    return blocks


def measure(filters: list[Filter], blocks: list[bytes]) -> None:
    """All ways to find the candidates of these filters, and the scanner with the two that it knows."""
    demands = [_demand(one, rule) for one in filters for rule in one.rules]
    needles = list({needle: None for demand in demands if demand for needle in demand})
    print(f"  {len(demands)} rules demand {len(needles)} needles, {demands.count(None)} of them nothing")
    start = time.process_time()
    hyperscan = make_hyperscan_finder(needles)
    print(f"  {'Hyperscan: compiled in':34} {(time.process_time() - start) * 1e3:12.1f} ms")
    say("candidates: Hyperscan", blocks, lambda block: len(hyperscan(block)))
    plain = make_plain_finder(needles)
    say("candidates: each needle by itself", blocks[:SLOW], lambda block: len(plain(block)))
    together = b"|".join(map(needle_expression, needles))
    say("candidates: re, one expression", blocks[:SLOW], count_matches(re.compile(together)))
    with contextlib.suppress(ImportError):
        import re2  # not one of the tests' requirements

        # Latin-1, since a log's bytes need be no UTF-8
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        say("candidates: google-re2", blocks[:SLOW], count_matches(re2.compile(together, options)))
    for name, finder in (("Hyperscan", make_hyperscan_finder), ("each needle by itself", make_plain_finder)):
        scanner = Scanner(filters, find_needles=finder)
        some = blocks if finder is make_hyperscan_finder else blocks[:SLOW]
        say(f"scanner: {name}", some, scan_with(scanner), "hits")


def count_matches(pattern: re.Pattern[bytes]) -> Callable[[bytes], int]:
    """Counts the needles in a block."""
    return lambda block: sum(1 for _ in pattern.finditer(block))


def scan_with(scanner: Scanner) -> Callable[[bytes], int]:
    """Counts the hits in a block."""
    now = int(time.time())
    return lambda block: len(scanner.find(block, now))


def say(what: str, blocks: Iterable[bytes], work: Callable[[bytes], int], found: str = "found") -> None:
    """Measure one way and print it."""
    lines = sum(block.count(b"\n") for block in blocks)
    start = time.process_time()
    count = sum(map(work, blocks))
    print(
        f"  {what:34} {lines / (time.process_time() - start):12,.0f}   {count:,} {found} in {lines:,} lines", flush=True
    )


if __name__ == "__main__":
    main()
