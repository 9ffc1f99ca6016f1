"""How `mcban filter test` tells what became of the lines of a log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from mcban.cli.interrupt import interrupt
from mcban.cli.output import plural, rfc3339, say, table
from mcban.core.address import parse_network
from mcban.errors import printable
from mcban.filters import Explanation, Filter, Rule, Scanner
from mcban.filters.watchdog import LIMIT
from mcban.service.inspection import GAVE_UP, Inspection

_SHOWN_AS = {
    "hit": "hit",
    "ignored": "ignored",
    "name": "name, no address",
    "context": "no failure by itself",
    "missed": "no hit",
    GAVE_UP: "given up",
}


def print_hits(scanner: Scanner, blocks: Iterator[bytes], now: int) -> None:
    """The interface's JSON lines: what the engine would count."""
    lines = 0
    for block in blocks:
        for hit in scanner.scan(block, now):
            interrupt.look()
            number, at = lines + hit.line + 1, rfc3339(hit.at)
            click.echo(json.dumps({"line": number, "time": at, "ip": hit.ip, "user": hit.user, "rule": hit.rule}))
        lines += block.count(b"\n")
    given_up = sum(scanner.gave_up.values())
    if given_up:
        say(f"{plural(given_up, 'line')} given up: the filter takes too long for it")


def print_lines(seen: Inspection, blocks: Iterator[bytes], now: int) -> None:
    """One JSON line for each line, with what became of it."""
    for number, _, told in seen.look(blocks, now):
        interrupt.look()
        click.echo(json.dumps(_document(number, told)))


def _document(number: int, told: Explanation) -> dict[str, Any]:
    return {
        "line": number,
        "outcome": told.outcome,
        "rule": told.rule,
        "ignored_by": told.ignored_by,
        "ip": told.match.ip if told.match else None,
        "name": told.name,
        "user": told.user,
        "date": told.date,
        "form": told.form,
        "time": rfc3339(told.at),
        "seen": told.rest,
    }


def look(
    seen: Inspection, blocks: Iterator[bytes], now: int, most: dict[str, int], *, explain: bool
) -> dict[str, list[str]]:
    """Explain every line, or keep as many of each outcome as `most` says, to be shown after the sums."""
    shown: dict[str, list[str]] = {outcome: [] for outcome in most}
    for number, line, told in seen.look(blocks, now):
        interrupt.look()
        if explain:
            _explain(seen.filter, number, line, told)
        elif line.strip() and told.outcome in shown and len(shown[told.outcome]) < most[told.outcome]:
            shown[told.outcome].append(printable(line, 160) + _why(told))
    return shown


def _is_network(text: str | None) -> bool:
    try:
        return "/" in parse_network(text or "")
    except ValueError:
        return False


def _why(told: Explanation) -> str:
    if told.outcome == "ignored":
        return f"  (ignoreregex {told.ignored_by})"
    if told.outcome == "name":
        why = "a network so wide is no attacker" if _is_network(told.name) else "a name in a log is never resolved"
        return f"  (rule {told.rule} finds {printable(told.name or 'nothing', 60)}: {why})"
    if told.outcome == "hit" and told.match:
        return f"  (rule {told.rule}: {told.match.ip})"
    return ""


def _explain(one: Filter, number: int, line: str, told: Explanation) -> None:
    click.echo(f"line {number}: {_SHOWN_AS[told.outcome]}{_why(told)}")
    click.echo(f"  line  {printable(line, 2000)}")
    if told.outcome == GAVE_UP:
        click.echo(f"  some rule takes longer than {LIMIT} s for it: look for repetitions within repetitions")
        return
    if told.date is None:
        click.echo("  date  none found: a hit would take the time of reading")
    else:
        at = rfc3339(told.at) or "no moment: there is no such date"
        click.echo(f"  date  {printable(told.date, 80)} is {at}   ({printable(told.form or '', 80)})")
    click.echo(f"  seen  {printable(told.rest, 2000)}")
    if told.user:
        click.echo(f"  user  {printable(told.user)}")
    if told.rule:
        click.echo(f"  rule  {told.rule}: {printable(one.rules[told.rule - 1].text, 2000)}")
    if told.ignored_by:
        click.echo(f"  ignoreregex  {told.ignored_by}: {printable(one.ignore[told.ignored_by - 1].text, 2000)}")
    if told.outcome == "missed" and one.prefix is not None:
        found = one.prefix.search(told.rest + "\n")
        if found is None:
            click.echo(f"  the prefregex does not match: {printable(one.prefix.text, 2000)}")
        else:
            content = one.prefix.groups(found).get("content")
            click.echo(f"  the prefregex matches, and no rule what it leaves: {printable(content or told.rest, 2000)}")


def summarise(seen: Inspection, shown: dict[str, list[str]]) -> None:
    """The sums of a whole log, then the lines that are to be `shown`, by outcome."""
    one = seen.filter
    table(
        ("RULE", "HITS", "FAILREGEX"),
        ((rule.number, seen.rules[rule.number], text) for rule, text in _tell_apart(one.rules)),
    )
    if one.ignore:
        table(
            ("RULE", "IGNORED", "IGNOREREGEX"),
            ((rule.number, seen.ignored[rule.number], printable(rule.text, 90)) for rule in one.ignore),
        )
    if seen.dates:
        table(("DATES", "FORM"), ((count, printable(form, 90)) for form, count in seen.dates.most_common()))
    hits = seen.outcomes["hit"]
    click.echo(f"{plural(seen.lines, 'line')}, {plural(hits, 'hit')}, {plural(seen.lines - hits, 'other')}")
    for count, one_of, what in (
        (seen.outcomes["missed"], "line", "matched by no rule"),
        (seen.outcomes["ignored"], "line", "ignored"),
        (seen.outcomes["name"], "line", "with a name where the address should be: nobody is banned by a name"),
        (seen.outcomes["context"], "line", "that tell of a session and are no failure by themselves"),
        (
            seen.outcomes[GAVE_UP],
            "line",
            f"given up: some rule takes longer than {LIMIT} s for it, and would for an attack",
        ),
        (seen.dateless, "hit", "without a date that can be read: the time of reading is taken"),
        (seen.undated, "line", "without a date"),
        (seen.overlong, "line", "too long to be matched"),
    ):
        if count:
            click.echo(f"{plural(count, one_of)} {what}")
    for outcome, rows in shown.items():
        for row in rows:
            click.echo(f"{_SHOWN_AS[outcome]}: {row}")


def _tell_apart(rules: Sequence[Rule]) -> Iterator[tuple[Rule, str]]:
    """The rules, each with the part of its text that tells it from the others: most begin alike, for long."""
    texts = [rule.text for rule in rules]
    common = len(os.path.commonprefix(texts)) if len(texts) > 1 else 0  # noqa: RUF071  # letter by letter is meant
    for rule in rules:
        yield rule, printable(rule.text if common < 30 else f"…{rule.text[common:]}", 90)
