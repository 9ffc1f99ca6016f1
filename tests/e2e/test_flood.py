"""More attackers than a list was made for."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.e2e.node import Node, exim
from tests.patience import until


@pytest.mark.parametrize(
    "attackers",
    [4_000, pytest.param(200_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
    ids=["short", "two hundred thousand"],
)
def test_lists_grow_while_attackers_come_and_every_ban_is_in_force(node: Node, attackers: int) -> None:
    """Distinct attackers flood the log; lists made for 1 024 grow beside the live ones; in the end every ban of SQL is
    in the kernel, and none that is not was called enforced."""
    (node.folder / "mcban.toml").write_text("[firewall]\nmaxelem = 1024\n", "utf-8")
    node.database.write(lambda t: t.jails.update("mc-exim-1d", {"maxretry": 1}))
    node.start()
    with node.log("mc-exim").open("a", encoding="utf-8") as log:
        for n in range(attackers):
            ip = f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            log.write(exim(ip, datetime.now()) + "\n")  # noqa: DTZ005  # exim logs local time
            if n % 500 == 0:
                log.flush()
    until(node.all_read, "reading to the end", 1200)
    until(lambda: len(node.entries("mc-exim-1d")) >= attackers, "the last entry")
    assert node.entries("mc-exim-1d") == {ip for ip, jail in node.banned() if jail == "mc-exim-1d"}
    until(lambda: node.json("status")["firewall"]["not_enforced"] == [], "a status that knows")
    assert node.json("status")["faults"] == []
    header = node.host.run("ipset", "list", "-t", "mc-exim-1d")
    assert f"Number of entries: {attackers}" in header
    until(node.in_step, "ends that growing has not shifted")
    assert "Traceback" not in node.engine_log and "ERROR" not in node.engine_log
