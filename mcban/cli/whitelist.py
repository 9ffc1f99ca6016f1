"""`mcban whitelist`."""

from __future__ import annotations

import click

from mcban.cli.output import Noun, addresses_option, context_of, emit, finish, jail_option, json_option, table
from mcban.service import allow


@click.group(cls=Noun)
def whitelist() -> None:
    """Addresses, networks and names that are never banned."""


@whitelist.command()
@jail_option
@addresses_option("The address, network or DNS name to allow; may be given more than once.")
@click.pass_context
def add(ctx: click.Context, name: str | None, entries: tuple[str, ...]) -> int:
    """Allow, and lift the bans that it covers. Without -j: in all jails."""
    parsed = allow.parse_names(entries)
    return finish(allow.allow(context_of(ctx), name, parsed))


@whitelist.command()
@jail_option
@addresses_option("What to allow no longer; may be given more than once.")
@click.pass_context
def remove(ctx: click.Context, name: str | None, entries: tuple[str, ...]) -> int:
    """Allow no longer. Lifted bans do not come back."""
    parsed = allow.parse_names(entries)
    return finish(allow.disallow(context_of(ctx), name, parsed))


@whitelist.command("list")
@jail_option
@json_option
@click.pass_context
def list_(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """What SQL allows. Settings (`ignoreip`) and protected addresses are shown by `mcban show IP`."""
    rows = allow.allowances(context_of(ctx), name)
    if as_json:
        emit([{"ip": row.ip, "jail": row.jail, "host": row.host} for row in rows])
    elif rows:
        table(("ADDRESS", "JAIL"), ((row.ip, "everywhere" if row.jail in {"", "*"} else row.jail) for row in rows))
    else:
        click.echo("nobody is whitelisted")
