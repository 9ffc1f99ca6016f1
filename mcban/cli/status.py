"""`mcban status`."""

from __future__ import annotations

from typing import Any

import click

from mcban.cli.output import context_of, emit, jail_option, json_option, rfc3339, table
from mcban.core.duration import about, format_duration
from mcban.daemon.presence import EngineView, look
from mcban.errors import McbanError, NoPermissionError, UsageError, printable
from mcban.service.context import Context
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
    engine, forbidden = _look(context)
    seen, trouble = _overview(context, name)
    document = {
        "engine": {"running": None, "error": str(forbidden)} if forbidden else _engine(engine),
        "database": {"url": context.database.shown_url, "error": trouble or None},
        "firewall": {
            "backend": context.firewall.name,
            "enforces": context.firewall.enforces,
            "not_enforced": engine.said.get("not_enforced", []) if engine.running else [],
        },
        "jails": [_jail(line, seen) for line in seen.jails],
        "logs": engine.said.get("logs", []) if engine.running else [],
        "faults": _faults(engine, seen),
    }
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


def _engine(engine: EngineView) -> dict[str, Any]:
    if not engine.running:
        return {"running": False}
    said = engine.said
    return {
        "running": True,
        "pid": engine.pid,
        "version": said.get("version"),
        "node": said.get("node"),
        "since": rfc3339(said.get("since")),
        "firewall": said.get("firewall"),
        "troubles": said.get("troubles", []),
    }


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
    click.echo(f"database  {printable(context.database.shown_url, 400)}")
    error = document["database"]["error"]
    if error:
        click.echo(f"trouble   {printable(error, 400)}")
    quiet = "" if context.firewall.enforces else ": decides and records, touches no kernel"
    click.echo(f"firewall  {context.firewall.name}{quiet}")
    for said in document["engine"].get("troubles", []):
        click.echo(f"trouble   {printable(said, 400)}")
    for fault in document["faults"]:
        click.echo(f"fault     {printable(fault['what'])}: {printable(fault['why'], 400)}")
    for refusal in document["firewall"]["not_enforced"]:
        entry, jail = printable(str(refusal["entry"])), printable(str(refusal["jail"]))
        click.echo(f"not enforced  {entry} in {jail}: {printable(str(refusal['why']), 400)}")
    for log in document["logs"]:
        reason = f" ({printable(str(log['reason']))})" if log["reason"] else ""
        behind = f", {log['lag']} bytes behind" if log["lag"] else ""
        click.echo(f"log       {printable(log['path'])}: {log['state']}{reason}{behind}")
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
