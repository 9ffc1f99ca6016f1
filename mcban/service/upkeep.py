"""What must be done now and then: taking over plain SQL, ending bans, dropping what nobody can ask for any more."""

from __future__ import annotations

from collections.abc import Mapping

from mcban.core.ladder import LONGEST_LOOK_BACK
from mcban.service.allow import lift_newly_allowed
from mcban.service.context import Context, World
from mcban.service.jails import settle
from mcban.service.settle import settle_bans
from mcban.service.world import load_world
from mcban.store.database import Transaction

NODE_KEPT = 31_536_000
"""Seconds for which a node that is not seen any more is remembered, and how far it had read its logs."""
SLACK = 86_400
"""Seconds by which the clock of a log may have been late when a ban was lifted."""


def take_over(context: Context, before: World | None = None) -> tuple[World, list[str]]:
    """The world after what plain SQL implies was done: ladders, blacklist jails, ends of bans, bans lifted by what is
    allowed since the world was as `before`; and what was done."""

    def work(transaction: Transaction) -> tuple[World, list[str]]:
        said = settle(transaction, context.host.port_number, context.config.firewall_chains)
        world = load_world(context, transaction)
        said += settle_bans(context, transaction, world)
        return world, said + (lift_newly_allowed(context, transaction, world, before) if before else [])

    return context.database.write(work)


def expire(context: Context) -> int:
    """Mark bans that have ended, a part of them where there are very many: nobody takes one that has ended for one
    that runs meanwhile. Returns how many."""
    if not context.database.read(lambda t: t.addresses.any_over(context.now)):
        return 0
    return len(context.database.write(lambda t: t.addresses.expire(context.now)))


class Purge:
    """Drops what nobody can ask for any more: hits older than every look-back, bans that ended long ago, old decisions
    and notes of changes, nodes that are gone. The tables are walked through, a part of them in each `step`, each in
    a transaction of its own: no log waits for long, and no other node."""

    def __init__(self) -> None:
        self._hit, self._ban, self._event = "", 0, 0

    def step(self, context: Context, world: World) -> None:
        """Go on from where the last step ended."""
        now, config, write = context.now, context.config, context.database.write
        groups = world.book.groups.values()
        befores = {group.name: now - group.longest_look_back for group in groups}
        # A group whose rows cannot be used at the moment is not forgotten at once.
        otherwise = min(min(befores.values(), default=now), now - LONGEST_LOOK_BACK)
        # While hits are kept that lie before the end of a ban, its row says that they count no more.
        ended = min(now - config.keep_bans, otherwise - SLACK)
        hit, ban, event = self._hit, self._ban, self._event
        self._hit = write(lambda t: t.hits.purge(befores | _own_befores(t, world, befores), otherwise, hit))
        self._ban = write(lambda t: t.addresses.purge(ended, ban))
        self._event = write(lambda t: t.events.purge(now - config.keep_events, event))
        write(lambda t: t.changes.purge())
        write(lambda t: t.positions.forget(t.nodes.purge(now - NODE_KEPT)))


def _own_befores(transaction: Transaction, world: World, befores: Mapping[str, int]) -> dict[str, int]:
    """The same for the hits that nodes count for themselves."""
    groups, nodes = world.book.groups.values(), transaction.nodes.addresses()
    return {group.counted_as(node): befores[group.name] for group in groups for node in nodes}
