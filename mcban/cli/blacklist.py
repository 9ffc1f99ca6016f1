"""`mcban blacklist`."""

from __future__ import annotations

import os

import click

from mcban.cli.output import (
    MOST_BANS,
    Noun,
    addresses_option,
    context_of,
    emit,
    finish,
    force_option,
    jail_option,
    jail_required,
    json_option,
    rfc3339,
    table,
    yes_option,
)
from mcban.cli.peer import ssh_peers
from mcban.service import bans, jail_changes
from mcban.service.bans import parse_entries


@click.group(cls=Noun)
def blacklist() -> None:
    """Bans for ever: the last jail of each group.

    Too many bans in one of its other jails lead there.
    """


@blacklist.command()
@jail_required
@addresses_option("The address or network to ban for ever; may be given more than once.")
@force_option
@yes_option
@click.pass_context
def add(ctx: click.Context, name: str, entries: tuple[str, ...], force: bool, yes: bool) -> int:
    """Ban for ever."""
    parsed = parse_entries(entries)
    peers = ssh_peers(os.environ)
    return finish(bans.blacklist_add(context_of(ctx), name, parsed, force=force, yes=yes, peers=peers))


@blacklist.command()
@jail_required
@addresses_option("The address or network to take out; may be given more than once.")
@click.pass_context
def remove(ctx: click.Context, name: str, entries: tuple[str, ...]) -> int:
    """Take out, forget the hits, and set the count of bans to 0."""
    parsed = parse_entries(entries)
    return finish(bans.blacklist_remove(context_of(ctx), name, parsed))


@blacklist.command("list")
@jail_option
@json_option
@click.pass_context
def list_(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Who is banned for ever, in one group or in all."""
    rows = bans.blacklisted(context_of(ctx), name)
    if as_json:
        emit(
            [{"ip": r.ip, "jail": r.jail, "since": rfc3339(r.since), "host": r.host, "reason": r.reason} for r in rows]
        )
    elif rows:
        table(("ADDRESS", "JAIL", "SINCE", "WHY"), ((r.ip, r.jail, rfc3339(r.since), r.reason or "") for r in rows))
    else:
        click.echo("nobody is blacklisted")


@blacklist.command()
@jail_required
@click.option("-v", "--value", type=MOST_BANS, metavar="N", help="Bans after which the next is for ever.")
@click.pass_context
def enable(ctx: click.Context, name: str, value: int | None) -> int:
    """Enforce it again, and promote repeat offenders to it."""
    return finish(jail_changes.switch_blacklist(context_of(ctx), name, on=True, max_count=value))


@blacklist.command()
@jail_required
@click.pass_context
def disable(ctx: click.Context, name: str) -> int:
    """Take its entries out of the kernel, and stop promotion. SQL keeps them."""
    return finish(jail_changes.switch_blacklist(context_of(ctx), name, on=False))
