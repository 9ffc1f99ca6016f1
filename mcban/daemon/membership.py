"""This node among the others on its database: the name that it holds, and the clock that all of them go by."""

from __future__ import annotations

import logging

from mcban.core.duration import about
from mcban.service.claim import LostNameError, NodeName
from mcban.service.context import Context

log = logging.getLogger("mcban")


class Membership:
    """The claim of this engine. `owner` tells its machine and state directory from others; `lost` is the error once
    another engine turned out to be this node."""

    def __init__(self, context: Context, owner: str) -> None:
        self._context = context
        self._name = NodeName(context, owner)
        self._ahead = 0
        self.lost: LostNameError | None = None

    def join(self) -> None:
        """Be the node. Raises LostNameError when another engine is, and what the database raises."""
        self._name.take()
        self._tell_clock()

    def keep(self) -> None:
        """Say to the other nodes that this one is there. Raises as `join` does."""
        self._name.keep()

    def beat(self) -> None:
        """The same, with a look at the common clock; that the name is another engine's is found in `lost`. Raises what
        the database raises."""
        self._context.database.look_at_clock()
        self._tell_clock()
        try:
            said = self._name.keep()
        except LostNameError as error:
            self.lost = error
            return
        if said:
            log.error("%s", said)

    def leave(self) -> None:
        """Be the node no longer: another engine may be it at once. Raises what the database raises."""
        self._name.leave()

    def _tell_clock(self) -> None:
        before, self._ahead = self._ahead, self._context.database.ahead
        if before != self._ahead:
            way = "behind" if self._ahead > 0 else "ahead of"
            log.warning(
                "this machine's clock %s: bans begin and end by the database's",
                f"is {about(abs(self._ahead))} {way} the database's" if self._ahead else "is right again",
            )
