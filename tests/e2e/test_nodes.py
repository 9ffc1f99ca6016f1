"""Several nodes on one database behave as one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from mcban.errors import RefusedError
from mcban.service import bans
from tests.cluster import Cluster, ClusterNode, cluster
from tests.conftest import require_mariadb
from tests.debian import MissingPackageError
from tests.missing import skip_or_fail
from tests.netns import require_netns
from tests.patience import PATIENCE, until

pytestmark = pytest.mark.xdist_group("nodes")  # lest each worker starts five engines
JAILS = ("mc-exim-1d", "mc-exim-1w", "mc-ssh-1d", "mc-webauth-1y")


def require_server() -> None:
    """Skip the test, saying why, where no MariaDB is; under CI that is a failure."""
    require_netns()
    require_mariadb()


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Ten engines at work on one MariaDB."""
    yield from _at_work(tmp_path_factory.mktemp("ten"), 10)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five of them: one worker of a run has all the tests here."""
    yield from _at_work(tmp_path_factory.mktemp("five"), 5)


def _at_work(folder: Path, count: int) -> Iterator[Cluster]:
    require_server()
    with cluster(folder, count) as nodes:
        nodes.start()
        yield nodes


class Hands:
    """Somebody who bans, lifts and allows at random nodes, by each of the ways that there are."""

    def __init__(self, nodes: Cluster, seed: int, weights: tuple[int, int, int, int]) -> None:
        self._nodes, self._random, self._weights = nodes, random.Random(seed), weights
        self._addresses = [f"198.51.100.{n}" for n in range(1, 60)] + [f"2001:db8:5::{n:x}" for n in range(1, 20)]

    def act(self) -> str:
        """Do one thing; what it was."""
        pick = self._random
        node, ip, jail = pick.choice(self._nodes), pick.choice(self._addresses), pick.choice(JAILS)
        way = pick.choices((self.by_log, self.by_sql, self.by_service, self.by_command), self._weights)[0]
        way(node, ip, jail)
        return f"{way.__name__} on {node.name}: {ip}, {jail}"

    def by_log(self, node: ClusterNode, ip: str, jail: str) -> None:
        """Enough failures for a ban."""
        node.fail("mc-exim", ip, 5)

    def by_sql(self, _: ClusterNode, ip: str, jail: str) -> None:
        """Plain SQL, as the original's administrators type it."""
        self._nodes.sql(
            self._random.choice(
                (
                    f"REPLACE INTO fail2ban_ips (ip, jail, count) VALUES ('{ip}', '{jail}', 1)",
                    f"UPDATE fail2ban_ips SET active = 0 WHERE ip = '{ip}'",
                    f"DELETE FROM fail2ban_ips WHERE ip = '{ip}' AND jail = '{jail}'",
                    f"REPLACE INTO fail2ban_ips (ip, jail, active, whitelisted) VALUES ('{ip}', 'mc-exim', 0, 1)",
                    f"UPDATE fail2ban_ips SET whitelisted = 0, active = 0 WHERE ip = '{ip}'",
                    "UPDATE fail2ban_jail SET enabled = 1 - enabled WHERE name = 'mc-webauth-1w'",
                )
            )
        )

    def by_service(self, node: ClusterNode, ip: str, jail: str) -> None:
        """What commands do, without their start; they may refuse to ban what somebody allowed a moment ago."""
        with node.wired() as context, suppress(RefusedError):
            match self._random.randrange(6):
                case 0 | 1:
                    bans.ban(context, jail, [ip], None, force=False, yes=False)
                case 2:
                    bans.unban(context, None, [ip])
                case 3:
                    bans.blacklist_add(context, jail, [ip], force=False, yes=False)
                case 4:
                    bans.blacklist_remove(context, jail, [ip])
                case 5:
                    bans.ban(context, "mc-ssh", [ip], 3600, force=False, yes=False)

    def by_command(self, node: ClusterNode, ip: str, jail: str) -> None:
        """A command."""
        what = self._random.choice(
            (
                ("ban", "-j", jail, "-i", ip),
                ("unban", "-i", ip),
                ("whitelist", "add", "-j", "mc-ssh", "-i", ip),
                ("whitelist", "remove", "-j", "mc-ssh", "-i", ip),
                ("blacklist", "add", "-j", jail, "-i", ip),
            )
        )
        assert node.process(*what).returncode in {0, 3}


