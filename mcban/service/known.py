"""What SQL said last: what is enforced, and judged by, while it is away."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcban.core.ends import Ends
from mcban.core.model import Position
from mcban.core.plan import Plan, Wanted
from mcban.service.context import Context, World
from mcban.service.sync import Aim, aim_of, wanted_rules
from mcban.service.world import load_world
from mcban.store.database import Transaction


@dataclass(slots=True)
class Known:
    """Jails, allowances and bans as of the last that SQL said. `bans` are by jail the entries that the kernel should
    hold; `positions` how far the logs were read by then."""

    world: World
    bans: dict[str, Ends] = field(default_factory=dict)
    positions: list[Position] = field(default_factory=list)

    def note(self, plan: Plan) -> None:
        """Single bans that came, or went, since."""
        for jail, ends in plan.add.items():
            if jail in self.bans:
                self.bans[jail].update(ends)
        for jail, entries in plan.remove.items():
            if jail in self.bans:
                self.bans[jail].discard(entries)

    def ends(self) -> dict[str, dict[str, int]]:
        """By jail when the bans end, to be looked up."""
        return {jail: ends.unpack() for jail, ends in self.bans.items()}

    def aim(self, context: Context) -> Aim:
        """What the kernel should hold by this."""
        return Aim(Wanted(wanted_rules(context, self.world.book.groups.values()), self.ends()), {})


def known_by(world: World, aim: Aim) -> Known:
    """What a full sync found."""
    return Known(world, {jail: Ends(ends) for jail, ends in aim.wanted.entries.items()})


def ask(context: Context) -> Known:
    """What SQL says now, by reading alone: a disk that is full, or a server that takes no changes, still tells.
    Raises what the database raises."""

    def work(transaction: Transaction) -> Known:
        world = load_world(context, transaction)
        known = known_by(world, aim_of(context, transaction, world, None))
        known.positions = transaction.positions.all(context.config.node)
        return known

    return context.database.read(work)
