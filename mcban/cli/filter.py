"""`mcban filter`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from mcban.cli.inspection import look, print_hits, print_lines, summarise
from mcban.cli.output import Noun, config_of, emit, json_option, plural, read_blocks, say, table
from mcban.cli.progress import Progress
from mcban.errors import FilterError, UsageError, printable
from mcban.filters import (
    Filter,
    FilterFile,
    Scanner,
    for_journal,
    list_filters,
    load_filter,
    load_journal_filter,
    make_filter,
    parse_zone,
)
from mcban.service.inspection import GAVE_UP, Inspection

MISSED_SHOWN = 10
_BY_HAND = re.compile(r"<(?:HOST|ADDR|IP4|IP6|SUBNET|DNS|F-ID/?)>")
_SPEC = re.compile(r"[\w.-]+(?:\[.*\])?", re.DOTALL)


@click.group("filter", cls=Noun)
def filter_() -> None:
    """The filters: what counts as a hit.

    In fail2ban's own format.
    """


@filter_.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Every filter that is found, and where it comes from.

    Of one name, the folder that `filter_path` has first wins; the NOTE tells what it hides, which other files it is
    made of, and why it cannot be used, if so. Files that only others include have no failregex of their own.
    """
    folders = config_of(ctx).filter_path
    rows = [_describe(one, folders) for one in list_filters(folders)]
    if as_json:
        emit(rows)
        return
    table(("FILTER", "FILE", "NOTE"), ((row["name"], row["path"], _note(row)) for row in rows))
    unusable = sum(not row["usable"] for row in rows)
    click.echo(f"{plural(len(rows), 'file')}, {plural(len(rows) - unusable, 'filter')} that can be used")


