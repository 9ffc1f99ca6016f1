"""`mcban status`."""

from __future__ import annotations

from typing import Any

import click

from mcban.cli.output import context_of, emit, heard_or_not, jail_option, json_option, rfc3339, table
from mcban.core.duration import about, format_duration
from mcban.daemon.presence import EngineView, look
from mcban.errors import McbanError, NoPermissionError, UsageError, printable
from mcban.firewall.base import Refusal, summarise
from mcban.service.context import Context
from mcban.service.local_copy import age_of
from mcban.service.report import JailLine, Overview, overview
from mcban.wiring import open_database


@click.command()
@jail_option
@json_option
@click.pass_context
def status(ctx: click.Context, name: str | None, as_json: bool) -> int:
    """Engine, database, firewall, jails.

    Exits 0 when the engine runs, 1 when it does not, 77 when you may not know: see the state directory's permissions.
    """
    context = context_of(ctx, database=False)
    seen, trouble = _overview(context, name)
    engine, forbidden = _look(context)  # afterwards: a server that hangs is waited for, and the engine complains sooner
    document = {
        "engine": {"running": None, "error": str(forbidden)} if forbidden else _engine(engine, context.now),
        "database": _database(context, engine, trouble),
        "firewall": {
            "backend": context.firewall.name,
            "enforces": context.firewall.enforces,
            "not_enforced": engine.said.get("not_enforced", []) if engine.running else [],
        },
        "jails": [_jail(line, seen) for line in seen.jails],
        "logs": engine.said.get("logs", []) if engine.running else [],
        "faults": _faults(engine, seen),
    }
    with heard_or_not():
        if as_json:
            emit(document)
        else:
            _print(context, engine, document, seen)
    if forbidden:
        raise forbidden
    return 0 if engine.running else 1


def _look(context: Context) -> tuple[EngineView, NoPermissionError | None]:
    """The engine, or why nobody may know."""
    try:
        return look(context.config.state_dir), None
    except NoPermissionError as error:
        return EngineView(False), error


def _overview(context: Context, name: str | None) -> tuple[Overview, str]:
    """The jails, or why the database cannot tell."""
    try:
        open_database(context)
        return overview(context, name), ""
    except UsageError:
        raise
    except McbanError as error:
        return Overview((), ()), str(error)


SILENCE = 60
"""Seconds without a word from the engine that are odd: it says how it is every few."""


def _engine(engine: EngineView, now: int) -> dict[str, Any]:
    if not engine.running:
        return {"running": False}
    said = engine.said
    troubles = list(said.get("troubles", []))
    at = said.get("at")
    if isinstance(at, int) and now - at > SILENCE:
        troubles.append(f"it has said nothing for {about(now - at)}: is the disk of the state directory full?")
    return {
        "running": True,
        "pid": engine.pid,
        "version": said.get("version"),
        "node": said.get("node"),
        "since": rfc3339(said.get("since")),
        "firewall": said.get("firewall"),
        "troubles": troubles,
    }


def _database(context: Context, engine: EngineView, trouble: str) -> dict[str, Any]:
    """What we see of it, and what the engine does: it may have been cut off from a database that we reach."""
    said = engine.said.get("database", {}) if engine.running else {}
    age = age_of(context.config.state_dir, context.now)
    return {
        "url": context.database.shown_url,
        "nodes": context.database.nodes,
        "engine_uses": said.get("url"),
        "error": trouble or None,
        "away_since": rfc3339(said.get("away_since")),
        "trouble": said.get("trouble") or None,
        "started_from_copy_of": rfc3339(said.get("started_from_copy_of")),
        "copy_of": None if age is None else rfc3339(context.now - age),
    }


