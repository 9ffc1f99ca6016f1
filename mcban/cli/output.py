"""How answers look: JSON documents, tables for people, times; and the way from a command to its context.

Imported by every command, `mcban --help` among them: what is slow to import is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mcban import config as settings
from mcban.cli.interrupt import interrupt
from mcban.core.model import FOREVER
from mcban.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from mcban.service.bans import Report
    from mcban.service.context import Context
    from mcban.store.database import Database

F = TypeVar("F", bound=Callable[..., Any])

_WARNED = "mcban.warned"

MOST_BANS = click.IntRange(1, 10_000)
"""A `max_count`: more bans than that, and no blacklist is meant."""

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
jail_option = click.option("-j", "--jail", "name", metavar="JAIL", help="A group, tier, blacklist or custom jail.")
jail_required = click.option(
    "-j", "--jail", "name", metavar="JAIL", required=True, help="A group, tier, blacklist or custom jail."
)
force_option = click.option("--force", is_flag=True, help="Do it although it is refused as unsafe.")
yes_option = click.option("--yes", is_flag=True, help="Yes, all of that is meant.")


class Noun(click.Group):
    """A command with commands of its own, which knows the nearest name for one that there is not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are written down."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; raises UsageError with the nearest names."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            near = get_close_matches(name.lower(), known, 2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"there is no command {ctx.command_path} {printable(name, 60)}: {hint}")
        return super().resolve_command(ctx, args)


def addresses_option(help_text: str, *, required: bool = True) -> Callable[[F], F]:
    """`-i`, given once or more."""
    return click.option("-i", "--ip", "entries", metavar="IP[/N]", multiple=True, required=required, help=help_text)


def config_of(ctx: click.Context) -> settings.Config:
    """The settings, for a command that needs nothing else. Raises ConfigError, NoPermissionError."""
    config = _load(ctx)
    _warn(ctx, config)
    return config


def _load(ctx: click.Context) -> settings.Config:
    file: Path | None = ctx.find_root().obj
    return settings.load(file, os.environ)


def _warn(ctx: click.Context, config: settings.Config) -> None:
    """Say what is to be said of settings that can be used, once for each command."""
    if not ctx.meta.setdefault(_WARNED, False):
        ctx.meta[_WARNED] = True
        for line in config.warnings:
            say(line)


def context_of(ctx: click.Context, *, database: bool = True, waiting: bool = True) -> Context:
    """The context of a command, its database checked; with `waiting` it says so when that lets one wait. Raises what
    makes it impossible to work."""
    with interrupt:
        import logging  # noqa: PLC0415

        from mcban.wiring import open_database, wire  # noqa: PLC0415  # SQLAlchemy: longer than most commands run

    config = _load(ctx)
    context = wire(config)
    # Its pool would tell of connections that break, or that Ctrl-C meets, as they are put back; for a command as
    # tracebacks. What is wrong is said by whoever asked.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    if waiting:
        watch(ctx, context.database)
    _warn(ctx, config)
    ctx.call_on_close(context.firewall.close)
    ctx.call_on_close(context.database.dispose)
    if database:
        open_database(context)
    return context


def watch(ctx: click.Context, database: Database) -> None:
    """Say so when `database` lets the command wait."""
    with interrupt:
        from mcban.cli.waiting import Waiting  # noqa: PLC0415

    def tell(since: float) -> None:
        end = time.strftime("%T", time.localtime(since + database.longest_wait))
        say(f"waiting for {database.shown_url} to answer, until {end}")

    told = database.watch = Waiting(tell)
    ctx.call_on_close(told.close)


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Around what is printed by a command whose exit status says what it found or did: that it says, too, when nobody
    reads to the end (`mcban status | head -1`, with pipefail). Commands that only list are ended by such a reader, and
    with 0: he has what he wanted."""
    try:
        yield
        if sys.stdout is not None:  # None when the shell closed it: `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Standard output cannot be written to: Python, which flushes it once more at exit, would complain again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """A line on standard error. Where that cannot be written, on a full disk or with a reader that is gone, what the
    command is for goes on, and its exit status says how it ended."""
    with suppress(OSError, ValueError):
        click.echo(f"mcban: {printable(line, 1000)}", err=True)


def finish(report: Report) -> int:
    """Print what a command did, and what failed; the exit status."""
    with heard_or_not():
        for line in report.done:
            click.echo(printable(line, 1000))
    for line in report.failed:
        say(line)
    return 1 if report.failed else 0


def emit(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, ensure_ascii=True, indent=2))


def rfc3339(at: int | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC; None for none and for ever."""
    if at is None or at >= FOREVER:
        return None
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat() + "Z"


def read_blocks(log: str, seen: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """Blocks of whole lines of a log that the command line names, compressed or not, `-` for standard input, or of the
    journal; `seen` is told of the bytes taken from the disk. Ctrl-C waits until what was made of a block is whole.
    Raises DataError, NoPermissionError."""
    from mcban.logs import is_journal, read_file, read_journal  # noqa: PLC0415  # for two commands only

    if not log:
        raise UsageError("the name of a log is empty")
    if log == "-" and sys.stdin is None:
        raise DataError("standard input is closed: name a log, or let another command write to it")
    for block in read_journal(log, say) if is_journal(log) else read_file(log, seen=seen):
        with interrupt:
            yield block


def plural(count: int, one: str, many: str = "") -> str:
    """`1 ban`, `2 bans`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for a person, as wide as they need to be."""
    lines = [list(heads), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