def _describe(one: FilterFile, folders: tuple[Path, ...]) -> dict[str, Any]:
    home = one.path.parent if one.path.parent in folders else one.path.parent.parent
    others = [folder for folder in folders if folder != home]
    hidden = [[folder / f"{one.name}{kind}" for kind in (".conf", ".local")] for folder in others]
    hides = [str(path) for both in hidden for path in [next(filter(_is_file, both), None)] if path]
    row: dict[str, Any] = {"name": one.name, "path": str(one.path), "files": [], "hides": hides}
    try:
        loaded = load_filter(one.name, folders)
    except FilterError as error:
        return row | {"usable": False, "why": str(error), "warnings": []}
    files = [str(path) for path in loaded.files]
    return row | {"files": files, "usable": True, "why": None, "warnings": list(loaded.warnings)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that is not to be looked into, for one
        return False


def _note(row: dict[str, Any]) -> str:
    if not row["usable"]:
        why = row["why"].removeprefix(f"filter {row['name']}: ").removeprefix(f"{row['path']}: ")
        if why.startswith(f"{row['path']} "):  # the subject of the sentence
            why = "it" + why.removeprefix(row["path"])
        return printable("for others to include" if why == "has no failregex" else f"cannot be used: {why}", 200)
    also = [Path(file).name for file in row["files"] if file != row["path"]]
    said = [f"with {', '.join(also)}"] if also else []
    said += [f"hides {path}" for path in row["hides"]]
    warnings = (line.removeprefix(f"filter {row['name']}: ") for line in row["warnings"])
    said += [printable(line.removeprefix(f"{row['path']} "), 200) for line in warnings]
    return "; ".join(said)


@filter_.command()
@click.argument("name", metavar="FILTER")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """A filter's rules as they are matched, after includes and parameters.

    FILTER is a name, with parameters as in `NAME[mode=aggressive]`, or the path of a file.
    """
    one = _load(ctx, name)
    if as_json:
        emit(
            {
                "name": one.name,
                "path": str(one.path),
                "files": [str(path) for path in one.files],
                "rules": [{"rule": rule.number, "failregex": rule.text, "path": str(rule.path)} for rule in one.rules],
                "ignore": [rule.text for rule in one.ignore],
                "prefix": one.prefix.text if one.prefix else None,
                "success": [rule.text for rule in one.success],
                "dates": [form.name for form in one.dates],
                "maxlines": one.maxlines,
                "journalmatch": one.journalmatch or None,
            }
        )
        return
    click.echo(f"{one.name}: {printable(str(one.path), 2000)}")
    for path in one.files:
        if path != one.path:
            click.echo(f"also reads  {printable(str(path), 2000)}")
    if one.prefix:
        click.echo(f"prefregex  {printable(one.prefix.text, 2000)}")
    for kind, rules in (("failregex", one.rules), ("ignoreregex", one.ignore), ("successregex", one.success)):
        for rule in rules:
            origin = "" if rule.path == one.path else f"   ({printable(rule.path.name)})"
            click.echo(f"{kind} {rule.number:3}  {printable(rule.text, 2000)}{origin}")
    if one.maxlines > 1:
        click.echo(f"maxlines   {one.maxlines}")
    if one.journalmatch:
        click.echo(f"journalmatch  {printable(one.journalmatch, 2000)}")


@filter_.command()
@click.argument("name", metavar="FILTER")
@click.argument("log", metavar="LOG")
@click.option("--ignoreregex", metavar="REGEX", default="", help="With a REGEX as FILTER: lines that are no hits.")
@click.option("--datepattern", metavar="PATTERN", default="", help="With a REGEX as FILTER: how dates are written.")
@click.option("--logtimezone", metavar="ZONE", help="The zone of dates that name none, such as UTC or Europe/Berlin.")
@click.option(
    "--print-missed",
    type=click.IntRange(0),
    metavar="N",
    default=MISSED_SHOWN,
    help="Show N lines that no rule matched.",
)
@click.option(
    "--print-ignored", type=click.IntRange(0), metavar="N", default=0, help="Show N lines that an ignoreregex took."
)
@click.option("--print-matched", type=click.IntRange(0), metavar="N", default=0, help="Show N lines that are hits.")
@click.option("--explain", is_flag=True, help="Say of every line what became of it and why.")
@json_option
@click.pass_context
def test(
    ctx: click.Context,
    name: str,
    log: str,
    ignoreregex: str,
    datepattern: str,
    logtimezone: str | None,
    print_missed: int,
    print_ignored: int,
    print_matched: int,
    explain: bool,
    as_json: bool,
) -> None:
    """Match a log with a filter.

    FILTER is a name, with parameters as in `NAME[mode=aggressive]`, the path of a file, or a REGEX with <HOST>, <ADDR>
    or the like in it. LOG is a file (also one compressed by gzip, bzip2, xz or zstd), `-` for standard input, the text
    of a line, or `systemd-journal`: what the filter's journalmatch asks for, or, as in `systemd-journal _COMM=sshd`,
    what stands behind it.

    With --json one JSON line for each hit; with --json --explain one for each line.
    """
    from mcban.logs import is_journal  # noqa: PLC0415  # for two commands only

    zone, journal = _zone(logtimezone), is_journal(log)
    if (ignoreregex or datepattern) and not _is_by_hand(name):
        raise UsageError("--ignoreregex and --datepattern go with a REGEX as FILTER: a filter has its own")
    if journal and (datepattern or logtimezone):
        raise UsageError("--datepattern and --logtimezone are for files: the journal knows the time of each entry")
    if _is_by_hand(name):
        one = _make(name, ignoreregex, datepattern, journal=journal)
    else:
        one = _load(ctx, name, journal=journal)
    if journal:
        log = _entries(log, one)
    now, taken_as_line = int(time.time()), not journal and _is_line(log)
    most = {"hit": print_matched, "ignored": print_ignored, "name": print_missed, GAVE_UP: print_missed}
    most["missed"] = print_missed
    with Progress(0 if taken_as_line else _size(log), wanted=not (as_json or explain)) as progress:
        blocks = _as_block(log) if taken_as_line else _watch(log, progress)
        if as_json and not explain:
            print_hits(Scanner([one], zone), blocks, now)
            return
        seen = Inspection(one, zone)
        if as_json:
            print_lines(seen, blocks, now)
            return
        _say_what_is_taken(one, name, taken_as_line=taken_as_line)
        shown = look(seen, blocks, now, most, explain=explain or taken_as_line)
    summarise(seen, shown)


def _is_by_hand(name: str) -> bool:
    return _BY_HAND.search(name) is not None and _SPEC.fullmatch(name) is None


def _make(failregex: str, ignoreregex: str, datepattern: str, *, journal: bool) -> Filter:
    one = make_filter(failregex.strip(), ignoreregex.strip(), datepattern)
    return for_journal(one) if journal else one


def _entries(journal: str, one: Filter) -> str:
    from mcban.logs import name_entries  # noqa: PLC0415  # for two commands only

    try:
        return name_entries(journal, one.journalmatch)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return parse_zone(name)
    except ValueError as error:
        raise UsageError(f"--logtimezone: {error}") from None


def _is_line(log: str) -> bool:
    """Whether LOG is the text of a line: what has a blank, begins with no slash, and names no file."""
    if not re.search(r"\s", log) or log.startswith("/"):
        return False
    try:
        return not Path(log).exists()
    except (OSError, ValueError):
        return True


def _size(log: str) -> int:
    from mcban.logs import size_of  # noqa: PLC0415  # for two commands only

    return size_of(log) or 0


def _watch(log: str, progress: Progress) -> Iterator[bytes]:
    from mcban.logs import UTF16_SAID, is_utf16  # noqa: PLC0415  # for two commands only

    for number, block in enumerate(read_blocks(log, progress.read)):
        if not number and is_utf16(block):
            say(f"{printable(log)}: {UTF16_SAID}")
        yield block
        progress.matched(block)


def _as_block(line: str) -> Iterator[bytes]:
    yield " ".join(line.splitlines()).encode("utf-8", "surrogateescape") + b"\n"


def _say_what_is_taken(one: Filter, name: str, *, taken_as_line: bool) -> None:
    if _is_by_hand(name):
        click.echo(f"FILTER is taken as a regex: {printable(one.rules[0].text, 200)}")
    if taken_as_line:
        click.echo("LOG names no file: it is taken as the text of a line")


def _load(ctx: click.Context, name: str, *, journal: bool = False) -> Filter:
    """A filter by its name, or by the path of its file, as it reads files or the journal; what may be wrong with it is
    said."""
    one = _find(ctx, name, load_journal_filter if journal else load_filter)
    for line in one.warnings:
        say(line)
    return one


def _find(ctx: click.Context, name: str, load: Callable[[str, Sequence[Path]], Filter]) -> Filter:
    folders = list(config_of(ctx).filter_path)
    head, bracket, parameters = name.partition("[")
    if "/" in head:
        path = Path(head)
        ends_right = path.suffix in {".conf", ".local"}
        if not ends_right and _is_file(path):
            raise FilterError(f"{head} is no filter's file: the name of one ends in .conf or .local")
        return load((path.stem if ends_right else path.name) + bracket + parameters, [path.parent])
    return load(name, folders)
