"""What nobody foresaw, and somebody who does not want to wait."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime

import pytest

from tests.e2e.node import MCBAN, Node, exim
from tests.patience import PATIENCE, until


def test_run_once_is_ended_by_control_c_and_goes_on_next_time(node: Node) -> None:
    """Ctrl-C in the midst of a long log ends `run --once` with 130 and one line; the next run counts the rest, once."""
    lines = 60_000
    now = datetime.now()  # noqa: DTZ005  # exim logs local time
    with node.log("mc-exim").open("w", encoding="utf-8") as log:
        for n in range(lines):
            log.write(exim(f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", now) + "\n")
    with (node.folder / "said").open("w") as said:
        run = node.host.popen(MCBAN, "run", "--once", env=node.env, stderr=said)

    def stopped_in_the_midst() -> bool:
        """Whether it has committed something, and stands still meanwhile."""
        run.send_signal(signal.SIGSTOP)
        if node.database.read(lambda t: t.hits.totals()):
            return True
        run.send_signal(signal.SIGCONT)
        return False

    until(stopped_in_the_midst, "the first commit")
    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGCONT)
    assert run.wait(PATIENCE) == 130
    assert "Traceback" not in (node.folder / "said").read_text("utf-8")
    assert 0 < node.database.read(lambda t: t.hits.totals())["mc-exim"] < lines
    node.mcban("run", "--once")
    assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == lines


def test_two_engines_never_fight_over_one_firewall(node: Node) -> None:
    """A second engine with a state directory of its own is refused where another enforces, and touches nothing."""
    node.start()
    node.mcban("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    other = Node(node.host, node.folder / "other")
    try:
        other.prepare()
        done = other.process("run")
        assert done.returncode == 1 and "another engine" in done.stderr and "Traceback" not in done.stderr
        assert node.entries("mc-exim-1d") == {"203.0.113.7"}
    finally:
        other.end()


SQUATTER = (
    "import os, socket, sys\n"
    "os.setuid(65534)\n"
    "taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n"
    "taken.bind('\\0mcban/ipset')\n"
    "%s\n"
    "print('ready', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize("then", ["taken.listen()", ""])
def test_whoever_takes_an_engine_s_name_keeps_it_from_nothing(node: Node, then: str) -> None:
    """A user without rights binds the socket by which engines know of each other: the engine says so and runs."""
    pipe = subprocess.PIPE
    squatter = node.host.popen(sys.executable, "-c", SQUATTER % then, stdin=pipe, stdout=pipe)
    try:
        assert squatter.stdout is not None and squatter.stdout.readline() == "ready\n"
        node.start()
        node.mcban("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
        assert node.entries("mc-exim-1d") == {"203.0.113.7"}
        assert "holds the name by which engines" in node.engine_log
    finally:
        squatter.communicate("")


def test_a_ban_that_one_list_refuses_says_what_is_done_all_the_same(node: Node) -> None:
    """Somebody's set has the name of one tier's: 69, the reason, and that the others hold the address."""
    node.host.run("ipset", "create", "mc-exim-1w", "list:set")
    done = node.process("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    assert done.returncode == 69, done.stderr
    assert "mc-exim-1w" in done.stderr and "203.0.113.7 banned in mc-exim-1d" in done.stderr
    assert node.entries("mc-exim-1d") == node.entries("mc-exim-1y") == {"203.0.113.7"}
    assert {jail for _, jail in node.banned()} == {f"mc-exim-1{unit}" for unit in "dwmy"}
