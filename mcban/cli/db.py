"""`mcban db`."""

from __future__ import annotations

import click

from mcban.cli.output import Noun, context_of, emit, finish, json_option, say, watch
from mcban.service.bans import Report
from mcban.store import schema
from mcban.wiring import open_database, open_state


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
    context.database.has_file()
    before, after = schema.upgrade(context.database)
    shown = context.database.shown_url
    click.echo(f"{shown} has schema {after} already" if before == after else f"{shown} brought to schema {after}")


@db.command()
@click.option(
    "--from",
    "source",
    metavar="URL",
    envvar="MCBAN_ADOPT_FROM",
    help="Copy from another database, which is only read. A password is better put into MCBAN_ADOPT_FROM.",
)
@click.option("--check", "only_check", is_flag=True, help="Say what it would do; change nothing.")
@click.pass_context
def adopt(ctx: click.Context, source: str | None, only_check: bool) -> int:
    """Take over a database of the original, MailCleaner's.

    Its tables are kept under other names. Jails, bans, counts and allowances are copied; duplicates become one row.
    Stop the original before, start the engine afterwards.
    """
    from mcban.service import adoption  # noqa: PLC0415  # the other commands have no use for it

    context = context_of(ctx, database=False)
    copies = bool(source) and not only_check
    if copies and context.database.sqlite_file is not None and not context.config.database_url:
        open_state(context)
    context.database.has_file()
    if source:
        adopted = adoption.adopt_from(context, source, check=only_check, opened=lambda theirs: watch(ctx, theirs))
    else:
        adopted = adoption.adopt(context, check=only_check)
    status = finish(Report(adopted.done))
    for line in adopted.to_mend:
        say(line)
    return status


@db.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Whether the schema is whole and one of this mcban. Exits 78 when it is not."""
    context = context_of(ctx, database=False)
    open_database(context)
    found = schema.require(context.database)
    if found == schema.HEAD:
        schema.verify(context.database)
    if as_json:
        emit({"url": context.database.shown_url, "schema": found})
    else:
        newer = f"newer than {schema.HEAD}; this mcban may work on it"
        click.echo(f"{context.database.shown_url} has schema {found}, {'as needed' if found == schema.HEAD else newer}")
