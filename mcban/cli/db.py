"""`mcban db`."""

from __future__ import annotations

import click

from mcban.cli.output import Noun, context_of, emit, json_option
from mcban.store import schema
from mcban.wiring import has_file, open_database, open_state


@click.group(cls=Noun)
def db() -> None:
    """The schema of the database."""


@db.command()
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Make the schema, or bring it to what this mcban needs."""
    context = context_of(ctx, database=False)
    if context.database.sqlite_file is not None and not context.config.database_url:
        open_state(context)
    has_file(context)
    before, after = schema.upgrade(context.database)
    shown = context.database.shown_url
    click.echo(f"{shown} has schema {after} already" if before == after else f"{shown} brought to schema {after}")


@db.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Whether the schema is the one that this mcban needs. Exits 78 when it is not."""
    context = context_of(ctx, database=False)
    open_database(context)
    if as_json:
        emit({"url": context.database.shown_url, "schema": schema.HEAD})
    else:
        click.echo(f"{context.database.shown_url} has schema {schema.HEAD}, as needed")
