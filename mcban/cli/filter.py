"""`mcban filter`."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import click

from mcban.cli.output import Noun, config_of, emit, json_option, plural, read_blocks, rfc3339, table
from mcban.errors import printable
from mcban.filters import Filter, Scanner, list_filters, load_filter

MISSED_SHOWN = 10


@click.group("filter", cls=Noun)
def filter_() -> None:
    """The filters: what counts as a hit.

    In fail2ban's own format.
    """


@filter_.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Every filter that is found, and where it comes from."""
    found = list_filters(config_of(ctx).filter_path)
    if as_json:
        emit([{"name": one.name, "path": str(one.path)} for one in found])
    else:
        table(("FILTER", "FILE"), ((one.name, one.path) for one in found))


@filter_.command()
@click.argument("name", metavar="FILTER")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """A filter's rules as they are matched, after includes and parameters."""
    one = _load(ctx, name)
    if as_json:
        emit(
            {
                "name": one.name,
                "path": str(one.path),
                "rules": [{"rule": rule.number, "failregex": rule.text, "path": str(rule.path)} for rule in one.rules],
                "ignore": [rule.text for rule in one.ignore],
                "prefix": one.prefix.text if one.prefix else None,
            }
        )
        return
    click.echo(f"{one.name}: {one.path}")
    if one.prefix:
        click.echo(f"prefregex  {printable(one.prefix.text, 2000)}")
    for rule in one.rules:
        click.echo(f"failregex {rule.number:3}  {printable(rule.text, 2000)}")
    for rule in one.ignore:
        click.echo(f"ignoreregex {rule.number}  {printable(rule.text, 2000)}")


@filter_.command()
@click.argument("name", metavar="FILTER")
@click.argument("log", metavar="LOG")
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, log: str, as_json: bool) -> None:
    """Match a log with a filter.

    LOG is a file, or `-` for standard input. With --json one JSON line for each hit.
    """
    one = _load(ctx, name)
    scanner = Scanner([one])
    counts: Counter[int] = Counter()
    missed: list[str] = []
    lines = 0
    for block in read_blocks(log):
        hits = scanner.scan(block, int(time.time()))
        for hit in hits:
            counts[hit.rule] += 1
            if as_json:
                number, at = lines + hit.line + 1, rfc3339(hit.at)
                click.echo(json.dumps({"line": number, "time": at, "ip": hit.ip, "user": hit.user, "rule": hit.rule}))
        if not as_json and len(missed) < MISSED_SHOWN:
            matched = {hit.line for hit in hits}
            rows = block.decode("utf-8", "replace").splitlines()
            missed += [row for number, row in enumerate(rows) if number not in matched and row.strip()]
            del missed[MISSED_SHOWN:]
        lines += block.count(b"\n")
    if not as_json:
        _summarise(one, counts, lines, missed, scanner)


def _summarise(one: Filter, counts: Counter[int], lines: int, missed: list[str], scanner: Scanner) -> None:
    table(
        ("RULE", "HITS", "FAILREGEX"),
        ((rule.number, counts[rule.number], printable(rule.text, 90)) for rule in one.rules),
    )
    total = sum(counts.values())
    click.echo(f"{plural(lines, 'line')}, {plural(total, 'hit')}, {plural(lines - total, 'other')}")
    if scanner.dateless:
        click.echo(f"{plural(scanner.dateless, 'hit')} without a date that can be read: the time of reading is taken")
    if scanner.overlong:
        click.echo(f"{plural(scanner.overlong, 'line')} too long to be matched")
    for row in missed:
        click.echo(f"no hit: {printable(row, 160)}")


def _load(ctx: click.Context, name: str) -> Filter:
    """A filter by its name, or by the path of its file."""
    folders = list(config_of(ctx).filter_path)
    head, bracket, parameters = name.partition("[")
    if "/" in head:
        path = Path(head)
        return load_filter(path.stem + bracket + parameters, [path.parent])
    return load_filter(name, folders)
