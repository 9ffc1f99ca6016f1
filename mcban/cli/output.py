"""How answers look: JSON documents, tables for people, times; and the way from a command to its context."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from mcban import config as settings
from mcban.core.model import FOREVER
from mcban.errors import printable
from mcban.service.bans import Report
from mcban.service.context import Context
from mcban.wiring import open_database, wire

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
jail_option = click.option("-j", "--jail", "name", metavar="JAIL", help="A group, tier, blacklist or custom jail.")
jail_required = click.option(
    "-j", "--jail", "name", metavar="JAIL", required=True, help="A group, tier, blacklist or custom jail."
)
force_option = click.option("--force", is_flag=True, help="Do it although it is refused as unsafe.")
yes_option = click.option("--yes", is_flag=True, help="Yes, all of that is meant.")


def addresses_option(help_text: str, *, required: bool = True) -> Callable[[F], F]:
    """`-i`, given once or more."""
    return click.option("-i", "--ip", "entries", metavar="IP[/N]", multiple=True, required=required, help=help_text)


def context_of(ctx: click.Context, *, database: bool = True) -> Context:
    """The context of a command, its database checked. Raises what makes it impossible to work."""
    file: Path | None = ctx.find_root().obj
    context = wire(settings.load(file, os.environ))
    if database:
        open_database(context)
    ctx.call_on_close(context.firewall.close)
    ctx.call_on_close(context.database.dispose)
    return context


def finish(report: Report) -> int:
    """Print what a command did, and what failed; the exit status."""
    for line in report.done:
        click.echo(printable(line, 1000))
    for line in report.failed:
        click.echo(f"mcban: {printable(line, 1000)}", err=True)
    return 1 if report.failed else 0


def emit(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, ensure_ascii=True, indent=2))


def rfc3339(at: int | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC; None for none and for ever."""
    if at is None or at >= FOREVER:
        return None
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for a person, as wide as they need to be."""
    lines = [list(heads), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
