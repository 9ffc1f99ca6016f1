"""`mcban import` and `mcban export`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import PurePath

import click

from mcban.cli.output import (
    context_of,
    finish,
    jail_option,
    json_option,
    plural,
    read_blocks,
    rfc3339,
    say,
    yes_option,
)
from mcban.cli.peer import ssh_peers
from mcban.core.duration import parse_duration
from mcban.core.entry_list import EntryList, read_entries
from mcban.errors import DataError, UsageError, printable

BAD_SHOWN = 100
"""Bad lines that are named one by one."""
LINES_AT_ONCE = 1000
"""Lines that are written at once: one by one, a million takes twice as long."""


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option(
    "-j",
    "--jail",
    "names",
    metavar="JAIL|NAME=JAIL",
    multiple=True,
    help="Where to: JAIL for a list; for fail2ban's database its jail NAME and ours, once or more.",
)
@click.option("--for", "length", metavar="TIME", help="How long (3h, 180d, -1 for ever); else the jail's own time.")
@click.option("--whitelist", is_flag=True, help="Allow what the list names; without -j in all jails.")
@click.option("--skip-bad", is_flag=True, help="Leave out lines that cannot be used; else nothing is imported.")
@yes_option
@click.pass_context
def import_(
    ctx: click.Context,
    file: str,
    names: tuple[str, ...],
    length: str | None,
    whitelist: bool,
    skip_bad: bool,
    yes: bool,
) -> int:
    """Bans from a list, or from fail2ban's database.

    A list has an address or network in a line; comments begin with # or ;. A FILE - is standard input. From the
    database of fail2ban come the bans that still run, with their ends, and how often each address was banned; a jail
    goes to the one of the same name unless -j NAME=JAIL says otherwise, and -j NAME= leaves it out.

    What is allowed or protected is skipped. Importing again changes nothing but the ends of bans that become longer.
    """
    from mcban.store.fail2ban import is_sqlite  # noqa: PLC0415  # the service comes with it: not for --help

    try:
        duration = None if length is None else parse_duration(length)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    if not file:
        raise UsageError("the name of the file is empty")
    if is_sqlite(file):
        if duration is not None or whitelist:
            raise UsageError("--for and --whitelist are for lists: fail2ban's database says itself how long")
        return _import_fail2ban(ctx, file, names, yes=yes)
    return _import_list(ctx, file, names, duration, whitelist=whitelist, skip_bad=skip_bad, yes=yes)


def _import_fail2ban(ctx: click.Context, file: str, names: tuple[str, ...], *, yes: bool) -> int:
    from mcban.service.exchange import import_fail2ban  # noqa: PLC0415  # as above
    from mcban.store.fail2ban import read_bans  # noqa: PLC0415

    mapping: dict[str, str] = {}
    for name in names:
        theirs, equals, ours = name.partition("=")
        if not equals or not theirs:
            raise UsageError(f"-j {printable(name)}: write fail2ban's jail and ours, such as -j sshd=mc-ssh-1d")
        if mapping.get(theirs, ours) != ours:
            raise UsageError(f"-j {printable(theirs)}= is given twice, with different jails: say one")
        mapping[theirs] = ours
    bans = read_bans(file)
    return finish(import_fail2ban(context_of(ctx), bans, mapping, yes=yes, peers=ssh_peers(os.environ)))


def _import_list(
    ctx: click.Context,
    file: str,
    names: tuple[str, ...],
    duration: int | None,
    *,
    whitelist: bool,
    skip_bad: bool,
    yes: bool,
) -> int:
    from mcban.service.exchange import import_allowed, import_list  # noqa: PLC0415  # as above

    if len(names) > 1 or (not names and not whitelist):
        raise UsageError("a list goes to one jail: name it with -j JAIL")
    if whitelist and duration is not None:
        raise UsageError("--for is for bans: what is allowed is so until mcban whitelist remove")
    name = names[0] if names else None
    context = context_of(ctx)
    read = read_entries(read_blocks(file), _parse_allowed if whitelist else None)
    shown = "standard input" if file == "-" else printable(file)
    if read.bad:
        _tell_bad(read, shown)
        if not skip_bad:
            raise DataError(
                f"{shown}: {plural(len(read.bad), 'bad line')} of {read.lines}: nothing was imported; --skip-bad "
                "leaves them out"
            )
    if name is None or whitelist:
        return finish(import_allowed(context, name, read.entries))
    source = "standard input" if file == "-" else PurePath(file).name
    peers = ssh_peers(os.environ)
    return finish(import_list(context, name, read.entries, duration, source, yes=yes, peers=peers))


def _parse_allowed(text: str) -> str:
    from mcban.config import parse_allowed  # noqa: PLC0415  # as above

    entry = parse_allowed(text)
    if entry.endswith("/0"):
        raise ValueError(f"{entry} is everybody: to ban nobody, mcban general disable")
    return entry


def _tell_bad(read: EntryList, shown: str) -> None:
    for line in read.bad[:BAD_SHOWN]:
        say(f"{shown}:{line.number}: {printable(line.why, 200)}")
    if len(read.bad) > BAD_SHOWN:
        say(f"{shown}: … and {len(read.bad) - BAD_SHOWN} more")


@click.command()
@jail_option
@click.option("--whitelist", is_flag=True, help="What SQL allows, instead of bans.")
@json_option
@click.pass_context
def export(ctx: click.Context, name: str | None, whitelist: bool, as_json: bool) -> None:
    """The bans in force, as a plain list.

    An address or network in a line, each once: mcban import reads it back. Without -j: of all jails.
    """
    from mcban.service.exchange import export_allowed, export_bans  # noqa: PLC0415  # as above

    context = context_of(ctx)
    if as_json:
        rows: Iterator[dict[str, object]]
        if whitelist:
            rows = ({"ip": entry, "jail": scope} for entry, scope in export_allowed(context, name))
        else:
            rows = ({"ip": e, "jail": jail, "until": rfc3339(end)} for e, jail, end in export_bans(context, name))
        _emit_each(rows)
        return
    pairs = export_allowed(context, name) if whitelist else export_bans(context, name)
    said: set[str] = set()  # an address may be banned in several jails
    lines: list[str] = []
    for entry, *_ in pairs:
        if entry not in said:
            said.add(entry)
            lines.append(entry)
            if len(lines) == LINES_AT_ONCE:
                click.echo("\n".join(lines))
                lines.clear()
    if lines:
        click.echo("\n".join(lines))


def _emit_each(rows: Iterator[dict[str, object]]) -> None:
    """One JSON document, a list, written as it comes."""
    before = "["
    for row in rows:
        click.echo(f"{before}\n  {json.dumps(row)}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")
