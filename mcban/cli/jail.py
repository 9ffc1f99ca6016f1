"""`mcban jail`."""

from __future__ import annotations

import re

import click

from mcban.cli.output import (
    Noun,
    context_of,
    emit,
    finish,
    force_option,
    heard_or_not,
    jail_option,
    jail_required,
    json_option,
    plural,
    say,
    table,
    yes_option,
)
from mcban.core.duration import format_duration, parse_duration
from mcban.daemon.presence import ask_to_reload
from mcban.errors import NoPermissionError, UsageError, printable
from mcban.service import jail_changes
from mcban.service.report import JailLine, Overview, overview
from mcban.store.jails import JailRecord

WHOLE = re.compile(r"-1|[0-9]{1,4}|10000")
LEAST = {"maxretry": 1, "max_count": 0}


@click.group(cls=Noun)
def jail() -> None:
    """The jails: rows of fail2ban_jail."""


def _document(line: JailLine, seen: Overview) -> dict[str, object]:
    j = line.jail
    return {
        "name": j.name,
        "group": j.group,
        "kind": j.kind.value,
        "enabled": j.enabled,
        "maxretry": j.maxretry,
        "findtime": j.findtime,
        "bantime": j.bantime,
        "max_count": j.max_count,
        "v6_prefix": j.v6_prefix,
        "share_hits": j.share_hits,
        "port": str(j.ports),
        "filter": j.filter,
        "banaction": j.banaction,
        "logpath": j.logpath.split(),
        "logtimezone": j.logtimezone or None,
        "bans": line.bans,
        "bans_ever": line.bans_ever,
        "hits": line.hits,
        "faults": [fault.why for fault in seen.faults if fault.what in {j.name, j.group}],
    }


@jail.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Every jail in a line."""
    seen = overview(context_of(ctx))
    if as_json:
        emit([_document(line, seen) for line in seen.jails])
        return
    table(
        ("JAIL", "HITS", "WITHIN", "BAN", "PORTS", "FILTER", "MAX COUNT", ""),
        (
            (
                line.jail.name,
                line.jail.maxretry or "-",
                format_duration(line.jail.findtime) if line.jail.findtime else "-",
                format_duration(line.jail.bantime),
                line.jail.ports,
                line.jail.filter,
                line.jail.max_count,
                "" if line.jail.enabled else "disabled",
            )
            for line in seen.jails
        ),
    )
    for fault in seen.faults:
        say(str(fault))


@jail.command()
@jail_required
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Every column of a jail, or of a group's jails."""
    seen = overview(context_of(ctx), name)
    documents = [_document(line, seen) for line in seen.jails]
    if as_json:
        emit(documents)
        return
    for number, document in enumerate(documents):
        if number:
            click.echo()
        for key, value in document.items():
            if value is None or value == []:
                continue
            shown = ", ".join(value) if isinstance(value, list) else value
            if key in {"findtime", "bantime"} and isinstance(value, int) and value:
                shown = f"{value} ({format_duration(value)})"
            if isinstance(value, bool):
                shown = "yes" if value else "no"
            click.echo(f"{key:11} {printable(str(shown), 1000)}")


