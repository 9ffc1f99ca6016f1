"""`mcban show`, `banned`, `ban` and `unban`."""

from __future__ import annotations

import os

import click

from mcban.cli.output import (
    addresses_option,
    context_of,
    emit,
    finish,
    force_option,
    jail_option,
    jail_required,
    json_option,
    plural,
    rfc3339,
    table,
    yes_option,
)
from mcban.cli.peer import ssh_peers
from mcban.core.duration import about, parse_duration
from mcban.errors import UsageError, printable
from mcban.service import bans as hand
from mcban.service import report
from mcban.service.bans import parse_entries

EVENTS = {
    "ban": "banned",
    "blacklist": "blacklisted",
    "lift": "lifted",
    "allow": "allowed",
    "disallow": "no longer allowed",
}
"""What the log of decisions says, for a person."""


@click.command()
@click.argument("ip", metavar="IP")
@json_option
@click.pass_context
def show(ctx: click.Context, ip: str, as_json: bool) -> None:
    """One address: where banned, until when, why.

    Also its hits towards each tier, whether the kernel holds it, the logins it tried, and the log of its offences.
    """
    entry = parse_entries([ip])[0]
    context = context_of(ctx)
    view = report.show(context, entry)
    if as_json:
        emit(_show_document(view))
        return
    if view.allowed:
        click.echo(f"{view.ip} is allowed: {', '.join(view.allowed)}")
    if not view.jails and not view.events:
        click.echo(f"nothing is known of {view.ip}")
    for jail in view.jails:
        click.echo(_show_line(jail, context.now, asked=not view.unasked))
    if view.unasked and any(jail.banned for jail in view.jails):
        unknown = any(jail.enforced is None for jail in view.jails)
        click.echo(f"{'not known whether it is enforced' if unknown else 'not enforced'}: {view.unasked}")
    if view.logins:
        click.echo(f"logins tried: {', '.join(printable(login, 60) for login in view.logins[-10:])}")
    for event in view.events:
        why = f": {printable(event.reason)}" if event.reason else ""
        where = "everywhere" if event.jail in {"", "*"} else f"in {printable(event.jail)}"
        what = EVENTS.get(event.what, printable(event.what))
        click.echo(f"{rfc3339(event.at)}  {what} {where}{why}  [{printable(event.host)}]")


def _show_document(view: report.AddressView) -> dict[str, object]:
    return {
        "ip": view.ip,
        "allowed": bool(view.allowed),
        "allowed_by": list(view.allowed),
        "jails": [
            {
                "jail": jail.jail,
                "hits": jail.hits,
                "maxretry": jail.maxretry,
                "banned": jail.banned,
                "since": rfc3339(jail.since),
                "until": rfc3339(jail.until),
                "count": jail.count,
                "blacklisted": jail.blacklisted,
                "enforced": jail.enforced,
                "entry": jail.entry,
                "reason": jail.reason,
                "note": jail.note,
            }
            for jail in view.jails
        ],
        "logins": list(view.logins),
        "events": [
            {"at": rfc3339(e.at), "what": e.what, "jail": e.jail, "reason": e.reason, "host": e.host}
            for e in view.events
        ],
    }


def _show_line(jail: report.JailView, now: int, *, asked: bool) -> str:
    parts = []
    by = f" as {printable(jail.entry)}" if "/" in jail.entry else ""
    if jail.banned:
        since = f", since {rfc3339(jail.since)}" if jail.since is not None else ""
        why = f" ({printable(jail.reason)})" if jail.reason else ""
        parts.append(f"banned{by} {_still(jail.until, now)}{since}{why}")
        if jail.note:
            parts.append(f"not enforced: {jail.note}")
        elif jail.enforced is False and asked:
            parts.append("missing in the kernel: mcban sync puts it there")
    elif jail.maxretry:
        parts.append(f"{jail.hits} of {jail.maxretry} hits{by}")
    if jail.count:
        parts.append(f"banned {plural(jail.count, 'time')} so far")
    return f"{jail.jail}: {', '.join(parts) or 'not banned'}"


def _still(end: int | None, now: int) -> str:
    return "for ever" if end is None else f"for another {about(max(0, end - now))}"


@click.command()
@jail_option
@json_option
@click.pass_context
def banned(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """The bans in force."""
    context = context_of(ctx)
    lines = report.bans_in_force(context, name)
    if as_json:
        emit(
            [
                {
                    "ip": line.ip,
                    "jail": line.jail,
                    "since": rfc3339(line.since),
                    "until": rfc3339(line.until),
                    "count": line.count,
                    "host": line.host,
                    "reason": line.reason,
                    "held_back": line.held_back,
                }
                for line in lines
            ]
        )
        return
    if not lines:
        click.echo(f"nobody is banned{f' in {name}' if name else ''}")
        return
    table(
        ("ADDRESS", "JAIL", "ENDS", "COUNT", "NODE", "WHY"),
        (
            (
                line.ip,
                line.jail,
                "never" if line.until is None else f"in {about(max(0, line.until - context.now))}",
                line.count,
                line.host,
                line.reason + (f" (not enforced: {line.held_back})" if line.held_back else ""),
            )
            for line in lines
        ),
    )


@click.command()
@jail_required
@addresses_option("The address or network to ban; may be given more than once.")
@click.option("--for", "length", metavar="TIME", help="How long (3h, 180d, -1 for ever); else the jail's own time.")
@force_option
@yes_option
@click.pass_context
def ban(ctx: click.Context, name: str, entries: tuple[str, ...], length: str | None, force: bool, yes: bool) -> int:
    """Ban addresses or networks now. A group means all of its tiers."""
    try:
        duration = None if length is None else parse_duration(length)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    parsed = parse_entries(entries)
    peers = ssh_peers(os.environ)
    return finish(hand.ban(context_of(ctx), name, parsed, duration, force=force, yes=yes, peers=peers))


@click.command()
@jail_option
@addresses_option("The address or network to let back in; may be given more than once.")
@click.pass_context
def unban(ctx: click.Context, name: str | None, entries: tuple[str, ...]) -> int:
    """Let addresses or networks back in.

    Lifts bans in SQL and kernel at once, and forgets the hits. Without -j: everywhere.
    """
    parsed = parse_entries(entries)
    return finish(hand.unban(context_of(ctx), name, parsed))
