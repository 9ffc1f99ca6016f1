"""What the tests of faults share: an attack that goes on, and what must have come of it in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.node import Node
from tests.patience import until

SHORT = 0.0
LONG = 60.0
"""Seconds for which each fault stands after what must come of it has come."""
soak = [pytest.mark.soak, pytest.mark.timeout(1800)]
lengths = pytest.mark.parametrize("length", [SHORT, pytest.param(LONG, marks=soak)], ids=["short", "minute"])


def attack(node: Node, network: str, seconds: float) -> int:
    """Five failures of an attacker, whom the kernel must hold then, and of a few more while `seconds` pass; how many
    failures that were."""
    end, count = time.monotonic() + seconds, 0
    while count == 0 or time.monotonic() < end:
        ip = f"{network}.{count % 250 + 1}"
        node.fail("mc-exim", ip, 5)
        node.await_entry(ip)
        count += 1
        time.sleep(min(0.2, seconds))
    return 5 * count


class Siege:
    """Attackers, one after the other, five failures each."""

    def __init__(self, node: Node, number: int) -> None:
        self._node, self._number = node, number
        self.attackers: list[str] = []

    def strike(self) -> None:
        """The next one."""
        count = len(self.attackers)
        ip = f"198.18.{16 * self._number + count // 250}.{count % 250 + 1}"
        self._node.fail("mc-exim", ip, 5)
        self.attackers.append(ip)

    def _next(self) -> str:
        """Whoever attacks next."""
        before = len(self.attackers)
        until(lambda: len(self.attackers) > before, "an attack")
        return self.attackers[-1]

    def fails(self, seconds: float = 0.0) -> None:
        """Whoever attacks from now on is in the kernel soon; and so for so long."""
        end = time.monotonic() + seconds
        while True:
            self._node.await_entry(self._next())
            if time.monotonic() >= end:
                return
            time.sleep(0.5)


@contextmanager
def siege(node: Node, number: int) -> Iterator[Siege]:
    """Five attackers a second, `number` times another network, until the end of it."""
    going_on, stop = Siege(node, number), threading.Event()

    def strike() -> None:
        while not stop.wait(0.2):
            going_on.strike()

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield going_on
    finally:
        stop.set()
        thread.join()


def at_peace(node: Node, hits: int, fewest: int, most: int | None = None) -> None:
    """All was counted, once, kernel and SQL are equal, and each fault was one line, and one when it was over: there
    were `fewest` faults, or up to `most`, for on a slow machine a short one may last long enough to be told."""
    until(lambda: node.engine_log.count(" over: ") >= max(fewest, node.engine_log.count(" ERROR ")), "the end of it")
    until(node.all_read, "reading to the end")
    assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == hits
    assert {row.count for row in node.database.read(lambda t: t.addresses.in_force(0))} == {1}
    until(node.in_step, "the kernel to be like SQL")
    assert "Traceback" not in node.engine_log and "defect" not in node.engine_log, node.engine_log
    faults = node.engine_log.count(" ERROR ")
    assert fewest <= faults == node.engine_log.count(" over: ") <= (most or fewest), node.engine_log