@jail.command()
@jail_required
@click.option("--filter", "filter_", required=True, help="The filter's name: see mcban filter list.")
@click.option(
    "--logpath", required=True, help="The logs to read: paths, globs, or systemd-journal, with blanks between."
)
@click.option("--port", required=True, help="The ports to close: 25,465,587 or all.")
@click.option(
    "--maxretry", type=click.IntRange(1, 10_000), metavar="N", default=5, show_default=True, help="Hits to a ban."
)
@click.option("--findtime", default="1h", show_default=True, help="How long a hit counts.")
@click.option("--bantime", default="1d", show_default=True, help="How long a ban lasts; -1 for ever.")
@click.option(
    "--max-count",
    type=click.IntRange(0, 10_000),
    metavar="N",
    default=0,
    show_default=True,
    help="Bans after which the next is for ever; 0 for none.",
)
@click.option(
    "--banaction", default="mc-custom", show_default=True, help="mc-custom, or iptables-allports and the like."
)
@click.option(
    "--v6-prefix",
    type=click.IntRange(32, 128),
    metavar="N",
    default=128,
    show_default=True,
    help="Count and ban IPv6 attackers by networks of this length; 64 is what one customer has.",
)
@click.option(
    "--logtimezone",
    metavar="ZONE",
    default="",
    help="The zone of times that name none: UTC+0200, Europe/Zurich; else the system's.",
)
@click.option("--escalate", is_flag=True, help="Make the four tiers of a ladder, with maxretry hits for a day.")
@click.option("--disabled", is_flag=True, help="Make it, but do not enable it.")
@force_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    filter_: str,
    logpath: str,
    port: str,
    maxretry: int,
    findtime: str,
    bantime: str,
    max_count: int,
    banaction: str,
    v6_prefix: int,
    logtimezone: str,
    escalate: bool,
    disabled: bool,
    force: bool,
) -> int:
    """Make a custom jail, or with --escalate a group with its ladder."""
    try:
        times = parse_duration(findtime), parse_duration(bantime)
    except ValueError as error:
        raise UsageError(str(error)) from None
    record = JailRecord(
        name,
        not disabled,
        maxretry,
        *times,
        port,
        filter_,
        banaction,
        logpath,
        max_count,
        escalate=escalate,
        v6_prefix=v6_prefix,
        logtimezone=logtimezone,
    )
    return finish(jail_changes.add(context_of(ctx), record, force=force))


@jail.command()
@jail_required
@click.option("--option", required=True, help=f"One of {', '.join(jail_changes.OPTIONS)}.")
@click.option("-v", "--value", required=True, help="Its new value.")
@force_option
@click.pass_context
def change(ctx: click.Context, name: str, option: str, value: str, force: bool) -> int:
    """Change one option. A new maxretry for a group makes its whole ladder anew."""
    if option in {"maxretry", "max_count"} and not WHOLE.fullmatch(value):
        raise UsageError(f"{option}: '{printable(value)}' is no whole number from {LEAST[option]} to 10000")
    return finish(jail_changes.change(context_of(ctx), name, option, value, force=force))


@jail.command()
@jail_required
@click.pass_context
def enable(ctx: click.Context, name: str) -> int:
    """Enable; bans that still run are enforced again."""
    return finish(jail_changes.enable(context_of(ctx), name, on=True))


@jail.command()
@jail_required
@click.pass_context
def disable(ctx: click.Context, name: str) -> int:
    """Disable: its entries leave the kernel, its bans stay in SQL."""
    return finish(jail_changes.enable(context_of(ctx), name, on=False))


@jail.command()
@jail_required
@yes_option
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool) -> int:
    """Remove a jail, or a group with its blacklist; lifts its bans."""
    return finish(jail_changes.remove(context_of(ctx), name, yes=yes))


@jail.command("reload")
@jail_option
@click.pass_context
def reload_(ctx: click.Context, name: str | None) -> int:
    """Read the jails and filters again. The engine also notices changed rows by itself, not changed filter files."""
    context = context_of(ctx)
    if name is not None:
        overview(context, name)
    report = jail_changes.reload(context)
    status = finish(report)
    try:
        asked = ask_to_reload(context.config.state_dir)
    except PermissionError:
        raise NoPermissionError("no permission to signal the engine: run as root, or as its user") from None
    faults = overview(context, name).faults
    for fault in faults:
        say(str(fault))
    how = f"{plural(len(faults), 'fault')} in the jails" if faults else "the jails are in order"
    with heard_or_not():
        click.echo(f"{how}; {'the engine was asked to reload' if asked else 'no engine runs'}")
    return status
