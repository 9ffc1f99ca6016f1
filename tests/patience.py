"""How long tests wait for what must happen.

A loaded machine is normal: a test that fails because something came late says nothing about mcban. So every wait for an
event has a limit that no machine reaches while it works, and costs time only when the test fails anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds."""


def until(happened: Callable[[], Any], what: str = "it", patience: float = PATIENCE) -> Any:
    """What `happened` gives once it is true; fails when that takes too long."""
    end, pause = time.monotonic() + patience, 0.02
    while True:
        result = happened()
        if result:
            return result
        assert time.monotonic() < end, f"{what} did not happen within {patience} seconds"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)  # asking may be work, which what is waited for is kept from


def before_its_end(act: Callable[[int], T]) -> T:
    """What `act` gives for an end, in seconds since the epoch, that is near and has not come when it is done: the end
    is moved away until this machine is quick enough for it."""
    for seconds in (2, 10, 60, 300):
        end = int(time.time()) + seconds
        result = act(end)
        if time.time() < end:
            return result
    raise AssertionError("five minutes are not enough")
