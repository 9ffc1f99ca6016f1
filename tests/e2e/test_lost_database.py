"""The database is gone, or another one stands in its place, while the kernel's lists are full."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import pytest

from mcban.core.model import FOREVER
from mcban.store.addresses import AddressRecord
from tests.e2e.node import Node, direct_logs
from tests.patience import until

BANS = [f"203.0.{n >> 8}.{n & 255}" for n in range(1, 151)]


def fill(node: Node, ips: list[str]) -> None:
    """Bans in SQL and in the kernel."""
    rows = [AddressRecord(ip, "mc-exim-1y", 1, True, since=1, until=FOREVER, reason="test") for ip in ips]
    node.database.write(lambda t: t.addresses.save(rows))
    node.mcban("sync")


def lose(node: Node, how: str) -> None:
    """The bans are gone from SQL, not by anybody's lifting them."""
    file = Path(node.env["MCBAN_STATE_DIR"]) / "mcban.sqlite"
    if how == "rows":
        with sqlite3.connect(file) as database:
            database.execute("DELETE FROM fail2ban_ips")
        database.close()
        return
    node.database.dispose()
    for path in file.parent.glob("mcban.sqlite*"):
        path.unlink()
    node.mcban("db", "upgrade")


@pytest.mark.parametrize("how", ["rows", "file"])
def test_sync_refuses_to_lift_what_a_lost_database_forgot(node: Node, how: str) -> None:
    """`sync` exits 3 and says why, as often as it is asked; `--check` exits 1 and says it, too; `--force` lifts."""
    fill(node, BANS)
    lose(node, how)
    check = node.process("sync", "--check")
    assert (check.returncode, "to do: remove 150 from mc-exim-1y" in check.stdout) == (1, True)
    assert "SQL knows nothing of 150 of the 150 bans in the kernel" in check.stderr
    for _ in range(2):
        done = node.process("sync")
        assert done.returncode == 3
        assert (
            "is this the right database, and whole?" in done.stderr and "mcban sync --force lifts them" in done.stderr
        )
        assert node.entries("mc-exim-1y") == set(BANS)
    assert node.json("sync", "--check")["in_sync"] is False
    node.mcban("sync", "--force")
    assert node.entries("mc-exim-1y") == set()
    assert node.process("sync").returncode == 0


def test_a_hundred_lost_bans_follow_sql(node: Node) -> None:
    """Up to a hundred entries are few enough to follow SQL without a question."""
    fill(node, BANS[:100])
    lose(node, "rows")
    assert node.process("sync").returncode == 0
    assert node.entries("mc-exim-1y") == set()


def test_an_engine_that_starts_on_an_empty_database_lifts_nobody(node: Node) -> None:
    """After a crash and the loss of the file it says so, goes on banning and mending, and waits for a decision."""
    fill(node, BANS)
    node.start()
    node.stop(signal.SIGKILL)
    lose(node, "file")
    direct_logs(node.database, node.folder)
    node.start()
    assert "SQL knows nothing of 150 of the 150 bans in the kernel" in node.engine_log
    node.fail("mc-exim", "198.51.100.7", 5)
    node.await_entry("198.51.100.7")
    node.host.run("iptables", "-F")
    until(lambda: "-j mcban" in node.host.run("iptables", "-S", "INPUT"), "the rules")
    assert node.entries("mc-exim-1y") == set(BANS)
    until(lambda: "SQL knows nothing of" in str(node.json("status")["engine"]["troubles"]), "the trouble in status")
    node.mcban("sync", "--force")
    assert node.entries("mc-exim-1y") == set()
    assert node.entries("mc-exim-1d") == {"198.51.100.7"}


def test_plain_sql_that_a_running_engine_sees_is_no_loss(node: Node) -> None:
    """Whoever deletes or ends rows while the triggers note it means it: the bans are lifted, however many."""
    fill(node, BANS)
    node.start()
    lose(node, "rows")
    until(lambda: node.entries("mc-exim-1y") == set(), "the lifting")
    assert node.in_step()
