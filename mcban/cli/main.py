"""The entry: the global options, the commands by name, and errors as one line with their exit status."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from mcban import __version__
from mcban.cli.interrupt import interrupt
from mcban.cli.output import Noun, drop_output, say
from mcban.errors import McbanError, UsageError

# Name to module, attribute and summary: a command's imports are paid by that command only, not by `mcban --help`.
COMMANDS = {
    "run": ("engine:run", "The engine, in the foreground."),
    "replay": ("replay:replay", "What the ladder would have done on a log."),
    "status": ("status:status", "Engine, database, firewall, jails."),
    "show": ("address:show", "One address: where banned, until when, why."),
    "banned": ("address:banned", "The bans in force."),
    "ban": ("address:ban", "Ban addresses or networks now."),
    "unban": ("address:unban", "Let addresses or networks back in."),
    "whitelist": ("whitelist:whitelist", "Addresses, networks and names that are never banned."),
    "blacklist": ("blacklist:blacklist", "Bans for ever: the last jail of each group."),
    "jail": ("jail:jail", "The jails: rows of fail2ban_jail."),
    "general": ("general:general", "All jails at once."),
    "sync": ("sync:sync", "Bring the kernel's lists and rules to what SQL says."),
    "filter": ("filter:filter_", "The filters: what counts as a hit."),
    "import": ("transfer:import_", "Bans from a list, or from fail2ban's database."),
    "export": ("transfer:export", "The bans in force, as a plain list."),
    "db": ("db:db", "The schema of the database."),
}


class Commands(Noun):
    """Finds commands by name, importing only the one asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        with interrupt:
            command: click.Command = getattr(importlib.import_module(f"mcban.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The summaries, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcban")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The settings file; else MCBAN_CONFIG, else /etc/mcban/mcban.toml if it exists.",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """mcban bans the addresses that attack this host, longer each time, and keeps everything in SQL."""
    ctx.obj = config


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the interface's status."""
    if "_MCBAN_COMPLETE" in os.environ:
        cli.main(prog_name="mcban")  # click's completion for shells
    interrupt.listen()
    # What imports and batches of lines make has no cycles: looking for some after every 700 objects took a fifth of the
    # time of a long log.
    gc.set_threshold(100_000, 50, 100)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows no UTF-8 is no reason to fail
    sys.exit(_status(sys.argv[1:] if arguments is None else arguments))


def _status(arguments: list[str]) -> int:
    try:
        status = _run(arguments)
        if sys.stdout is not None:  # None when the shell closed it: `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`mcban banned | head`): it has what it wanted.
        drop_output()
        return 0
    except OSError as error:
        drop_output()
        return _fail(f"cannot go on: {error.filename or 'the output'}: {error.strerror or error}", 1)
    except (click.ClickException, click.Abort, KeyboardInterrupt, McbanError) as error:
        return _explain(error)
    except Exception as error:  # the last resort: whoever types a command gets no traceback
        if sys.flags.dev_mode:
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(
            f"a defect of mcban, please report it: {type(error).__name__}: {error} "
            f"({Path(where.filename).name}:{where.lineno}; PYTHONDEVMODE=1 shows all of it)",
            1,
        )
    return status


def _run(arguments: list[str]) -> int:
    """As `click.Command.main` does, which has opinions of its own about broken pipes and Ctrl-C."""
    if any("\0" in argument for argument in arguments):
        raise UsageError("an argument holds a NUL byte, which no name, address or path has")
    try:
        with cli.make_context("mcban", list(arguments)) as ctx:
            result: Any = cli.invoke(ctx)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> int:
    """Say what an error is; the exit status that it gives."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "mcban"
        said = error.format_message().rstrip(".")
        return _fail(f"{said[:1].lower()}{said[1:]} (see {path} --help)", 2)
    if isinstance(error, click.ClickException):
        return _fail(error.format_message(), 1)
    if isinstance(error, McbanError):
        return _fail(str(error), error.exit_status)
    return _fail("stopped by the keyboard", 130)


def _fail(message: str, status: int) -> int:
    say(" ".join(message.split()))
    return status
