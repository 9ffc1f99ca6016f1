"""`mcban replay`: what a ladder, or several, would have done on a log."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from mcban.cli.output import context_of, emit, jail_required, json_option, plural, read_blocks, rfc3339, say, table
from mcban.cli.progress import Progress
from mcban.core import ladder
from mcban.core.allowlist import AllowList
from mcban.core.duration import FOREVER_DURATION, format_duration
from mcban.core.model import FOREVER, Group, Kind
from mcban.errors import ConfigError, NoPermissionError, UnavailableError, UsageError, printable
from mcban.logs import size_of
from mcban.service.context import Context, World
from mcban.service.jails import read_book, select_group
from mcban.service.preview import MOST_THRESHOLDS, Column, Effect, Preview, preview
from mcban.service.replay import Replayed, choose_sources, name_logs
from mcban.service.replay import replay as replay_logs
from mcban.service.world import load_world
from mcban.store.jails import JailRecord
from mcban.wiring import open_database

LARGEST_THRESHOLD = 1_000_000
CUSTOMERS_SHOWN = 10
_WIDTH = 79
_CELL = 11


@click.command()
@jail_required
@click.argument("logs", metavar="LOG…", nargs=-1, required=True)
@click.option(
    "--maxretry",
    "thresholds",
    metavar="N[,N…]",
    help="Try these numbers of hits instead of the group's own, and show side by side what each would have done.",
)
@json_option
@click.pass_context
def replay(ctx: click.Context, name: str, logs: tuple[str, ...], thresholds: str | None, as_json: bool) -> None:
    """What the ladder would have done on a log.

    Every LOG (the oldest first; `-` for standard input; also one compressed by gzip, bzip2, xz or zstd;
    `systemd-journal` for what the jail's filter asks of the journal) is read from its start to its end, by its own
    clock. Nothing is changed. A LOG that cannot be read to its end gives an error and no answer.

    The jails are those of the database; without one, those that mcban comes with.

    With --maxretry, for each number N and each jail of the ladder generated from it:

    \b
    addresses held     how many the jail would have held at some time
    failures kept out  hits from an address at a time when the jail held it
    likely customers   how many of those held also logged in somewhere in
                       these logs: known if the filter has a successregex
    together           any of the jails: an address, or a hit, once

    The log is taken as it is: hits that would have been kept out climb the ladder all the same.
    """
    numbers = None if thresholds is None else parse_thresholds(thresholds)
    context = context_of(ctx, database=False)
    world = _world(context)
    group = _select(world, name, whole=numbers is not None)
    sources = choose_sources(context, group, logs)
    for log in _named_again(logs):
        say(f"{printable(log)} is named twice, and its lines count twice")
    sizes = [size_of(log) for log in logs]
    with Progress(sum(size or 0 for size in sizes) if None not in sizes else 0, wanted=not as_json) as progress:
        blocks = _blocks(name_logs(sources, logs), progress)
        if numbers is not None:
            seen = preview(context, group, world.allow, sources, blocks, numbers)
        else:
            done = replay_logs(context, group, world.allow, sources, blocks)
    for line in seen.warnings if numbers is not None else done.warnings:
        say(line)
    if numbers is not None:
        _show_preview(group, seen, as_json=as_json)
    else:
        _show_bans(world, name, done, as_json=as_json)


def _named_again(logs: Sequence[str]) -> list[str]:
    """Those of `logs` that lead to a file that one before them led to."""
    seen: set[str] = set()
    again: list[str] = []
    for log in logs:
        path = os.path.realpath(log) if log != "-" and "\0" not in log else log
        if path in seen:
            again.append(log)
        seen.add(path)
    return again


def parse_thresholds(text: str) -> list[int]:
    """The numbers of `--maxretry`, in their order. Raises UsageError for what is none, comes twice, or is too much."""
    words = [word.strip() for word in text.split(",")]
    if len(words) > MOST_THRESHOLDS:
        raise UsageError(f"--maxretry: {len(words)} numbers; {MOST_THRESHOLDS} are tried at once at the most")
    numbers: list[int] = []
    for word in words:
        number = int(word) if word.isascii() and word.isdigit() and len(word) <= len(str(LARGEST_THRESHOLD)) else 0
        if not 1 <= number <= LARGEST_THRESHOLD:
            raise UsageError(f"--maxretry: '{printable(word, 40)}' is no whole number from 1 to {LARGEST_THRESHOLD}")
        if number in numbers:
            raise UsageError(f"--maxretry: {number} is there twice")
        numbers.append(number)
    return numbers


def _select(world: World, name: str, *, whole: bool) -> Group:
    group = select_group(world.book, name)
    if not group.tiers:
        raise UsageError(f"{group.name} has no tiers, which count hits: mcban jail list")
    if whole and name not in world.book.groups:
        raise UsageError(f"{name} is one jail of {group.name}: --maxretry makes a whole ladder, say -j {group.name}")
    return group


def _blocks(logs: Sequence[str], progress: Progress) -> Iterator[tuple[str, bytes]]:
    for log in logs:
        for block in read_blocks(log, progress.read):
            yield log, block
            progress.matched(block)


def _world(context: Context) -> World:
    """The jails of the database; those shipped where there is none, or none that can be used, which is said."""
    try:
        open_database(context)
        return context.database.read(lambda t: load_world(context, t))
    except (ConfigError, NoPermissionError, UnavailableError) as error:
        say(f"using the jails that mcban comes with: {error}")
        return World(read_book(_shipped(), context.host.port_number), AllowList())


def _shipped() -> Iterator[JailRecord]:
    for group in ladder.SHIPPED:
        rest = (group.port, group.filter, "mc-custom", group.logpath, ladder.DEFAULT_MAX_COUNT)
        for step in ladder.generate(group.hits):
            name = ladder.tier_name(group.name, step.suffix)
            yield JailRecord(name, True, step.maxretry, step.findtime, step.bantime, *rest)
        yield JailRecord(group.name + ladder.BLACKLIST_SUFFIX, True, 0, 0, FOREVER_DURATION, *rest)


# One ladder: its bans


def _show_bans(world: World, name: str, done: Replayed, *, as_json: bool) -> None:
    # A tier by itself cannot be judged: its group is, and what concerns the tier is shown.
    meant = {name} if name in world.book.jails and name not in world.book.groups else set(world.book.jails)
    bans = [ban for ban in done.bans if ban.jail in meant]
    if as_json:
        shown = [{"ip": b.ip, "jail": b.jail, "at": rfc3339(b.since), "until": rfc3339(b.until)} for b in bans]
        emit({"lines": done.lines, "hits": done.hits, "bans": shown})
        return
    if bans:
        table(
            ("AT", "ADDRESS", "JAIL", "FOR", "WHY"),
            (
                (
                    rfc3339(b.since),
                    b.ip,
                    b.jail,
                    "ever" if b.until >= FOREVER else format_duration(b.until - b.since),
                    b.reason,
                )
                for b in bans
            ),
        )
    whom = plural(len({b.ip for b in bans}), "address", "addresses")
    click.echo(f"{plural(done.lines, 'line')}, {plural(done.hits, 'hit')}, {plural(len(bans), 'ban')} of {whom}")


# Several: a table


def _show_preview(group: Group, seen: Preview, *, as_json: bool) -> None:
    if as_json:
        columns = [
            {
                "maxretry": column.maxretry,
                "jails": [{"jail": jail, **_document(effect)} for jail, effect in column.jails.items()],
                "together": _document(column.together),
            }
            for column in seen.columns
        ]
        emit({"lines": seen.lines, "hits": seen.hits, "logins": seen.logins, "thresholds": columns})
        return
    labels = {jail: f"  {_label(group, jail)}" for jail in seen.columns[0].jails}
    width = max(len("likely customers"), *(len(label) for label in labels.values()))
    at_once = max(1, (_WIDTH - width) // _CELL)
    for start in range(0, len(seen.columns), at_once):
        if start:
            click.echo()
        _columns(seen.columns[start : start + at_once], labels, width)
    said = [plural(seen.lines, "line"), plural(seen.hits, "hit")]
    if seen.logins is not None:
        said.append(f"{plural(seen.logins, 'login')} that succeeded")
    click.echo(", ".join(said))
    _name_customers(seen.columns)
    if seen.logins is None:
        name = next(tier.filter for tier in group.tiers)
        click.echo(
            f"likely customers: not known, since filter {printable(name)} has no successregex that says what a login "
            "that succeeds looks like"
        )


def _name_customers(columns: Sequence[Column]) -> None:
    held: dict[str, list[str]] = {}
    for column in columns:
        for customer in column.together.customers or ():
            held.setdefault(customer, []).append(str(column.maxretry))
    for customer, numbers in list(held.items())[:CUSTOMERS_SHOWN]:
        click.echo(f"likely customer {customer}: held with {', '.join(numbers)}")
    if len(held) > CUSTOMERS_SHOWN:
        click.echo(f"and {plural(len(held) - CUSTOMERS_SHOWN, 'likely customer')} more: --json names all")


def _columns(columns: Sequence[Column], labels: dict[str, str], width: int) -> None:
    def row(label: str, cells: Sequence[object]) -> None:
        click.echo((label.ljust(width) + "".join(str(cell).rjust(_CELL) for cell in cells)).rstrip())

    def part(title: str, value: Callable[[Effect], object]) -> None:
        row(title, ())
        for jail, label in labels.items():
            row(label, [value(column.jails[jail]) for column in columns])
        if len(labels) > 1:
            row("  together", [value(column.together) for column in columns])

    row("maxretry", [column.maxretry for column in columns])
    part("addresses held", lambda effect: effect.held)
    part("failures kept out", lambda effect: effect.kept_out)
    if columns[0].together.customers is not None:
        part("likely customers", lambda effect: len(effect.customers or ()))


def _label(group: Group, jail: str) -> str:
    _, kind, suffix = ladder.split_name(jail)
    return jail if group.tiers[0].kind is Kind.CUSTOM else suffix if kind is Kind.TIER else "bl"


def _document(effect: Effect) -> dict[str, Any]:
    customers = None if effect.customers is None else list(effect.customers)
    return {"held": effect.held, "kept_out": effect.kept_out, "customers": customers}
