"""Faults under attack, with real servers, disks and kernels: nothing is lost, and each hit is counted once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.e2e.node import Node, until
from tests.mariadb import Server
from tests.netns import one_host, require_netns
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
                until(lambda n=n: between.lost == n, "a lost answer")
                until(lambda n=n: f"203.0.113.{n}" in node.entries("mc-exim-1d"), "the ban")
            node.settled()
            assert node.database.read(lambda t: t.hits.totals())["mc-exim"] == 18
            assert {row.count for row in node.database.read(lambda t: t.addresses.in_force(0))} == {1}
            until(lambda: node.engine_log.count("over: ") >= 3, "the end of it")
            assert "Traceback" not in node.engine_log
        finally:
            node.end()
    mariadb.drop_database(url)
