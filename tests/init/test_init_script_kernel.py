"""The init script on a gateway: what it leaves in the kernel, and takes out of it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.init.service import SCRIPT, Service, gone
from tests.netns import Host
from tests.patience import until


def test_restart_leaves_no_gap(wired: tuple[Service, Host, Host]) -> None:
    """During a restart the lists hold every ban, and not one connection of a banned address comes through."""
    service, server, client = wired
    server.listen(25)
    service.start()
    service.fail_to_log_in()
    until(service.holds, "the ban")
    assert client.connect(server.ipv4, 25, source="198.51.100.7") == "accepted"
    seen: list[tuple[str, bool]] = []
    with ThreadPoolExecutor() as threads:
        while len(seen) < 10:
            restarting = threads.submit(service.script, "restart")
            while not restarting.done():
                seen.append((client.connect(server.ipv4, 25, source="203.0.113.9"), service.holds()))
            assert restarting.result().returncode == 0, restarting.result()
    assert set(seen) == {("refused", True)}


def test_stop_leaves_nothing_of_ours(gateway: Service) -> None:
    """After stop the kernel holds what it held before start, and nothing else."""
    gateway.command("ipset", "create", "theirs", "hash:ip")
    gateway.command("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    before = gateway.kernel()
    gateway.start()
    gateway.fail_to_log_in()
    gateway.fail_to_log_in("2001:db8:1::7")
    until(gateway.holds, "the ban")
    until(lambda: gateway.holds("2001:db8:1::7", "mc-exim-1d-v6"), "the IPv6 ban")
    assert len(gateway.kernel()) > len(before)
    assert gateway.script("stop").returncode == 0
    assert gateway.kernel() == before


def test_kill_leaves_bans_in_force(gateway: Service) -> None:
    """Bans outlive kill -9 in the kernel, the next start takes them over, and a stop takes down what a killed engine
    left."""
    pid = gateway.start()
    gateway.fail_to_log_in()
    until(gateway.holds, "the ban")
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid), "the kill")
    assert gateway.script("status").returncode == 1
    assert gateway.holds()
    second = gateway.start()
    assert gateway.holds()
    os.kill(second, signal.SIGKILL)
    until(lambda: gone(second), "the kill")
    assert gateway.script("stop").returncode == 0
    assert not [line for line in gateway.kernel() if "mc" in line]


def test_no_net_admin(gateway: Service) -> None:
    """Without the capability a start fails, names it, and leaves no pid file."""
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    done = gateway.command(*without, "/bin/sh", str(SCRIPT), "start")
    assert done.returncode == 4
    assert "NET_ADMIN" in done.stderr
    assert not gateway.pid_file.exists()