def _print_database(context: Context, database: dict[str, Any], engine: EngineView) -> None:
    nodes = len(database["nodes"])
    several = f" (of {nodes} nodes)" if nodes > 1 else ""
    click.echo(f"database  {printable(context.database.shown_url, 400)}{several}")
    if several and database["engine_uses"] not in {None, context.database.shown_url}:
        click.echo(f"          the engine uses {printable(database['engine_uses'], 400)}")
    said = engine.said.get("database", {}) if engine.running else {}
    own, theirs = (_of_it(database[key] or "", context.database.shown_url) for key in ("error", "trouble"))
    if own:
        click.echo(f"trouble   {own}")
        if engine.running and not database["away_since"]:
            click.echo("          the engine has not complained of that so far")
    if database["away_since"]:
        length = about(max(0, context.now - said["away_since"]))
        click.echo(f"trouble   the engine has been without it for {length}" + (f": {theirs}" if theirs != own else ""))
        click.echo("          meanwhile attackers are banned by what is known; their hits are counted when it is back")
    if database["started_from_copy_of"]:
        length = about(max(0, context.now - said["started_from_copy_of"]))
        click.echo(f"trouble   it was started without it: jails and bans are those of {length} ago")
    if database["copy_of"] and (database["error"] or database["away_since"]):
        length = about(age_of(context.config.state_dir, context.now) or 0)
        click.echo(f"copy      what is known without it is as of {length} ago")


def _of_it(trouble: str, url: str) -> str:
    """A trouble with the database, below the line that names it."""
    return printable(trouble.replace(f"{url} ", "it ", 1) if trouble.startswith(f"{url} ") else trouble, 400)


def _jail(line: JailLine, seen: Overview) -> dict[str, Any]:
    jail = line.jail
    return {
        "name": jail.name,
        "group": jail.group,
        "kind": jail.kind.value,
        "enabled": jail.enabled,
        "maxretry": jail.maxretry,
        "findtime": jail.findtime,
        "bantime": jail.bantime,
        "max_count": jail.max_count,
        "ports": str(jail.ports),
        "hits": line.hits,
        "bans": line.bans,
        "bans_ever": line.bans_ever,
        "faults": [fault.why for fault in seen.faults if fault.what in {jail.name, jail.group}],
    }


def _faults(engine: EngineView, seen: Overview) -> list[dict[str, str]]:
    faults = [{"what": fault.what, "why": fault.why} for fault in seen.faults]
    if engine.running:
        faults += [fault for fault in engine.said.get("faults", []) if fault not in faults and not seen.jails]
        faults += [
            {"what": log["path"], "why": f"cannot be read: {log['reason']}"}
            for log in engine.said.get("logs", [])
            if log["state"] == "unreadable"
        ]
    return faults


def _print(context: Context, engine: EngineView, document: dict[str, Any], seen: Overview) -> None:
    if document["engine"]["running"] is None:
        click.echo("engine    not known")
    elif engine.running:
        since = engine.said.get("since")
        for_long = f", for {about(max(0, context.now - since))}" if isinstance(since, int) else ""
        click.echo(f"engine    runs (process {engine.pid}{for_long})")
    else:
        click.echo(f"engine    does not run on {context.config.state_dir}")
    _print_database(context, document["database"], engine)
    quiet = "" if context.firewall.enforces else ": decides and records, touches no kernel"
    click.echo(f"firewall  {context.firewall.name}{quiet}")
    for said in document["engine"].get("troubles", []):
        click.echo(f"trouble   {printable(said, 400)}")
    for fault in document["faults"]:
        click.echo(f"fault     {printable(fault['what'])}: {printable(fault['why'], 400)}")
    refusals = document["firewall"]["not_enforced"]
    for line in summarise(Refusal(str(one["jail"]), str(one["entry"]), str(one["why"])) for one in refusals):
        click.echo(f"not enforced  {printable(line, 600)}")
    for log in document["logs"]:
        reason = f" ({printable(str(log['reason']))})" if log["reason"] else ""
        behind = f", {log['lag']} bytes behind" if log["lag"] else ""
        click.echo(f"log       {printable(log['path'])}: {log['state']}{reason}{behind}")
    if document["database"]["error"]:
        click.echo("jails     not known without the database")
    if seen.jails:
        click.echo()
        heads = ("JAIL", "HITS", "WITHIN", "BAN", "PORTS", "BANS NOW", "BANS EVER", "HITS SEEN", "")
        table(heads, (_row(line) for line in seen.jails))


def _row(line: JailLine) -> tuple[object, ...]:
    jail = line.jail
    ladder = (jail.maxretry, format_duration(jail.findtime)) if jail.findtime else ("-", "-")
    return (
        jail.name,
        *ladder,
        format_duration(jail.bantime),
        jail.ports,
        line.bans,
        line.bans_ever,
        line.hits if jail.findtime else "-",
        "" if jail.enabled else "disabled",
    )
