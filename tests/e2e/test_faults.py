"""Faults under attack, with real servers, disks and kernels: nothing is lost, and each hit is counted once."""

from __future__ import annotations

import json
import signal
import tempfile
from pathlib import Path

import pytest

from tests.disk import small_disk
from tests.e2e.node import Node
from tests.e2e.siege import LONG, SHORT, at_peace, attack, soak
from tests.mariadb import Server, new_database, private_server
from tests.netns import one_host, require_netns
from tests.patience import until
from tests.proxy import proxy


def test_a_batch_whose_commit_was_never_answered_is_counted_once(mariadb: Server, tmp_path: Path) -> None:
    """The server has written, the answer is lost, again and again: hits and bans are those of a quiet day."""
    require_netns()
    url = mariadb.new_database()
    with (
        one_host() as host,
        tempfile.TemporaryDirectory() as short,
        proxy(Path(short, "s"), mariadb.socket) as between,
    ):
        node = Node(host, tmp_path / "gate", database_url=between.url(url))
        try:
            node.prepare()
            node.start()
            for n in range(1, 4):
                between.lose = n
                node.fail("mc-exim", f"203.0.113.{n}", 6)
                until(lambda: between.lost == between.lose, "a lost answer")
                node.await_entry(f"203.0.113.{n}")
            node.settled()
            assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == 18
            assert {row.count for row in node.database.read(lambda t: t.addresses.in_force(0))} == {1}
            until(lambda: node.engine_log.count("over: ") >= 3, "the end of it")
            assert "Traceback" not in node.engine_log
        finally:
            node.end()
    mariadb.drop_database(url)


def test_an_engine_starts_from_its_copy_while_the_server_is_away(tmp_path: Path) -> None:
    """The last known bans are in force again, of jails and allowances as they were; attackers are banned; `status` says
    how old that is. When the server is there all is written, once. A damaged copy, or none, ends the start with 69."""
    require_netns()
    (tmp_path / "db").mkdir()
    with one_host() as host:
        with private_server(tmp_path / "db") as socket:
            node = Node(host, tmp_path / "gate", database_url=new_database(socket, "mcban"))
            node.prepare()
            node.start()
            node.fail("mc-exim", "203.0.113.7", 5)
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "a ban")
            node.mcban("ban", "-j", "mc-ssh-1d", "-i", "2001:db8::7", "-i", "203.0.113.20")
            node.mcban("unban", "-i", "203.0.113.20")
            node.mcban("whitelist", "add", "-i", "203.0.113.66")
            until(lambda: node.entries("mc-ssh-1d") == {"2001:db8::7"}, "a ban by hand")
            node.settled()
            assert node.stop() == 0
        try:
            copy = Path(node.env["MCBAN_STATE_DIR"], "bans.copy")
            assert copy.stat().st_mode & 0o777 == 0o600
            node.start()
            assert node.entries("mc-exim-1d") == {"203.0.113.7"}
            assert node.entries("mc-ssh-1d") == {"2001:db8::7"}
            node.fail("mc-exim", "203.0.113.8", 5)
            node.fail("mc-exim", "203.0.113.66", 30)
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7", "203.0.113.8"}, "a new attacker")
            said = node.process("status")
            assert (said.returncode, "it was started without it: jails and bans are those of " in said.stdout) == (
                0,
                True,
            )
            document = node.json("status")["database"]
            assert document["away_since"] and document["copy_of"] and "cannot be used" in document["error"]
            with private_server(tmp_path / "db"):
                until(lambda: "over: " in node.engine_log, "the end of it")
                node.settled()
                until(node.in_step, "the kernel to be like SQL")
                assert node.entries("mc-exim-1d") == {"203.0.113.7", "203.0.113.8"}
                assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == 10
                assert json.loads(node.mcban("status", "--json"))["database"]["away_since"] is None
                assert "Traceback" not in node.engine_log and node.engine_log.count("ERROR") == 1, node.engine_log
                assert node.stop() == 0
            copy.write_bytes(copy.read_bytes().replace(b"203.0.113.7", b"203.0.113.6"))
            refused = node.process("run")
            assert (refused.returncode, "is damaged: it is not used" in refused.stderr) == (69, True), refused.stderr
            copy.unlink()
            assert node.process("run").returncode == 69
        finally:
            node.end()


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("sqlite", SHORT),
        pytest.param("sqlite", LONG, marks=soak),
        pytest.param("mariadb", SHORT, marks=soak),
        pytest.param("mariadb", LONG, marks=soak),
    ],
)
def test_a_full_disk_stops_no_ban(request: pytest.FixtureRequest, tmp_path: Path, kind: str, length: float) -> None:
    """With the disk of the state directory full, attackers are banned: what an embedded database cannot take waits in
    the logs, and of a server's database only the copy is behind. It is one line, and told by `status`."""
    require_netns()
    url = "" if kind == "sqlite" else request.getfixturevalue("empty_mariadb")
    with one_host() as host, small_disk(tmp_path / "gate" / "state") as disk:
        node = Node(host, tmp_path / "gate", database_url=url)
        node.apart = True
        try:
            node.prepare()
            node.start()
            hits = attack(node, "203.0.113", 0)
            node.settled()
            disk.fill()
            hits += attack(node, "198.51.100", max(length, 2))
            said = "full" if kind == "sqlite" else "cannot be written"
            until(lambda: said in node.engine_log, "one line that says so")
            until(lambda: said in node.process("status").stdout, "the state in status")
            if kind == "sqlite":  # a start by reading alone
                node.stop(signal.SIGKILL)
                host.run("ipset", "flush")
                node.start()
                assert "203.0.113.1" in node.entries("mc-exim-1d")  # and soon whom the log says
                hits += attack(node, "192.0.2", 1)
            disk.free()
            at_peace(node, hits, 1, 1)
        finally:
            node.end()
