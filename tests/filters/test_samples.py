"""Our filters on lines that the real daemons wrote: samples/FILTER, the expectation above each line.

`# hit: {"ip", "user", "time", "rule"}` and `# no hit: {"why"}` stand above one line each; the latter may say which
`rule` the line comes near. `# filter: SPEC` holds for all lines below it, `# note:` is for people. Times are UTC;
dates without offset or year are read as in UTC at the end of November 2026.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mcban.filters import LineMatch, Scanner, load_filter

FOLDERS = [Path(__file__).parents[2] / "etc" / "filter.d"]
SAMPLES = Path(__file__).parent / "samples"
NAMES = ["mc-exim-filter", "mc-sshd-filter", "mc-webauth-filter"]
NOW = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp())
OTHER = b"203.0.113.9"
"""Nobody with this address ever connected: it stands in lines only because an attacker wrote it there."""


@dataclass(frozen=True)
class Sample:
    """A line, the filter that reads it, and what is expected; `hit` is None for a line that must not match."""

    number: int
    spec: str
    line: bytes
    hit: dict[str, Any] | None
    near: int | None


def read_samples(name: str) -> list[Sample]:
    """The samples of a file; fails on a line without an expectation."""
    spec, expected, samples = name, None, []
    for number, line in enumerate((SAMPLES / name).read_bytes().split(b"\n"), start=1):
        if line.startswith(b"# filter: "):
            spec = line[10:].decode()
        elif line.startswith((b"# hit: ", b"# no hit: ")):
            assert expected is None, f"{name}:{number}: the line before this expectation is missing"
            expected = (line.startswith(b"# hit: "), json.loads(line.split(b": ", 1)[1]))
        elif line and not line.startswith(b"# note: "):
            assert expected, f"{name}:{number}: no expectation above this line"
            is_hit, values = expected
            near = None if is_hit else values.get("rule")
            samples.append(Sample(number, spec, line, values if is_hit else None, near))
            expected = None
    return samples


def found(match: LineMatch) -> dict[str, object]:
    """A match as an expectation is written."""
    time = match.at and datetime.fromtimestamp(match.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"ip": match.ip, "user": match.user, "time": time, "rule": match.rule}


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_finds_what_the_daemons_write(name: str) -> None:
    """Each captured line gives the address, login and time that stand above it, or none."""
    scanners: dict[str, Scanner] = {}
    wrong = []
    for sample in read_samples(name):
        scanner = scanners.setdefault(sample.spec, Scanner([load_filter(sample.spec, FOLDERS)], UTC))
        matches = [found(match) for match in scanner.scan(sample.line + b"\n", NOW)]
        if matches != ([sample.hit] if sample.hit else []):
            wrong.append(f"{name}:{sample.number}: {matches}")
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_block_is_read_like_its_lines(name: str) -> None:
    """A whole block gives the hits of its lines, in their order."""
    samples = [sample for sample in read_samples(name) if sample.spec == name]
    block = b"".join(sample.line + b"\n" for sample in samples)
    matches = Scanner([load_filter(name, FOLDERS)], UTC).scan(block, NOW)
    expected = [(index, sample.hit) for index, sample in enumerate(samples) if sample.hit]
    assert [(match.line, found(match)) for match in matches] == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_a_line_that_it_takes_and_one_that_it_leaves(name: str) -> None:
    """No rule is without a sample that it matches and a similar one that it must not match."""
    rules = {
        (sample.spec, rule.number) for sample in read_samples(name) for rule in load_filter(sample.spec, FOLDERS).rules
    }
    texts = {(spec, number): load_filter(spec, FOLDERS).rules[number - 1].text for spec, number in rules}
    hit, left = defaultdict(bool), defaultdict(bool)
    for sample in read_samples(name):
        if sample.hit:
            hit[texts[sample.spec, sample.hit["rule"]]] = True
        elif sample.near:
            left[texts[sample.spec, sample.near]] = True
    assert [text for text in set(texts.values()) if not hit[text]] == []
    assert [text for text in set(texts.values()) if not left[text]] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_attackers_text_names_nobody_else(name: str) -> None:
    """At least twenty lines hold the address of another, written by the attacker; none makes the other the offender."""
    samples = [sample for sample in read_samples(name) if OTHER in sample.line]
    assert len(samples) >= 20
    assert not any(sample.hit and sample.hit["ip"] == OTHER.decode() for sample in samples)


@pytest.mark.parametrize("name", NAMES)
def test_both_families_are_recognised(name: str) -> None:
    """IPv4 and IPv6 offenders are found alike."""
    hits = [sample.hit["ip"] for sample in read_samples(name) if sample.hit]
    assert any(":" in ip for ip in hits)
    assert any("." in ip for ip in hits)
