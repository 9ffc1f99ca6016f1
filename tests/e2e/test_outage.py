"""The database may go while the engine runs."""

from __future__ import annotations

import time
from pathlib import Path

from tests.e2e.node import Node, until
from tests.mariadb import new_database, private_server
from tests.netns import one_host, require_netns


def test_bans_stand_and_hits_wait_while_the_database_is_away(tmp_path: Path) -> None:
    """With the server stopped the bans stay in force, also when somebody flushes the firewall, and the engine goes on;
    when it is back, what was logged meanwhile is counted once; each fault is one line, without a traceback."""
    require_netns()
    (tmp_path / "db").mkdir()
    with one_host() as host:
        with private_server(tmp_path / "db") as socket:
            node = Node(host, tmp_path / "gate", database_url=new_database(socket, "mcban"))
            node.prepare()
            node.start()
            node.fail("mc-exim", "203.0.113.7", 5)
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "the ban")
            node.mcban("jail", "change", "-j", "mc-ssh", "--option", "maxretry", "-v", "4")  # calls for a full look
            until(lambda: node.process("sync", "--check").returncode == 0, "peace")
            time.sleep(2)
        try:
            node.fail("mc-exim", "203.0.113.8", 5)
            until(lambda: "cannot be used" in node.engine_log, "one line that says so")
            assert node.entries("mc-exim-1d") == {"203.0.113.7"}
            host.run("iptables", "-F")
            host.run("ipset", "flush")
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "the mending without SQL", 10)
            until(lambda: "-j mcban" in host.run("iptables", "-S", "INPUT"), "the rules, after the lists", 10)
            said = node.process("status")
            assert said.returncode == 0 and "cannot be used" in said.stdout
            with private_server(tmp_path / "db"):
                until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7", "203.0.113.8"}, "the ban that waited", 40)
                node.settled()
                assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == 10
                assert "Traceback" not in node.engine_log
                assert node.engine_log.count("cannot be used") <= 3, node.engine_log
        finally:
            node.end()
