"""What the engine says of itself, for `mcban status`."""

from __future__ import annotations

import os
from dataclasses import asdict

from mcban import __version__
from mcban.daemon.bridge import Bridge
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Reading
from mcban.daemon.troubles import Troubles
from mcban.service.context import Context


class Statement:
    """Put down by the `presence`, from what those know who do the work."""

    def __init__(
        self, context: Context, presence: Presence, reading: Reading, bridge: Bridge, troubles: Troubles
    ) -> None:
        self._context, self._presence = context, presence
        self._reading, self._bridge, self._troubles = reading, bridge, troubles
        self._started = context.now

    def publish(self) -> None:
        """Say how things are now."""
        logs = self._reading.status() if self._reading.begun else self._bridge.logs()
        self._presence.say(
            {
                "pid": os.getpid(),
                "version": __version__,
                "node": self._context.config.node,
                "since": self._started,
                "at": self._context.now,
                "firewall": self._context.firewall.name,
                "enforces": self._context.firewall.enforces,
                "database": self._bridge.status(),
                **self._troubles.status(),
                "logs": [asdict(status) for status in logs],
            }
        )
