"""Any instant may be the last: the engine is killed again and again while a log grows and is rotated."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mcban.store.database import Transaction
from tests.e2e.node import Node, exim
from tests.netns import one_host, require_netns
from tests.patience import PATIENCE, until

NETWORKS = 250  # attackers: 203.0.113.1 to .250, few enough that each comes again and again


KILLS = int(os.environ.get("KILLS", "1000"))


@pytest.fixture
def gate(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[Node]:
    """A gateway by itself, on a database of that kind."""
    require_netns()
    url = "" if kind == "sqlite" else request.getfixturevalue("empty_mariadb")
    with one_host() as host:
        gateway = Node(host, tmp_path / "gate", database_url=url)
        try:
            gateway.prepare()
            yield gateway
        finally:
            gateway.end()


def without_blacklist(transaction: Transaction) -> None:
    """No jail ends the counting of an address: every failure counts."""
    for jail in transaction.jails.all():
        transaction.jails.update(jail.name, {"max_count": 0})


soak = [pytest.mark.soak, pytest.mark.timeout(14_000)]


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("sqlite", 4), pytest.param("sqlite", KILLS, marks=soak), pytest.param("mariadb", KILLS, marks=soak)],
)
def test_every_line_is_counted_once_whenever_the_engine_is_killed(gate: Node, kills: int) -> None:
    """Killed at random instants, also while it starts, as its log is written and renamed, the engine has counted each
    failure exactly once in the end, and bans whom the log says, in SQL and in the kernel."""
    node = gate
    rng = random.Random(kills)
    log, stop, written = node.log("mc-exim"), threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            with log.open("a", encoding="utf-8") as file:
                for _ in range(rng.randrange(1, 40)):
                    ip = f"203.0.113.{written[0] % NETWORKS + 1}"
                    line = exim(ip, datetime.now())  # noqa: DTZ005  # exim logs local time
                    # No two files may begin alike: one would be taken for the other's copy.
                    file.write(line.replace("info@", f"info{written[0]}@") + "\n")
                    file.flush()
                    written[0] += 1
            if rng.random() < 0.02:
                log.rename(log.with_name(f"{log.name}.{time.monotonic_ns()}"))
            time.sleep(0.01)

    node.database.write(without_blacklist)
    log.touch()
    node.start()
    node.settled()  # a log that was rotated before it was ever seen is unknown
    node.stop(signal.SIGKILL)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(kills):
            if rng.random() < 0.5:
                node.start()
                time.sleep(rng.random() * 0.7)
            else:
                node.launch()
                time.sleep(rng.random() * 2)
            node.stop(signal.SIGKILL)
    finally:
        stop.set()
        writer.join()
    node.start()
    quiet, before = time.monotonic(), -1
    while before != written[0] and time.monotonic() < quiet + PATIENCE:
        count = node.database.read(lambda t: t.hits.totals()).get("mc-exim", 0)
        if count != before:
            quiet, before = time.monotonic(), count
        time.sleep(0.1)
    time.sleep(2)  # nor does it count on
    count = node.database.read(lambda t: t.hits.totals()).get("mc-exim", 0)
    print(f"\n{kills} kills, {written[0]} lines, {count} counted")
    assert count == written[0]
    until(node.in_step, "the kernel to be like SQL")
    lowest = {ip for ip, jail in node.banned() if jail == "mc-exim-1d"}
    assert lowest == {f"203.0.113.{n + 1}" for n in range(min(NETWORKS, written[0])) if written[0] - n > 4 * NETWORKS}
    assert node.entries("mc-exim-1d") == lowest