def settle(nodes: Cluster) -> None:
    """Until all logs are read and every kernel holds what SQL says; fails with how they differ."""
    for node in nodes:
        until(node.all_read, f"{node.name} reading to the end")
    end = time.monotonic() + PATIENCE
    while differ := nodes.differ():
        assert time.monotonic() < end, "\n".join(differ)
        time.sleep(0.05)


def test_what_is_done_at_random_nodes_is_so_on_all(five: Cluster) -> None:
    """Bans, lifts, allowances and jails, by log, command and plain SQL: every kernel holds what SQL says."""
    hands = Hands(five, 5, (40, 50, 8, 2))
    for _ in range(100):
        hands.act()
    settle(five)
    assert not [node.engine_log for node in five if "ERROR" in node.engine_log]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_things_at_random_nodes_are_so_on_all(ten: Cluster) -> None:
    """The same a thousand times, mostly by commands, with a look after each hundred."""
    hands = Hands(ten, 6, (3, 3, 4, 3))
    for number in range(1, 1001):
        hands.act()
        if number % 100 == 0:
            settle(ten)
    assert not [node.engine_log for node in ten if "ERROR" in node.engine_log]


TIERS = ("mc-exim-1d", "mc-exim-1w", "mc-exim-1m", "mc-exim-1y")


def everywhere(nodes: Sequence[ClusterNode], jail: str, ip: str) -> bool:
    """Whether every kernel holds it."""
    return all(ip in node.held([jail]).get(jail, ()) for node in nodes)


def nowhere(nodes: Sequence[ClusterNode], jail: str, ip: str) -> bool:
    """Whether no kernel holds it."""
    return not any(ip in node.held([jail]).get(jail, ()) for node in nodes)


def test_failures_at_several_nodes_are_one_attackers(five: Cluster) -> None:
    """Five failures, each at another gateway, ban on all of them; it is one row, and was one ban."""
    for node in five:
        node.fail("mc-exim", "203.0.113.5")
    until(lambda: everywhere(five, "mc-exim-1d", "203.0.113.5"), "the ban everywhere")
    assert rows(five, "203.0.113.5") == [("mc-exim-1d", 1)]


def test_nodes_that_ban_at_once_make_one_row(five: Cluster) -> None:
    """Enough failures for every tier at each of five gateways in the same moment: one ban in each, and none twice."""
    for node in five:
        node.fail("mc-exim", "203.0.113.10", 20)
    for node in five:
        until(node.all_read, f"{node.name} reading to the end")
    assert rows(five, "203.0.113.10") == [(jail, 1) for jail in sorted(TIERS)]
    until(lambda: all(everywhere(five, jail, "203.0.113.10") for jail in TIERS), "the bans everywhere")
    hits = five.database.read(lambda t: t.hits.totals())["mc-exim"]
    assert hits >= 100
    assert sum(node.engine_log.count("ban 203.0.113.10 in mc-exim-1d") for node in five) == 1


def rows(nodes: Cluster, ip: str) -> list[tuple[str, int]]:
    """In which jails SQL has an address, and how often it was banned there."""
    found = nodes.database.read(lambda t: t.addresses.get([ip]))
    return sorted((row.jail, row.count) for row in found)


