"""`mcban sync`."""

from __future__ import annotations

import click

from mcban.cli.output import context_of, emit, heard_or_not, json_option
from mcban.core.plan import Plan
from mcban.errors import RefusedError, printable
from mcban.service import sync as service
from mcban.service.upkeep import take_over


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when kernel and SQL differ.")
@click.option("--force", is_flag=True, help="Also when that lifts most of the bans in the kernel.")
@json_option
@click.pass_context
def sync(ctx: click.Context, check: bool, force: bool, as_json: bool) -> int:
    """Bring the kernel's lists and rules to what SQL says."""
    context = context_of(ctx)
    if not context.firewall.enforces:
        # Each process has a memory of its own: whatever this one found missing would mean nothing.
        if not check:
            take_over(context)
        note = f"the {context.firewall.name} firewall touches no kernel: there is nothing to compare"
        _tell(Plan(), as_json, note=note)
        return 0
    if check:
        found = service.compare(context)
        _tell(found.plan, as_json)
        withheld = service.guard(context, found)[1]
        if withheld:
            click.echo(f"mcban: without --force, mcban sync does the rest of it only: {withheld}", err=True)
        return 0 if found.plan.empty else 1
    take_over(context)
    outcome = service.sync(context, force=force)
    if outcome.withheld:
        _tell(outcome.plan, as_json, applied=True, whole=False)
        raise RefusedError(outcome.withheld)
    _tell(outcome.plan, as_json, applied=True, whole=not outcome.refusals)
    for refusal in outcome.refusals:
        click.echo(
            f"mcban: {printable(refusal.entry)} in {printable(refusal.jail)} is not enforced: {refusal.why}", err=True
        )
    return 1 if outcome.refusals else 0


def _tell(plan: Plan, as_json: bool, *, applied: bool = False, whole: bool = True, note: str = "") -> None:
    with heard_or_not():
        _print(plan, as_json, applied=applied, whole=whole, note=note)


def _print(plan: Plan, as_json: bool, *, applied: bool, whole: bool, note: str) -> None:
    if as_json:
        emit(
            {
                "in_sync": whole and (applied or plan.empty),
                "applied": applied,
                "create": list(plan.create),
                "add": {jail: sorted(entries) for jail, entries in plan.add.items()},
                "rules": sorted(plan.rules),
                "drop_rules": list(plan.drop_rules),
                "remove": {jail: sorted(entries) for jail, entries in plan.remove.items()},
                "drop": list(plan.drop),
                "note": note or None,
            }
        )
        return
    for line in plan.lines():
        click.echo(f"done: {line}" if applied else f"to do: {line}")
    if plan.empty:
        click.echo(note or "the kernel holds what SQL says")
    elif not applied:
        click.echo("kernel and SQL differ: mcban sync mends it, and so does a running engine within seconds")
