"""What SQL said last: what is enforced, and judged by, while it is away."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcban.core.model import Position
from mcban.core.plan import Plan, Wanted
from mcban.service.context import Context, World
from mcban.service.sync import Aim, aim_of, wanted_rules
from mcban.service.world import load_world
from mcban.store.database import Transaction


@dataclass(slots=True)
class Known:
    """Jails, allowances and bans as of the last that SQL said. `bans` are by jail the entries that the kernel should
    hold, with their ends; `positions` how far the logs were read by then."""

    world: World
    bans: dict[str, dict[str, int]] = field(default_factory=dict)
    positions: list[Position] = field(default_factory=list)

    def note(self, plan: Plan) -> None:
        """Single bans that came, or went, since."""
        for jail, ends in plan.add.items():
            if jail in self.bans:
                self.bans[jail].update(ends)
        for jail, entries in plan.remove.items():
            for entry in entries:
                self.bans.get(jail, {}).pop(entry, None)

    def aim(self, context: Context) -> Aim:
        """What the kernel should hold by this."""
        return Aim(Wanted(wanted_rules(context, self.world.book.groups.values()), self.bans), {})


def known_by(world: World, aim: Aim) -> Known:
    """What a full sync found. The entries are shared with `aim`, not copied: there may be a million of them."""
    bans = {jail: ends if isinstance(ends, dict) else dict(ends) for jail, ends in aim.wanted.entries.items()}
    return Known(world, bans)


def ask(context: Context) -> Known:
    """What SQL says now, by reading alone: a disk that is full, or a server that takes no changes, still tells.
    Raises what the database raises."""

    def work(transaction: Transaction) -> Known:
        world = load_world(context, transaction)
        known = known_by(world, aim_of(context, transaction, world, None))
        known.positions = transaction.positions.all(context.config.node)
        return known

    return context.database.read(work)
