"""Activities of the engine that go wrong: no error ends it, each is told once and the activity tried again."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcban.daemon.bridge import Bridge
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.membership import Membership
from mcban.daemon.reading import Reading
from mcban.daemon.troubles import Troubles
from mcban.errors import DatabaseError, McbanError, printable
from mcban.firewall.base import IncompleteError


class Guard:
    """Does activities. What their errors say of SQL the `bridge` learns, all else the `troubles`."""

    def __init__(
        self, reading: Reading, bridge: Bridge, troubles: Troubles, enforcement: Enforcement, membership: Membership
    ) -> None:
        self._reading, self._bridge, self._troubles = reading, bridge, troubles
        self._enforcement, self._membership = enforcement, membership

    def __call__(self, action: Callable[[], Any], *, asks: bool = True) -> Any:
        """Do it; what goes wrong is tried again when it is due next. None when it went wrong.

        One fault often stops several activities: it is said once, and once that it is over. What goes wrong with one
        that `asks` SQL nothing says nothing about SQL, also while a batch stands: the next try is not put off by it.
        """
        name = action.__name__
        try:
            result = action()
        except McbanError as error:
            self.failed(name, error, asks=asks)
            return None
        except Exception as error:  # noqa: BLE001  # what nobody foresaw must not leave a host without its engine
            self._broke(name, error, asks=asks)
            return None
        self._troubles.succeeded(name)
        return result

    def failed(self, name: str, error: McbanError, *, asks: bool = True) -> None:
        """An activity of this name raised `error`."""
        if asks and self._is_away(error):
            return
        if isinstance(error, IncompleteError):
            self._enforcement.tell_refusals(error.refused)
        self._troubles.failed(name, str(error))

    def _broke(self, name: str, error: Exception, *, asks: bool) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"a defect of mcban, please report it: {type(error).__name__}: {printable(str(error))} in {name} ("
        said += f"{Path(place.filename).name}:{place.lineno})"
        if asks and self._reading.pending.offered:
            self._bridge.failed(said)
            return
        self._troubles.failed(name, said)
        self._enforcement.doubt()

    def _is_away(self, error: McbanError) -> bool:
        """Whether the error means that nothing can be written. While a batch stands of which nobody knows whether it
        was, any error does."""
        if self._reading.pending.offered:
            self._bridge.failed(str(error))
            return True
        if not isinstance(error, DatabaseError):
            return False
        if self._bridge.outage is None:
            if self._answers():
                return False
            self._bridge.failed(str(error))
        return True

    def _answers(self) -> bool:
        """Whether SQL takes a small change. One that a defect of ours stops says nothing about that."""
        try:
            self._membership.beat()
        except McbanError:
            return False
        except Exception as error:  # noqa: BLE001  # as above
            self._broke(self._membership.beat.__name__, error, asks=True)
        return True
