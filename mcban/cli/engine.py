"""`mcban run`."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from mcban.cli.output import context_of, plural
from mcban.cli.progress import Progress
from mcban.errors import DatabaseError, DataError, printable
from mcban.service.context import Context
from mcban.service.local_copy import age_of
from mcban.wiring import open_database, open_state

if TYPE_CHECKING:
    from mcban.daemon.presence import Presence
    from mcban.daemon.signals import Signals


@click.command()
@click.option("--once", is_flag=True, help="Read every log to its end, record, sync, and exit.")
@click.pass_context
def run(ctx: click.Context, once: bool) -> int:
    """The engine, in the foreground.

    It runs until Ctrl-C or SIGTERM. SIGHUP reads jails and filters again;
    SIGUSR1 stops but leaves lists and rules in the kernel, for a restart.
    """
    from mcban.daemon.presence import Presence  # noqa: PLC0415  # the engine's imports are for the engine only
    from mcban.daemon.signals import Signals  # noqa: PLC0415

    context = context_of(ctx, database=False, waiting=False)  # the engine has words of its own for that
    unreachable = None if once else _reach(context)
    if once:
        open_database(context)
    with Progress(0, wanted=once) as progress:
        _log_to_stderr(context.config.log_level, progress)
        log = logging.getLogger("mcban")
        open_state(context)
        presence = Presence(context.config.state_dir)
        presence.take()
        try:
            signals = Signals()
            signals.listen()
            log.info("database %s, node %s", context.database.shown_url, context.config.node)
            if context.firewall.enforces:
                presence.take_firewall(context.firewall.name)
                log.info("firewall %s", context.firewall.name)
            else:
                log.warning("firewall %s: decides and records, touches no kernel", context.firewall.name)
            if once:
                return _pass_once(context, presence, signals, progress)
            return _follow(context, presence, signals, unreachable)
        finally:
            presence.leave()


def _reach(context: Context) -> DatabaseError | None:
    """The error, when the database cannot be reached, and there is something to start from without it; else it is
    raised."""
    try:
        open_database(context)
    except DatabaseError as error:
        if age_of(context.config.state_dir, context.now) is None or not context.config.local_copy:
            raise
        return error
    return None


def _follow(context: Context, presence: Presence, signals: Signals, unreachable: DatabaseError | None) -> int:
    from mcban.daemon.engine import Engine  # noqa: PLC0415  # as above
    from mcban.daemon.signals import tell_systemd  # noqa: PLC0415

    engine = Engine(context, presence, signals)
    engine.start(unreachable)
    logging.getLogger("mcban").info("ready")
    tell_systemd("READY=1")
    engine.run()
    engine.stop(keep=signals.keep)
    return 0


def _pass_once(context: Context, presence: Presence, signals: Signals, progress: Progress) -> int:
    from mcban.daemon.one_pass import OnePass  # noqa: PLC0415  # as above

    one_pass = OnePass(context, presence, signals)
    one_pass.start()
    if not one_pass.run(progress):
        logging.getLogger("mcban").warning("stopped before the end of the logs; the rest is read next time")
        return 130
    _check_all_read(one_pass.passed_over)
    return 0


def _check_all_read(passed_over: list[str]) -> None:
    """Raises DataError when `run --once` had to pass over something: nobody watches it who would see that in
    `status`."""
    if passed_over:
        more = f" (and {plural(len(passed_over) - 1, 'other')})" if len(passed_over) > 1 else ""
        raise DataError(f"passed over {passed_over[0]}{more}; all other logs were read")


class _Handler(logging.StreamHandler[TextIO]):
    """Writes between the lines that tell how far reading is."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(sys.stderr)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.clear()
        super().emit(record)


class _Lines(logging.Formatter):
    """Each line of a record with time and level of its own: the engine tells the bans of a batch in one."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if "\n" in record.message:
            text = text.replace("\n", "\n" + text[: -len(record.message)])
        return text

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """What a library logs of an error, in one line."""
        return f"{ei[0].__name__}: {printable(str(ei[1]), 200)}"


def _log_to_stderr(level: str, progress: Progress) -> None:
    # journald and syslog put their own time before each line.
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    handler = _Handler(progress)
    handler.setFormatter(_Lines(f"{stamp}%(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
