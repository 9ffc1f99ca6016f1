"""Ten nodes on one MariaDB: how long until each kernel has what changed, and what the server does when nothing happens.

    python -m tests.bench.bench_nodes [changes [nodes]]

Real engines, each with a kernel's lists of its own in a namespace, which needs root. All of them share this machine's
processors: ten machines would be quicker.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from mcban.service import allow, bans
from mcban.service.context import Context
from tests.bench.bench_engine import ticks
from tests.cluster import Cluster, ClusterNode, cluster
from tests.netns import why_not

IDLE = 30.0
LIMIT = 20.0
JAIL = "mc-exim-1d"
OTHER = "mc-webauth-1w"


def main() -> None:
    """Measure and print."""
    lacking = why_not()
    if lacking:
        sys.exit(f"nodes cannot be measured here: {lacking}")
    changes, count = ([int(text) for text in sys.argv[1:]] + [300, 10][len(sys.argv) - 1 :])[:2]
    with tempfile.TemporaryDirectory(prefix="mcban-") as folder, cluster(Path(folder), count) as nodes:
        nodes.start()
        spread(nodes, changes)
        idle(nodes, Path(folder))


def spread(nodes: Cluster, changes: int) -> None:
    """Changes of each kind, one after the other, each until the last kernel has it."""
    pick = random.Random(1)
    took: dict[str, list[float]] = defaultdict(list)
    for number in range(0, changes, len(KINDS)):
        ip = f"11.0.{number >> 8}.{number & 255}"
        for what, change, entry, wanted in KINDS:
            time.sleep(pick.uniform(0.1, 0.4))  # at any moment between two questions
            begun = time.perf_counter()
            change(nodes, pick.choice(nodes), ip)
            took[what] += [at - begun for at in arrivals(nodes, entry, ip, wanted=wanted)]
    everything = [one for some in took.values() for one in some]
    for what, some in [*took.items(), ("all", everything)]:
        times = sorted(some)
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        label = f"{what}, in each of {len(nodes)} kernels"
        print(f"{label:<62} median {median(times):5.2f}  p99 {p99:5.2f}  max {times[-1]:5.2f} s", flush=True)


def arrivals(nodes: Cluster, jail: str, ip: str, *, wanted: bool) -> list[float]:
    """When each kernel was seen to be as wanted."""
    left, seen = list(nodes), []
    end = time.perf_counter() + LIMIT
    while left:
        there = [node for node in left if is_there(node, jail, ip) == wanted]
        seen += [time.perf_counter()] * len(there)
        left = [node for node in left if node not in there]
        if time.perf_counter() > end:
            raise SystemExit(f"{jail} {ip} is not {wanted} on {[node.name for node in left]} after {LIMIT} s")
        time.sleep(0.005)
    return seen


def is_there(node: ClusterNode, jail: str, ip: str) -> bool:
    """Whether a kernel holds an address; of the jail that is switched, whether it has its lists."""
    held = node.held([jail])
    return jail in held if jail == OTHER else ip in held.get(jail, ())


def by_sql(statement: str) -> Callable[[Cluster, ClusterNode, str], None]:
    """A change by plain SQL."""

    def change(nodes: Cluster, _: ClusterNode, ip: str) -> None:
        with nodes.database.engine.begin() as connection:
            connection.exec_driver_sql(statement.format(ip=ip))

    return change


def by_command(command: Callable[..., object], *arguments: object, **options: object) -> Callable[..., None]:
    """What a command does on a node, without its start."""

    def change(_: Cluster, node: ClusterNode, ip: str) -> None:
        with node.wired() as context:
            command(context, *(([ip] if one is None else one) for one in arguments), **options)

    return change


def by_log(_: Cluster, node: ClusterNode, ip: str) -> None:
    """Failures at a gateway."""
    node.fail("mc-exim", ip, 5)


def do_ban(context: Context, ips: list[str]) -> None:
    """`mcban ban`."""
    bans.ban(context, JAIL, ips, None, force=False, yes=False)


KINDS: list[tuple[str, Callable[[Cluster, ClusterNode, str], None], str, bool]] = [
    ("a ban by failures in a node's log", by_log, JAIL, True),
    ("a whitelisting by command, which lifts", by_command(allow.allow, "mc-exim", None), JAIL, False),
    ("(the whitelisting taken back)", by_command(allow.disallow, "mc-exim", None), JAIL, False),
    ("a ban by command", by_command(do_ban, None), JAIL, True),
    ("an unban by command", by_command(bans.unban, "mc-exim", None), JAIL, False),
    (
        "a ban by plain SQL",
        by_sql(f"REPLACE INTO fail2ban_ips (ip, jail, count) VALUES ('{{ip}}', '{JAIL}', 1)"),
        JAIL,
        True,
    ),
    ("a lifting by plain SQL", by_sql("UPDATE fail2ban_ips SET active = 0 WHERE ip = '{ip}'"), JAIL, False),
    (
        "a blacklisting by command",
        by_command(bans.blacklist_add, "mc-exim", None, force=False, yes=False),
        "mc-exim-bl",
        True,
    ),
    (
        "a jail disabled by plain SQL",
        by_sql(f"UPDATE fail2ban_jail SET enabled = 0 WHERE name = '{OTHER}'"),
        OTHER,
        False,
    ),
    (
        "a jail enabled by plain SQL",
        by_sql(f"UPDATE fail2ban_jail SET enabled = 1 WHERE name = '{OTHER}'"),
        OTHER,
        True,
    ),
]


def idle(nodes: Cluster, folder: Path) -> None:
    """What server and engines do while nothing happens."""
    server = int((folder / "pid").read_text("utf-8"))
    engines = [node.engine.pid for node in nodes if node.engine is not None]
    time.sleep(3)
    before = asked(nodes), ticks(server), [ticks(pid) for pid in engines], time.monotonic()
    time.sleep(IDLE)
    passed = time.monotonic() - before[3]
    questions = {what: (count - before[0][what]) / passed for what, count in asked(nodes).items()}
    shares = [(ticks(pid) - then) / passed for pid, then in zip(engines, before[2], strict=True)]
    written = questions["Com_update"] + questions["Com_insert"] + questions["Com_delete"]
    label = f"{len(nodes)} nodes doing nothing: the server"
    print(
        f"{label:<62} {questions['Questions']:.0f} questions/s, {written:.1f} writes/s, "
        f"{(ticks(server) - before[1]) / passed:.2f} % of a core"
    )
    print(f"{'an engine among them':<62} {median(shares):.2f} % of a core (most: {max(shares):.2f} %)")


def asked(nodes: Cluster) -> dict[str, int]:
    """The server's counters."""
    lines = nodes.sql("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions','Com_update','Com_insert','Com_delete')")
    return {what: int(count) for what, count in (line.split() for line in lines.splitlines())}


if __name__ == "__main__":
    main()
