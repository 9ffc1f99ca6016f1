"""A running engine notices what commands and plain SQL change."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mcban.daemon.enforcement import SETTLING
from tests.e2e.node import Node
from tests.mariadb import Server
from tests.netns import Host, one_host, require_netns
from tests.patience import until

CUSTOM_JAIL = (
    "INSERT INTO fail2ban_jail "
    "(enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath, max_count) "
    "VALUES (1, 'my-jail', 2, 600, 600, '2525', 'mc-exim-filter', 'mc-custom', '{log}', {max_count});"
)

TypeSql = Callable[[str], object]
"""Types SQL at a node's database, as an administrator would."""


@pytest.fixture(params=["sqlite3", "mariadb"])
def typed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Node, TypeSql]]:
    """A running gateway, and a way to type SQL at its database as an administrator would."""
    require_netns()
    with one_host() as host:
        if request.param == "sqlite3":
            node = Node(host, tmp_path / "gate")
            file = tmp_path / "gate/state/mcban.sqlite"

            def type_sql(statement: str) -> None:
                subprocess.run(
                    ["sqlite3", "-cmd", ".timeout 120000", str(file)], input=statement, text=True, check=True
                )

            yield from _running(node, type_sql)
            return
        server: Server = request.getfixturevalue("mariadb")
        url = server.new_database()
        yield from _running(Node(host, tmp_path / "gate", database_url=url), lambda text: server.sql(url, text))
        server.drop_database(url)


def _running(node: Node, type_sql: TypeSql) -> Iterator[tuple[Node, TypeSql]]:
    try:
        node.prepare()
        node.start()
        yield node, type_sql
    finally:
        node.end()


def test_plain_sql_is_live(typed: tuple[Node, TypeSql]) -> None:
    """The original's INSERT gives a live jail with its own set and rule; rows changed by SQL reach the kernel."""
    node, type_sql = typed
    log = node.folder / "my.log"
    type_sql(CUSTOM_JAIL.format(log=log, max_count=0))
    until(lambda: "--dports 2525" in node.host.run("iptables", "-S"), "the rule")
    until(lambda: "my-jail" in node.host.run("ipset", "list", "-n").split(), "the set")
    log.write_text("", "utf-8")
    (node.folder / "mc-exim.log").touch()
    node.fail("mc-exim", "203.0.113.7", 2)
    log.write_text(node.log("mc-exim").read_text("utf-8"), "utf-8")
    until(lambda: node.entries("my-jail") == {"203.0.113.7"}, "a ban in it")
    type_sql("INSERT INTO fail2ban_ips (ip, count, active, jail, host) VALUES ('198.51.100.9', 1, 1, 'my-jail', 'x');")
    until(lambda: node.entries("my-jail") == {"203.0.113.7", "198.51.100.9"}, "a ban by SQL")
    type_sql("UPDATE fail2ban_ips SET active = 0 WHERE ip = '203.0.113.7';")
    until(lambda: node.entries("my-jail") == {"198.51.100.9"}, "a lifting by SQL")
    type_sql("DELETE FROM fail2ban_ips;")
    until(lambda: node.entries("my-jail") == set(), "a deletion")
    type_sql("DELETE FROM fail2ban_jail WHERE name = 'my-jail';")
    until(lambda: "my-jail" not in node.host.run("ipset", "list", "-n").split(), "the jail's removal")
    until(lambda: node.process("sync", "--check").stdout == "the kernel holds what SQL says\n", "peace")


def test_a_row_that_cannot_work_is_named_and_the_others_go_on(typed: tuple[Node, TypeSql]) -> None:
    """A jail with an impossible port or filter is reported by name in log and status; the rest stays live."""
    node, type_sql = typed
    bad = CUSTOM_JAIL.format(log=node.folder / "my.log", max_count=0)
    type_sql(bad.replace("'2525'", "'99999'").replace("my-jail", "bad-port"))
    type_sql(bad.replace("mc-exim-filter", "no-such-filter").replace("my-jail", "bad-filter"))
    until(lambda: "bad-port" in node.engine_log and "no-such-filter" in node.engine_log, "the report")
    faults = {fault["what"] for fault in node.json("status")["faults"]}
    assert {"bad-port", "bad-filter"} <= faults
    node.fail("mc-exim", "203.0.113.7", 5)
    until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "a ban elsewhere")


def test_escalate_makes_a_ladder(typed: tuple[Node, TypeSql]) -> None:
    """A row with escalate = 1 becomes four tiers, and its blacklist when max_count asks for one."""
    node, type_sql = typed
    type_sql(CUSTOM_JAIL.format(log=node.folder / "my.log", max_count=3))
    type_sql("UPDATE fail2ban_jail SET escalate = 1 WHERE name = 'my-jail';")
    names = {f"my-jail-{tier}" for tier in ("1d", "1w", "1m", "1y", "bl")}
    until(lambda: names <= set(node.host.run("ipset", "list", "-n").split()), "the ladder's sets")
    rows = {row["name"]: row["maxretry"] for row in node.json("jail", "list")}
    assert [rows[f"my-jail-{tier}"] for tier in ("1d", "1w", "1m", "1y")] == [2, 4, 6, 8]
    assert "my-jail" not in rows


