"""The entry: the global options, the commands by name, and errors as one line with their exit status."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from mcban import __version__
from mcban.errors import McbanError, printable

# Name to module and attribute: a command's imports are paid by that command only.
COMMANDS = {
    "run": "engine:run",
    "replay": "engine:replay",
    "status": "status:status",
    "show": "address:show",
    "banned": "address:banned",
    "ban": "address:ban",
    "unban": "address:unban",
    "whitelist": "whitelist:whitelist",
    "blacklist": "blacklist:blacklist",
    "jail": "jail:jail",
    "general": "general:general",
    "sync": "sync:sync",
    "filter": "filter:filter_",
    "db": "db:db",
}


class Commands(click.Group):
    """Finds commands by name, importing only the one asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"mcban.cli.{module}"), attribute)
        return command


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
    sys.exit(_status(arguments))


def _status(arguments: list[str] | None) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="mcban", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`mcban banned | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (click.ClickException, click.Abort, KeyboardInterrupt, McbanError) as error:
        message, status = _explain(error)
        click.echo(message, err=True)
        return status
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit status that it gives."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), 2
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "mcban"
        return _line(f"{error.format_message().rstrip('.')}: {path} --help shows how"), 2
    if isinstance(error, click.ClickException):
        return _line(error.format_message()), 1
    if isinstance(error, McbanError):
        return _line(str(error)), error.exit_status
    return _line("stopped by the keyboard"), 130


def _line(message: str) -> str:
    return f"mcban: {printable(' '.join(message.split()), 1000)}"
