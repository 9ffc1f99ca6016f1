"""The database may go while the engine runs."""

from __future__ import annotations

import time
from pathlib import Path

from tests.e2e.node import Node
from tests.mariadb import new_database, private_server
from tests.netns import one_host, require_netns
from tests.patience import until


def test_attackers_are_banned_while_the_database_is_away_and_counted_when_it_is_back(tmp_path: Path) -> None:
    """With the server stopped the bans stand, also when somebody flushes the firewall; new attackers, and those who
    were half-way, are put out; the allowed are not. When it is back, all of it is in SQL, each hit once; each fault is
    one line, without a traceback."""
    require_netns()
    (tmp_path / "db").mkdir()
    with one_host() as host:
        with private_server(tmp_path / "db") as socket:
            node = Node(host, tmp_path / "gate", database_url=new_database(socket, "mcban"))
            node.prepare()
            node.mcban("whitelist", "add", "-i", "203.0.113.66")
            node.start()
            node.fail("mc-exim", "203.0.113.7", 5)
            node.fail("mc-exim", "203.0.113.9", 3)
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "the ban")
            until(node.in_step, "peace")
            node.settled()
        try:
            until(lambda: "cannot be used" in node.engine_log, "one line that says so")
            node.fail("mc-exim", "203.0.113.8", 12)
            node.fail("mc-exim", "203.0.113.9", 2)
            node.fail("mc-exim", "203.0.113.66", 30)
            away = {"203.0.113.7", "203.0.113.8", "203.0.113.9"}
            until(lambda: node.entries("mc-exim-1d") == away, "the bans")
            until(lambda: node.entries("mc-exim-1w") == {"203.0.113.8"}, "the higher tier")
            node.log("mc-exim").rename(node.folder / "mc-exim.log.1")
            node.fail("mc-exim", "203.0.113.10", 5)
            away.add("203.0.113.10")
            host.run("iptables", "-F")
            host.run("ipset", "flush")
            until(lambda: node.entries("mc-exim-1d") == away, "the mending without SQL")
            until(lambda: "-j mcban" in host.run("iptables", "-S", "INPUT"), "the rules, after the lists")
            said = node.process("status")
            assert said.returncode == 0 and "cannot be used" in said.stdout
            with private_server(tmp_path / "db"):
                until(lambda: "over: " in node.engine_log, "the end of it")
                node.settled()
                time.sleep(1)
                assert node.entries("mc-exim-1d") == away
                assert {ip for ip, jail in node.banned() if jail == "mc-exim-1d"} == away
                assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == 27
                assert {row.count for row in node.database.read(lambda t: t.addresses.in_force(0))} == {1}
                until(node.in_step, "the kernel to be like SQL")
                assert "Traceback" not in node.engine_log
                assert node.engine_log.count("cannot be used") == 2, node.engine_log  # the fault, and its end
        finally:
            node.end()
