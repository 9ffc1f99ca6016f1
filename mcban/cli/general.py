"""`mcban general`: all jails at once."""

from __future__ import annotations

import click

from mcban.cli.output import MOST_BANS, Noun, context_of, finish
from mcban.service import jail_changes


@click.group(cls=Noun)
def general() -> None:
    """All jails at once."""


@general.command()
@click.pass_context
def enable(ctx: click.Context) -> int:
    """Enable every jail, blacklists too. Bans that still run are enforced again."""
    return finish(jail_changes.enable(context_of(ctx), None, on=True))


@general.command()
@click.pass_context
def disable(ctx: click.Context) -> int:
    """Disable every jail, blacklists too. Nobody is refused, nothing is forgotten."""
    return finish(jail_changes.enable(context_of(ctx), None, on=False))


@general.command("enable-bl")
@click.option("-v", "--value", type=MOST_BANS, metavar="N", help="Bans after which the next is for ever.")
@click.pass_context
def enable_bl(ctx: click.Context, value: int | None) -> int:
    """Enable every blacklist."""
    return finish(jail_changes.switch_blacklist(context_of(ctx), None, on=True, max_count=value))


@general.command("disable-bl")
@click.pass_context
def disable_bl(ctx: click.Context) -> int:
    """Disable every blacklist. Its entries leave the kernel and stay in SQL; nobody is promoted."""
    return finish(jail_changes.switch_blacklist(context_of(ctx), None, on=False))
