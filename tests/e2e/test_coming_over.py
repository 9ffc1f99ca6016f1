"""Coming from elsewhere, with a real kernel: what was adopted is enforced, what is imported reaches an engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import original
from tests.e2e.node import Node
from tests.netns import one_host, require_netns
from tests.patience import until


def test_an_adopted_database_is_enforced(tmp_path: Path, empty_mariadb: str) -> None:
    """MailCleaner's tables on MariaDB: refused, adopted, and its bans stand in the kernel when the engine runs; who is
    let in again stays so."""
    require_netns()
    recent = datetime.fromtimestamp(time.time() - 600, UTC).strftime("%Y-%m-%d %H:%M:%S")
    original.make(empty_mariadb, "ENGINE=MyISAM DEFAULT CHARSET=latin1")
    original.add(
        empty_mariadb,
        *((f"203.0.113.{n % 100}", "mc-exim-1d", 1 + n // 100, 1, 0, 0, recent) for n in range(200)),
        ("198.51.100.1", "mc-exim-1w", 4, 1, 1, 0, recent),
        ("203.0.113.50", "mc-exim-1d", 0, 0, 0, 1, recent),
        ("198.51.100.2", "mc-exim-1d", 1, 1, 0, 0, "2020-01-01 00:00:00"),
    )
    with one_host() as host:
        node = Node(host, tmp_path / "gate", database_url=empty_mariadb)
        try:
            for early in (("db", "upgrade"), ("banned",), ("run", "--once")):
                refused = node.process(*early)
                assert (refused.returncode, refused.stderr.count("mcban db adopt")) == (78, 1), refused
            assert "the tables of the original are kept" in node.mcban("db", "adopt")
            assert "is mcban's already" in node.mcban("db", "adopt")
            node.mcban("db", "check")
            node.start()
            banned = {f"203.0.113.{n}" for n in range(100)} - {"203.0.113.50"}
            until(lambda: node.entries("mc-exim-1d") == banned, "the bans in the kernel")
            assert node.entries("mc-exim-bl") == {"198.51.100.1"}
            node.mcban("unban", "-j", "mc-exim", "-i", "203.0.113.7")
            assert node.mcban("sync", "--check") == "the kernel holds what SQL says\n"
            assert node.entries("mc-exim-1d") == banned - {"203.0.113.7"}
        finally:
            node.end()


@pytest.mark.parametrize("size", [12_000, pytest.param(250_000, marks=pytest.mark.soak)])
def test_an_imported_list_reaches_a_running_engine(node: Node, size: int) -> None:
    """And the engine keeps it: flushed, it is back by itself. More than the changes that are remembered, in the long
    form."""
    file = node.folder / "bad.txt"
    entries = {f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(1, size + 1)}
    file.write_text("\n".join(sorted(entries)))
    node.start()
    assert node.mcban("import", "-j", "mc-exim-bl", str(file)) == f"{size} banned in mc-exim-bl\n"
    assert node.entries("mc-exim-bl") == entries
    node.host.run("ipset", "flush", "mc-exim-bl")
    until(lambda: node.entries("mc-exim-bl") == entries, "the bans again")
    file.with_name("back.txt").write_text(node.mcban("export", "-j", "mc-exim-bl"))
    assert set(file.with_name("back.txt").read_text().split()) == entries
    until(lambda: node.process("sync", "--check").stdout == "the kernel holds what SQL says\n", "peace")
    assert "defect" not in node.engine_log