def test_commands_reach_a_running_engine(node: Node) -> None:
    """Jails and bans changed by commands while the engine runs are live at once, and stay so."""
    node.start()
    node.mcban("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", "-i", "2001:db8::/48")
    assert node.entries("mc-exim-1d") == {"203.0.113.7", "2001:db8::/48"}
    node.mcban("jail", "disable", "-j", "mc-exim-1d")
    assert "mc-exim-1d" not in node.host.run("ipset", "list", "-n").split()
    node.mcban("jail", "enable", "-j", "mc-exim-1d")
    assert node.entries("mc-exim-1d") == {"203.0.113.7", "2001:db8::/48"}
    node.mcban("jail", "change", "-j", "mc-exim", "--option", "maxretry", "-v", "2")
    node.fail("mc-exim", "198.51.100.7", 2)
    node.await_entry("198.51.100.7", what="the new threshold")
    node.mcban("general", "disable")
    assert "-all" not in node.host.run("ipset", "list", "-n")
    node.mcban("general", "enable")
    until(lambda: "mc-exim-all" in node.host.run("ipset", "list", "-n").split(), "the lists")
    node.await_entry("198.51.100.7", what="a ban that still runs")


def test_what_commands_take_down_is_missed_by_nobody(node: Node) -> None:
    """Jails that a command adds, disables, enables or removes are no damage: the log tells of damage only."""
    node.start()
    node.mcban("jail", "add", "-j", "my-jail", "--filter", "mc-exim-filter", "--logpath", "/var/log/x", "--port", "99")
    node.mcban("jail", "remove", "-j", "my-jail")
    node.mcban("general", "disable")
    time.sleep(SETTLING)
    node.mcban("whitelist", "add", "-i", "192.0.2.1")  # is followed by a look at everything
    node.mcban("general", "enable")
    node.mcban("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    time.sleep(SETTLING)
    assert "mended: " not in node.engine_log
    node.host.run("ipset", "flush")
    until(lambda: "mended: " in node.engine_log, "the line")


def test_what_a_stranger_flushes_comes_back(node: Node) -> None:
    """Whoever flushes sets or rules finds all of it again, and the log says what was missing."""
    node.start()
    node.mcban("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")

    def mended(times: int) -> bool:
        return node.engine_log.count("mended: ") >= times

    for number, command in enumerate((("ipset", "flush"), ("iptables", "-F"), ("ip6tables", "-F")), start=1):
        node.host.run(*command)
        until(node.in_step, f"healing after {command}")
        assert node.entries("mc-exim-1d") == {"203.0.113.7"}
        until(partial(mended, number), "the line")


def test_a_chain_that_is_not_there_is_a_trouble_until_it_comes(node: Node) -> None:
    """A chain of the settings that does not exist stands in `status` as long as that lasts, and is no damage."""
    (node.folder / "mcban.toml").write_text('[firewall]\nchains = ["INPUT", "INPTU"]\n', "utf-8")
    node.start()
    said = "there is no chain INPTU (firewall.chains): no ban holds there; one that comes is used"
    until(lambda: said in node.json("status")["engine"]["troubles"], "the trouble")
    node.host.run("iptables", "-N", "INPTU")
    until(lambda: node.json("status")["engine"]["troubles"] == [], "the end of it")
    assert "-A INPTU -j mcban" in node.host.run("iptables", "-S", "INPTU")
    assert f"over: {said}" in node.engine_log
    assert "no chain" not in "".join(line for line in node.engine_log.splitlines() if "mended" in line)


def test_open_connections_are_forgotten_where_that_is_set(wire: tuple[Host, Host], tmp_path: Path) -> None:
    """With firewall.end_connections a ban also deletes what connection tracking knows of the address."""
    server, client = wire
    server.listen(25)
    # Tracking begins with the first rule that asks for it.
    server.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    node = Node(server, tmp_path / "gate")
    try:
        node.prepare()
        (node.folder / "mcban.toml").write_text("[firewall]\nend_connections = true\n", "utf-8")
        node.start()
        with client.connection(server.ipv4, 25, source="203.0.113.7") as connection:
            connection.sendall(b"NOOP")
            assert connection.recv(9) == b"NOOP"
            assert "203.0.113.7" in server.run("conntrack", "-L")
            node.fail("mc-exim", "203.0.113.7", 5)
            until(lambda: node.entries("mc-exim-1d") == {"203.0.113.7"}, "the ban")
            until(lambda: "203.0.113.7" not in server.run("conntrack", "-L"), "the connection to be forgotten")
            connection.sendall(b"NOOP")
            with pytest.raises(OSError):
                assert connection.recv(9) == b""
                raise ConnectionResetError
    finally:
        node.end()


def test_commands_work_while_no_engine_runs(node: Node) -> None:
    """Without an engine a ban is enforced at once; status says so and exits 1; the next start takes it over."""
    node.mcban("ban", "-j", "mc-ssh", "-i", "203.0.113.7")
    assert node.entries("mc-ssh-1y") == {"203.0.113.7"}
    assert node.process("status").returncode == 1
    node.mcban("unban", "-i", "203.0.113.7")
    assert node.entries("mc-ssh-1y") == set()
    node.start()
    assert node.process("status").returncode == 0
    node.stop()
    assert node.host.run("ipset", "list", "-n") == ""
    assert "mcban" not in node.host.run("iptables-save")
    with sqlite3.connect(node.folder / "state/mcban.sqlite") as database:
        assert database.execute("SELECT count FROM fail2ban_ips WHERE jail = 'mc-ssh-1y'").fetchall() == [(1,)]
