"""What following a log takes: from a line written to the entry in the kernel, and memory after a long log.

    python -m tests.bench.bench_follow [lines]

A real engine with SQLite and the ipset backend, in a private namespace, which needs root. Each of the bans is one line
in the log; its entry is looked for in the kernel, again and again, from the moment that the line is written.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

from mcban.firewall.ipset import IpsetFirewall
from tests.bench import exim_log
from tests.e2e.node import Node, exim
from tests.netns import Host, one_host, why_not
from tests.patience import until

BANS = 200
PAUSE = 0.05
"""Seconds between two bans, about: each comes by itself."""
BACKGROUND = 20_000
"""Lines a second."""
LINES = 2_000_000
BACKENDS = ("memory", "ipset")
JAIL = "mc-exim-1d"


def main() -> None:
    """Measure and print."""
    lacking = why_not()
    if lacking:
        sys.exit(f"the engine cannot be measured here: {lacking}")
    with one_host() as host, tempfile.TemporaryDirectory() as folder:
        node = Node(host, Path(folder, "gate"))
        node.prepare()
        try:
            node.mcban("jail", "change", "-j", "mc-exim", "--option", "maxretry", "-v", "1")
            node.start()
            first = itertools.count(1)
            tell("line to entry, otherwise idle", latencies(host, node, first))
            with written_to(node.log("mc-exim"), BACKGROUND):
                time.sleep(1)
                tell(f"the same beside {BACKGROUND:,} lines a second", latencies(host, node, first))
            node.stop()
        finally:
            node.end()
    for backend in BACKENDS:
        with one_host() as host, tempfile.TemporaryDirectory() as folder:
            node = Node(host, Path(folder, "gate"), backend)
            node.prepare()
            try:
                follow(node, backend, int(sys.argv[1]) if len(sys.argv) > 1 else LINES)
            finally:
                node.end()


def latencies(host: Host, node: Node, numbers: Iterator[int]) -> list[float]:
    """Milliseconds from the line to the entry, for each ban."""
    with host.entered():
        firewall = IpsetFirewall()
        taken = []
        with node.log("mc-exim").open("a", encoding="utf-8", buffering=1) as log:
            for number in itertools.islice(numbers, BANS):
                time.sleep(PAUSE + number % 7 / 1000)
                line = exim(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", datetime.now()) + "\n"  # noqa: DTZ005
                begun = time.perf_counter()
                log.write(line)
                while firewall.glance([JAIL]).counts.get(JAIL, 0) < number:
                    if time.perf_counter() - begun > 10:
                        sys.exit(f"no entry in ten seconds: {node.engine_log[-2000:]}")
                    time.sleep(0.0001)  # whoever asks without a pause keeps the engine waiting for the kernel's lock
                taken.append((time.perf_counter() - begun) * 1000)
        firewall.close()
    return taken


@contextmanager
def written_to(path: Path, rate: int) -> Iterator[None]:
    """So many ordinary lines a second go to `path` meanwhile, a handful every millisecond."""
    over = threading.Event()
    lines = list(itertools.islice(exim_log.lines(rate, 0, 1000), rate))

    def work() -> None:
        begun, sent = time.monotonic(), 0
        with path.open("a", encoding="utf-8", buffering=1 << 20) as log:
            while not over.is_set():
                due = int((time.monotonic() - begun) * rate)
                log.write("".join(lines[n % rate] for n in range(sent, due)))
                log.flush()
                sent = due
                time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def follow(node: Node, backend: str, count: int) -> None:
    """Memory of an engine that has read a long log and goes on following it."""
    with node.log("mc-exim").open("w", encoding="utf-8") as log:
        log.writelines(exim_log.lines(count, 0.1, 20_000))
    node.start()
    assert node.engine is not None
    begun = time.monotonic()
    until(node.all_read, "reading to the end", 300)
    took = time.monotonic() - begun
    time.sleep(70)  # what is only kept for a while is gone
    sizes = dict(line.split(":", 1) for line in Path(f"/proc/{node.engine.pid}/status").read_text("utf-8").splitlines())
    largest, now = (int(sizes[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    print(
        f"{count:,} lines, 10% failures, {backend}, caught up in {took:.1f} s: "
        f"{largest:.0f} MB at most, {now:.0f} MB afterwards"
    )


def tell(what: str, taken: list[float]) -> None:
    """One line."""
    last = quantiles(taken, n=100)[98]
    print(f"{what:46} median {median(taken):6.2f} ms   99% {last:6.2f} ms   most {max(taken):6.2f} ms", flush=True)


if __name__ == "__main__":
    main()
