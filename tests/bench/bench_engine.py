"""What the engine as a whole takes: SQL read and compared, bans put back after a kill, and doing nothing.

    python -m tests.bench.bench_engine [bans ...]

A real engine, the ipset backend and SQLite, in a private namespace, which needs root. fail2ban's own figure for putting
3 000 bans back stands beside it when it is installed, or unpacked from its package into FAIL2BAN_ROOT.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

from mcban.core.model import FOREVER
from mcban.service.sync import compare
from mcban.store.addresses import AddressRecord
from mcban.wiring import wire
from tests.bench import fail2ban
from tests.bench.bench_firewall import processor
from tests.e2e.node import Node
from tests.netns import Host, one_host, why_not

IDLE = 30.0
PEERS_BANS = 3_000


def main() -> None:
    """Measure and print."""
    lacking = why_not()
    if lacking:
        sys.exit(f"the engine cannot be measured here: {lacking}")
    for count in [int(text) for text in sys.argv[1:]] or [10_000, 100_000]:
        with one_host() as host, tempfile.TemporaryDirectory() as folder:
            measure(host, Path(folder), count)
    if fail2ban.client() is None:
        print(
            "fail2ban is not installed: no figure of its own beside these (apt-get download it, dpkg -x, FAIL2BAN_ROOT)"
        )
        return
    with one_host() as host, tempfile.TemporaryDirectory() as folder:
        took = PEERS_BANS / fail2ban.restored_per_second(host, Path(folder), PEERS_BANS)
        say(PEERS_BANS, "fail2ban, restarted, all in its ipset list again", took, "s")


def measure(host: Host, folder: Path, count: int) -> None:
    """One engine with `count` bans."""
    node = Node(host, folder / "gate")
    try:
        node.prepare()
        bans = (f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count))
        rows = [AddressRecord(ip, "mc-exim-1y", 1, True, since=1, until=FOREVER, reason="bench") for ip in bans]
        node.database.write(lambda t: t.addresses.save(rows))
        say(count, "engine started, all in force", started(node, count), "s")
        node.stop(signal.SIGKILL)
        host.run("ipset", "flush")
        say(count, "killed, lists flushed, started again", started(node, count), "s")
        say(count, "doing nothing", idle(node), "% of a core")
        reading(host, node, count)
        node.stop()
    finally:
        node.end()


def started(node: Node, count: int) -> float:
    """Seconds from the command to the last entry in the kernel; the engine says ready only then."""
    begun = time.perf_counter()
    node.start()
    took = time.perf_counter() - begun
    found = node.host.run("ipset", "list", "-t", "mc-exim-1y")
    assert f"Number of entries: {count}" in found, found
    return took


def idle(node: Node) -> float:
    """The engine's share of a core while nothing happens, in per cent."""
    assert node.engine is not None
    time.sleep(3)
    before = ticks(node.engine.pid)
    time.sleep(IDLE)
    return (ticks(node.engine.pid) - before) / IDLE


def ticks(pid: int) -> int:
    """Hundredths of a second of processor that a process and its ended children have had."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def reading(host: Host, node: Node, count: int) -> None:
    """A full look that finds nothing to do: kernel and SQL read, and compared."""
    from mcban import config

    with host.entered():
        context = wire(config.load(None, node.env))
        before, begun = processor(), time.perf_counter()
        found = compare(context)
        took, used = time.perf_counter() - begun, processor() - before
        assert found.plan.empty
        context.firewall.close()
        context.database.dispose()
    say(count, f"SQL and kernel read and compared ({used:.2f} s CPU)", took, "s")


def say(count: int, what: str, value: float, unit: str) -> None:
    """One line."""
    print(f"{count:>9,}  {what:<54}{value:>9.2f} {unit}", flush=True)


if __name__ == "__main__":
    main()