def test_a_second_engine_of_the_same_name_is_refused(five: Cluster) -> None:
    """In one line, with exit status 1; the first goes on. One that was killed starts again at once."""
    first, second = five[0], five[1]
    second.stop()
    second.name, name = first.name, second.name
    second.configure()
    done = second.process("run")
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert f"an engine on {first.host.ipv4} is node {first.name} of this database already" in last
    assert "Traceback" not in done.stderr
    second.name = name
    second.configure()
    first.stop(signal.SIGKILL)
    first.start()  # nothing waits for its old claim to end: it would have been refused
    second.start()
    settle(five)


@pytest.mark.parametrize("kept", [True, False])
def test_a_node_that_was_away_catches_up(five: Cluster, *, kept: bool) -> None:
    """What was banned, lifted and switched meanwhile is so there, also when the notes of it are dropped by then."""
    away, other = five[2], five[3]
    with other.wired() as context:
        bans.ban(context, "mc-ssh-1d", ["203.0.113.20"], None, force=False, yes=False)
        until(lambda: everywhere([away], "mc-ssh-1d", "203.0.113.20"), "the ban")
        assert away.engine is not None
        away.engine.send_signal(signal.SIGSTOP)
        try:
            bans.unban(context, None, ["203.0.113.20"])
            bans.ban(context, "mc-ssh-1d", [f"203.0.113.{n}" for n in (21, 22)], None, force=False, yes=False)
            five.sql("UPDATE fail2ban_jail SET enabled = 1 - enabled WHERE name = 'mc-webauth-1m'")
            others = [node for node in five if node is not away]
            until(lambda: not [said for said in five.differ() if not said.startswith(f"{away.name}:")], "the others")
            assert everywhere(others, "mc-ssh-1d", "203.0.113.22") and five.differ()
            if not kept:
                five.sql("SELECT MAX(id) INTO @last FROM mcban_change; DELETE FROM mcban_change WHERE id < @last")
        finally:
            away.engine.send_signal(signal.SIGCONT)
    settle(five)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages are unpacked, for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "libfaketime"


def test_clocks_that_differ_by_minutes_do_no_harm(tmp_path: Path, cache: Path) -> None:
    """Hits add up over nodes of which one is five minutes ahead and one five behind, and a ban begins and ends for all
    of them together."""
    require_server()
    with cluster(tmp_path, 3) as nodes:
        try:
            for node, ahead in zip(nodes, (300, 0, -300), strict=True):
                node.set_clock(cache, ahead)
        except MissingPackageError as error:
            skip_or_fail(str(error))
        nodes.sql("UPDATE fail2ban_jail SET findtime = 150, bantime = 3000, maxretry = 3 WHERE name = 'mc-exim-1d'")
        nodes.start()
        assert "clock is 5m ahead of" in nodes[0].engine_log and "clock is 5m behind" in nodes[2].engine_log
        for node in nodes:
            node.fail("mc-exim", "203.0.113.3")
        until(lambda: everywhere(nodes, "mc-exim-1d", "203.0.113.3"), "the ban everywhere")
        [row] = nodes.database.read(lambda t: t.addresses.get(["203.0.113.3"]))
        assert row.until is not None and abs(row.until - time.time() - 3000) < 150
        for node in (nodes[0], nodes[2]):
            ip = f"198.51.100.{node.ahead % 256}"
            node.mcban("ban", "-j", "mc-ssh-1d", "-i", ip, "--for", "1h")
            until(partial(everywhere, nodes, "mc-ssh-1d", ip), "the ban everywhere")
            assert all(abs(one.end_of("mc-ssh-1d", ip) - time.time() - 3600) < 150 for one in nodes)
            node.mcban("ban", "-j", "mc-ssh-1d", "-i", ip, "--for", "2")
        until(lambda: not any(node.held(["mc-ssh-1d"])["mc-ssh-1d"] for node in nodes), "their end")
        assert everywhere(nodes, "mc-exim-1d", "203.0.113.3")
        for node in nodes:
            until(node.in_step, f"peace on {node.name}")
        nodes[2].mcban("unban", "-i", "203.0.113.3")
        until(lambda: nowhere(nodes, "mc-exim-1d", "203.0.113.3"), "the lifting everywhere")
