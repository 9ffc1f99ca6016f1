"""A gateway whose database is PostgreSQL: all of it, from the schema to the kernel's lists."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.node import Node
from tests.e2e.test_changes import CUSTOM_JAIL
from tests.netns import one_host, require_netns
from tests.patience import until
from tests.postgres import PostgreSQL


def test_a_gateway_works_on_postgresql_as_on_any_other(
    tmp_path: Path, postgresql: PostgreSQL, empty_postgresql: str
) -> None:
    """Schema, jail, ban, logs, status, show, lifting by command; then, while the engine runs, by psql."""
    require_netns()
    with one_host() as host:
        node = Node(host, tmp_path / "gate", database_url=empty_postgresql)
        try:
            assert "mcban db upgrade" in node.process("banned").stderr
            assert node.mcban("db", "upgrade").strip().endswith("brought to schema 0001")
            node.folder.joinpath("state").mkdir(exist_ok=True)
            log = node.folder / "my.log"
            node.mcban(
                "jail", "add", "-j", "my-jail", "--filter", "mc-exim-filter", "--port", "2525", "--logpath", str(log)
            )
            node.mcban("ban", "-j", "my-jail", "-i", "198.51.100.9", "--for", "1d")
            node.fail("mc-exim", "203.0.113.7", 20)
            node.log("mc-exim").rename(log)
            node.mcban("run", "--once")
            assert node.entries("my-jail") == {"198.51.100.9", "203.0.113.7"}
            (ban,) = [one for one in node.json("banned") if one["ip"] == "203.0.113.7"]
            assert ban["jail"] == "my-jail"
            (shown,) = [one for one in node.json("show", "203.0.113.7")["jails"] if one["jail"] == "my-jail"]
            assert shown["banned"] and shown["count"] == 1 and shown["until"] == ban["until"]
            node.mcban("unban", "-i", "203.0.113.7")
            assert node.entries("my-jail") == {"198.51.100.9"}
            node.start()
            status = node.json("status")
            assert status["database"]["error"] is None
            assert {jail["name"]: jail["bans"] for jail in status["jails"]}["my-jail"] == 1
            by_sql = CUSTOM_JAIL.format(log=log, max_count=0).replace("my-jail", "sql-jail").replace("2525", "2526")
            postgresql.sql(empty_postgresql, by_sql)
            until(lambda: "sql-jail" in host.run("ipset", "list", "-n").split(), "the jail by SQL")
            insert = "INSERT INTO fail2ban_ips (ip, count, active, jail, host) VALUES ('{}', 1, 1, 'sql-jail', 'x');"
            postgresql.sql(empty_postgresql, insert.format("198.51.100.10") + insert.format("198.51.100.11"))
            until(lambda: node.entries("sql-jail") == {"198.51.100.10", "198.51.100.11"}, "bans by SQL")
            postgresql.sql(empty_postgresql, "UPDATE fail2ban_ips SET active = 0 WHERE ip = '198.51.100.10';")
            until(lambda: node.entries("sql-jail") == {"198.51.100.11"}, "a lifting by SQL")
            until(lambda: node.process("sync", "--check").stdout == "the kernel holds what SQL says\n", "peace")
            assert node.stop() == 0
            assert "Traceback" not in node.engine_log
        finally:
            node.end()
