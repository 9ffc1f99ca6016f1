"""`mcban sync`."""

from __future__ import annotations

import click

from mcban.cli.output import context_of, emit, json_option
from mcban.core.plan import Plan
from mcban.service import sync as service
from mcban.service.upkeep import take_over


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when kernel and SQL differ.")
@json_option
@click.pass_context
def sync(ctx: click.Context, check: bool, as_json: bool) -> int:
    """Bring the kernel's lists and rules to what SQL says."""
    context = context_of(ctx)
    if check:
        plan, _ = service.compare(context)
        _tell(plan, as_json, done=False)
        return 0 if plan.empty else 1
    take_over(context)
    outcome = service.sync(context)
    _tell(outcome.plan, as_json, done=True)
    for refusal in outcome.refusals:
        click.echo(f"mcban: {refusal.entry} in {refusal.jail} is not enforced: {refusal.why}", err=True)
    return 1 if outcome.refusals else 0


def _tell(plan: Plan, as_json: bool, *, done: bool) -> None:
    if as_json:
        emit(
            {
                "in_sync": plan.empty or done,
                "applied": done,
                "create": list(plan.create),
                "add": {jail: sorted(entries) for jail, entries in plan.add.items()},
                "rules": sorted(plan.rules),
                "drop_rules": list(plan.drop_rules),
                "remove": {jail: sorted(entries) for jail, entries in plan.remove.items()},
                "drop": list(plan.drop),
            }
        )
        return
    for line in plan.lines():
        click.echo(line if not done else f"done: {line}")
    if plan.empty:
        click.echo("the kernel holds what SQL says")
