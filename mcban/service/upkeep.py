"""What must be done now and then: taking over plain SQL, ending bans, dropping what nobody can ask for any more."""

from __future__ import annotations

from mcban.core.ladder import LONGEST_LOOK_BACK
from mcban.service.allow import lift_newly_allowed
from mcban.service.context import Context, World
from mcban.service.jails import settle
from mcban.service.settle import settle_bans
from mcban.service.world import load_world, own_addresses
from mcban.store.database import Transaction


def take_over(context: Context, before: World | None = None) -> tuple[World, list[str]]:
    """The world after what plain SQL implies was done: ladders, blacklist jails, ends of bans, bans lifted by what is
    allowed since the world was as `before`; and what was done."""

    def work(transaction: Transaction) -> tuple[World, list[str]]:
        said = settle(transaction, context.host.port_number, context.config.firewall_chains)
        world = load_world(context, transaction)
        said += settle_bans(context, transaction, world)
        return world, said + (lift_newly_allowed(context, transaction, world, before) if before else [])

    return context.database.write(work)


def announce(context: Context) -> None:
    """Let the other nodes know this one's addresses, which they protect."""
    addresses = own_addresses(context.host.protected())
    context.database.write(lambda t: t.nodes.announce(context.config.node, addresses, context.now))


def expire(context: Context) -> int:
    """Mark the bans that have ended; returns how many."""
    if not context.database.read(lambda t: t.addresses.any_over(context.now)):
        return 0
    return len(context.database.write(lambda t: t.addresses.expire(context.now)))


class Purge:
    """Drops what nobody can ask for any more: hits older than every look-back, old decisions, old notes of changes.
    Hits and decisions are walked through, a part of them in each `step`."""

    def __init__(self) -> None:
        self._hit, self._event = "", 0

    def step(self, context: Context, world: World) -> None:
        """Go on from where the last step ended."""
        groups = world.book.groups.values()
        befores = {group.name: context.now - group.longest_look_back for group in groups}
        # A group whose rows cannot be used at the moment is not forgotten at once.
        otherwise = min(min(befores.values(), default=context.now), context.now - LONGEST_LOOK_BACK)
        hit, event = self._hit, self._event
        self._hit = context.database.write(lambda t: t.hits.purge(befores, otherwise, hit))
        self._event = context.database.write(lambda t: t.events.purge(context.now - context.config.keep_events, event))
        context.database.write(lambda t: t.changes.purge())
