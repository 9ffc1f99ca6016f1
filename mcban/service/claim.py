"""The name of a node, under which its log positions and bans stand in SQL, is one engine's at a time.

Two under one name would take each other's positions for their own, and count lines twice or never. So an engine claims
its name, and says every few seconds that it is still there. One that was killed says nothing any more: on the same
machine, with the same state directory, whose lock tells that no other engine runs there, the next begins at once;
elsewhere it begins when the claim is old.

A machine that was copied together with its state directory looks like the same one. There the engine that came first
takes its name back when it next says that it is there, and the one that came later finds that and stops.
"""

from __future__ import annotations

import secrets

from mcban.errors import McbanError
from mcban.service.context import Context
from mcban.service.world import own_addresses
from mcban.store.database import Transaction
from mcban.store.nodes import Claim

BEAT = 10.0
"""Seconds between two times that an engine says that it is there."""
LEASE = 30
"""Seconds after which one that said nothing is taken for gone."""


class LostNameError(McbanError):
    """Another engine is this node."""


class NodeName:
    """The claim of this process. `owner` tells this machine and state directory from others."""

    def __init__(self, context: Context, owner: str) -> None:
        self._context, self._owner = context, owner
        self._token = secrets.token_hex(16)
        self._taken = self._kept = False

    def take(self) -> None:
        """Be the node. Raises LostNameError when another engine is."""
        node, mine = self._context.config.node, self._claim()

        def work(transaction: Transaction) -> None:
            known = transaction.nodes.claimed(node)
            age = mine.seen - known.seen if known else LEASE
            if known and known.token and known.owner != self._owner and abs(age) < LEASE:
                raise LostNameError(
                    f"an engine on {_where(known)} is node {node} of this database already, seen {max(0, age)} s ago: "
                    "give this machine a name of its own (node in mcban.toml), or, if the other one is gone for good, "
                    f"try again in {LEASE - age} s"
                )
            transaction.nodes.claim(node, mine)
            if known is None or set(known.addresses) != set(mine.addresses):
                transaction.changes.note()  # they protect them

        self._context.database.write(work, touches=False)
        self._taken = True

    def keep(self) -> str:
        """Say that this engine is still there; returns what there is to tell, mostly nothing. Raises LostNameError when
        another one is the node, and has been for longer."""
        if not self._taken:
            self.take()
            return ""
        node, mine = self._context.config.node, self._claim()

        def work(transaction: Transaction) -> Claim | None:
            known = transaction.nodes.claimed(node)
            if known is None or known.token == mine.token or self._kept:
                transaction.nodes.claim(node, mine)
            if known is None or set(known.addresses) != set(mine.addresses):
                transaction.changes.note()
            return None if known is None or known.token == mine.token else known

        other = self._context.database.write(work, touches=False)
        if other is None:
            self._kept = True
            return ""
        if not self._kept:
            raise LostNameError(
                f"an engine on {_where(other)} is node {node} of this database, and was so before: "
                "give this machine a name of its own (node in mcban.toml)"
            )
        return f"another engine, on {_where(other)}, wanted to be node {node} too: it is to have a name of its own"

    def leave(self) -> None:
        """Be the node no longer: another engine may be it at once."""
        if self._taken:
            self._context.database.write(lambda t: t.nodes.release(self._context.config.node, self._token))

    def _claim(self) -> Claim:
        addresses = tuple(own_addresses(self._context.host.protected()))
        return Claim(self._owner, self._token, addresses, self._context.now)


def _where(claim: Claim) -> str:
    return ", ".join(claim.addresses[:2]) or "another machine"
