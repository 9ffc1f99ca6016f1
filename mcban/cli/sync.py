"""`mcban sync`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from mcban.cli.output import context_of, emit, heard_or_not, json_option, say
from mcban.core.plan import Plan
from mcban.errors import RefusedError
from mcban.firewall.base import Refusal, summarise
from mcban.service import sync as service
from mcban.service.upkeep import take_over

NOTHING: Mapping[str, str] = {}


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
        taken = {jail: why for jail, why in found.actual.taken.items() if jail in found.plan.create}
        _tell(found.plan, as_json, taken=taken)
        for why in taken.values():
            say(why)
        withheld = service.guard(context, found)[1]
        if withheld:
            say(f"without --force, mcban sync does the rest of it only: {withheld}")
        return 0 if found.plan.empty else 1
    take_over(context)
    outcome = service.sync(context, force=force)
    if outcome.withheld:
        _tell(outcome.done, as_json, applied=True, whole=False, refusals=outcome.refusals)
        raise RefusedError(outcome.withheld)
    _tell(outcome.done, as_json, applied=True, whole=not outcome.refusals, refusals=outcome.refusals)
    for line in summarise(outcome.refusals):
        say(f"not enforced: {line}")
    return 1 if outcome.refusals else 0


def _tell(
    plan: Plan,
    as_json: bool,
    *,
    applied: bool = False,
    whole: bool = True,
    note: str = "",
    taken: Mapping[str, str] = NOTHING,
    refusals: Sequence[Refusal] = (),
) -> None:
    with heard_or_not():
        if not as_json:
            _print(plan, applied=applied, whole=whole, note=note, taken=taken)
            return
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
                "not_mended": dict(taken),
                "not_enforced": [asdict(refusal) for refusal in refusals],
            }
        )


def _print(plan: Plan, *, applied: bool, whole: bool, note: str, taken: Mapping[str, str]) -> None:
    for line in plan.lines():
        click.echo(f"done: {line}" if applied else f"to do: {line}")
    if plan.empty and whole:
        click.echo(note or "the kernel holds what SQL says")
    elif applied:
        return
    elif plan.beyond(taken):
        what = "the rest" if taken else "it"
        click.echo(f"kernel and SQL differ: mcban sync mends {what}, and so does a running engine within seconds")
    else:
        click.echo("kernel and SQL differ, and mcban sync does not mend it")
