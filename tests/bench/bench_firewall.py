"""How fast entries reach the kernel and come back: both backends beside `ipset restore` and `ipset save`.

    python -m tests.bench.bench_firewall [entries ...]

Everything is in a private namespace, which needs root. Medians of several runs of the same entries; whoever has less
of a machine sees other numbers, but the same relations. The processor's time of a check counts the programs it starts.
Reading the bans from SQL (SQLite) is not part of `apply`, and stands apart.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from mcban.config import Config
from mcban.core.model import Ports
from mcban.core.plan import Plan, Rule, Wanted, plan
from mcban.firewall.base import Firewall
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.nftables import NftablesFirewall
from mcban.service.sync import aim_of
from mcban.service.world import load_world
from mcban.store import schema
from mcban.store.addresses import AddressRecord
from mcban.wiring import wire
from tests.netns import one_host, why_not

JAIL = "mc-exim-1d"
RULES = {"mc-exim": Rule((JAIL,), Ports(((25, 25), (465, 465), (587, 587))))}
SLOW = ("nftables", 1_000_000)
"""The kernel needs a minute for each dump of such a set: it finds its place by counting, page after page."""


def processor() -> float:
    """Seconds of processor that this process and its children have had."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(some.ru_utime + some.ru_stime for some in used)


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def line(what: str, count: int, took: list[float]) -> None:
    """One line of the table: the median, and the fastest and slowest run."""
    middle = statistics.median(took)
    spread = f"{min(took):.3f} to {max(took):.3f}"
    print(f"{count:>9,}  {what:<34}{count / middle:>12,.0f} /s {middle:>9.3f} s  ({spread})", flush=True)


def programs(ends: dict[str, int], runs: int) -> None:
    """The yardstick: ipset's own way in and out."""
    now = int(time.time())
    size = max(65536, 2 * len(ends))
    text = f"create {JAIL} hash:net maxelem {size} timeout 0\n" + "".join(
        f"add {JAIL} {entry} timeout {end - now}\n" for entry, end in ends.items()
    )
    into, out = [], []
    for _ in range(runs):
        into.append(seconds(lambda: subprocess.run(["ipset", "restore"], input=text, text=True, check=True)))
        out.append(seconds(lambda: subprocess.run(["ipset", "save"], stdout=subprocess.DEVNULL, check=True)))
        subprocess.run(["ipset", "destroy", JAIL], check=True)
    line("ipset restore", len(ends), into)
    line("ipset save", len(ends), out)


def reading_sql(ends: dict[str, int], runs: int) -> None:
    """What the engine does before it knows what the kernel should hold."""
    with tempfile.TemporaryDirectory() as folder:
        context = wire(Config(state_dir=Path(folder), firewall_backend="memory"))
        schema.upgrade(context.database)
        rows = [AddressRecord(ip, JAIL, 1, True, since=1, until=end, reason="bench") for ip, end in ends.items()]
        context.database.write(lambda t: t.addresses.save(rows))
        took = [
            seconds(lambda: context.database.read(lambda t: aim_of(context, t, load_world(context, t), None)))
            for _ in range(runs)
        ]
        context.database.dispose()
    line("SQL read (SQLite), in no other line", len(ends), took)


def backend(make: Callable[[], Firewall], ends: dict[str, int], runs: int) -> None:
    """In, out, and looking when there is nothing to do."""
    into, out, whole, look, used, same = [], [], [], [], [], []
    wanted = Wanted(RULES, {JAIL: ends})
    name = make().name
    runs = 1 if (name, len(ends)) == SLOW else runs
    for _ in range(runs):
        firewall = make()
        now = int(time.time())
        todo = plan(wanted, firewall.read([JAIL]), now, firewall.longest)
        into.append(seconds(lambda: firewall.apply(todo, now)))  # noqa: B023  # called at once
        out.append(seconds(lambda: firewall.read([JAIL])))  # noqa: B023
        left: list[Plan] = []
        if (name, len(ends)) != SLOW:
            whole.append(
                seconds(lambda: left.append(plan(wanted, firewall.read([JAIL]), now, firewall.longest)))  # noqa: B023
            )
            assert left[0].empty
        assert firewall.glance(()).whole
        before = processor()
        look.append(seconds(lambda: [firewall.glance(()) for _ in range(10)]) / 10)  # noqa: B023
        used.append((processor() - before) / 10)
        firewall.turnover(JAIL)
        same.append(seconds(lambda: firewall.turnover(JAIL)))  # noqa: B023
        firewall.remove([JAIL])
        firewall.close()
    line(f"{name}: apply into empty sets", len(ends), into)
    line(f"{name}: read back", len(ends), out)
    if not whole:
        print(
            f"{len(ends):>9,}  {name}: read and plan: not measured, each dump takes the kernel as long as the last line"
        )
    else:
        line(f"{name}: read and plan, nothing to do", len(ends), whole)
    share = statistics.median(used) / 5
    print(
        f"{len(ends):>9,}  {name + ': glance, nothing to do':<34}{1000 * statistics.median(look):>12.2f} ms, "
        f"{1000 * statistics.median(used):.2f} ms of processor: each 5 s that is {share:.3%} of a core"
    )
    if name == "ipset":  # nftables knows without reading
        line(f"{name}: looking at the entries", len(ends), same)


def main() -> None:
    """Measure and print."""
    lacking = why_not()
    if lacking:
        sys.exit(f"the firewall cannot be measured here: {lacking}")
    for count in [int(text) for text in sys.argv[1:]] or [10_000, 100_000, 1_000_000]:
        runs = 5 if count < 1_000_000 else 3
        with one_host() as host, host.entered():
            until = int(time.time()) + 86400
            ends = {str(IPv4Address(0x0B000000 + 7 * at)): until for at in range(count)}
            reading_sql(ends, runs)
            programs(ends, runs)
            backend(IpsetFirewall, ends, runs)
            backend(NftablesFirewall, ends, runs)


if __name__ == "__main__":
    main()
