"""`mcban run` and `mcban replay`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import click

from mcban.cli.output import context_of, emit, jail_required, json_option, plural, read_blocks, rfc3339, table
from mcban.core import ladder
from mcban.core.allowlist import AllowList
from mcban.core.duration import FOREVER_DURATION, about
from mcban.core.model import FOREVER
from mcban.errors import ConfigError, DataError, NoPermissionError, UnavailableError, printable
from mcban.service.context import Context, World
from mcban.service.jails import read_book, select_group
from mcban.service.replay import replay as replay_logs
from mcban.service.sources import find_sources
from mcban.service.world import load_world
from mcban.store.jails import JailRecord
from mcban.wiring import open_database, open_state


@click.command()
@click.option("--once", is_flag=True, help="Read every log to its end, record, sync, and exit.")
@click.pass_context
def run(ctx: click.Context, once: bool) -> int:
    """The engine, in the foreground.

    It runs until Ctrl-C or SIGTERM. SIGHUP reads jails and filters again;
    SIGUSR1 stops but leaves lists and rules in the kernel, for a restart.
    """
    from mcban.daemon.engine import Engine  # noqa: PLC0415  # the engine's imports are for the engine only
    from mcban.daemon.presence import Presence  # noqa: PLC0415
    from mcban.daemon.signals import Signals, tell_systemd  # noqa: PLC0415

    context = context_of(ctx)
    _log_to_stderr(context.config.log_level)
    log = logging.getLogger("mcban")
    open_state(context)
    presence = Presence(context.config.state_dir)
    presence.take()
    try:
        signals = Signals()
        log.info("database %s, node %s", context.database.shown_url, context.config.node)
        if context.firewall.enforces:
            presence.take_firewall(context.firewall.name)
            log.info("firewall %s", context.firewall.name)
        else:
            log.warning("firewall %s: decides and records, touches no kernel", context.firewall.name)
        engine = Engine(context, presence)
        engine.start()
        if once:
            if not engine.read_to_end(signals):
                log.warning("stopped before the end of the logs; the rest is read next time")
                return 130
            _check_all_read(context)
            return 0
        log.info("ready")
        tell_systemd("READY=1")
        engine.run(signals)
        engine.stop(keep=signals.keep)
        return 0
    finally:
        presence.leave()


def _check_all_read(context: Context) -> None:
    """Raises DataError when `run --once` had to pass over a jail: nobody watches it who would see that in `status`."""
    book = context.database.read(lambda t: load_world(context, t)).book
    unusable = [fault for fault in book.faults if fault.what not in book.groups and fault.what not in book.jails]
    passed_over = [*unusable, *find_sources(context, book)[1]]
    if passed_over:
        more = f" (and {plural(len(passed_over) - 1, 'other')})" if len(passed_over) > 1 else ""
        raise DataError(f"passed over {passed_over[0]}{more}; all other logs were read")


def _log_to_stderr(level: str) -> None:
    # journald and syslog put their own time before each line.
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format=f"{stamp}%(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )


@click.command()
@jail_required
@click.argument("logs", metavar="LOG…", nargs=-1, required=True)
@json_option
@click.pass_context
def replay(ctx: click.Context, name: str, logs: tuple[str, ...], as_json: bool) -> None:
    """What the ladder would have done on a log.

    Every LOG (`-` for standard input) is read from its start to its end, by its own clock. Nothing is changed.

    The jails are those of the database; without one, those that mcban comes with.
    """
    context = context_of(ctx, database=False)
    world = _world(context)
    done = replay_logs(context, select_group(world.book, name), world.allow, _blocks(logs))
    for line in done.warnings:
        click.echo(f"mcban: {printable(line, 1000)}", err=True)
    # A tier by itself cannot be judged: its group is, and what concerns the tier is shown.
    meant = {name} if name in world.book.jails and name not in world.book.groups else set(world.book.jails)
    bans = [ban for ban in done.bans if ban.jail in meant]
    if as_json:
        shown = [{"ip": b.ip, "jail": b.jail, "at": rfc3339(b.since), "until": rfc3339(b.until)} for b in bans]
        emit({"lines": done.lines, "hits": done.hits, "bans": shown})
        return
    if bans:
        table(
            ("AT", "ADDRESS", "JAIL", "FOR", "WHY"),
            (
                (rfc3339(b.since), b.ip, b.jail, "ever" if b.until >= FOREVER else about(b.until - b.since), b.reason)
                for b in bans
            ),
        )
    whom = plural(len({b.ip for b in bans}), "address", "addresses")
    click.echo(f"{plural(done.lines, 'line')}, {plural(done.hits, 'hit')}, {plural(len(bans), 'ban')} of {whom}")


def _world(context: Context) -> World:
    """The jails of the database; those shipped where there is none, or none that can be used, which is said."""
    try:
        open_database(context)
        return context.database.read(lambda t: load_world(context, t))
    except (ConfigError, NoPermissionError, UnavailableError) as error:
        click.echo(f"mcban: using the jails that mcban comes with: {error}", err=True)
        return World(read_book(_shipped(), context.host.port_number), AllowList())


def _shipped() -> Iterator[JailRecord]:
    for group in ladder.SHIPPED:
        rest = (group.port, group.filter, "mc-custom", group.logpath, ladder.DEFAULT_MAX_COUNT)
        for step in ladder.generate(group.hits):
            name = ladder.tier_name(group.name, step.suffix)
            yield JailRecord(name, True, step.maxretry, step.findtime, step.bantime, *rest)
        yield JailRecord(group.name + ladder.BLACKLIST_SUFFIX, True, 0, 0, FOREVER_DURATION, *rest)


def _blocks(logs: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for log in logs:
        for block in read_blocks(log):
            yield log, block
