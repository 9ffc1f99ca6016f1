"""`logtimezone`, as it is typed."""

from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Terminal

LINE = "2026-01-15 13:00:00 login authenticator failed for (x) [203.0.113.7]: 535 Incorrect authentication data\n"


def test_a_jail_reads_its_log_in_its_zone(terminal: Terminal, tmp_path: Path) -> None:
    """`jail add --logtimezone` and `jail change` say it, `jail show` tells it, `replay` follows it."""
    log = tmp_path / "x.log"
    log.write_text(LINE * 5)
    words = ["jail", "add", "-j", "mine", "--filter", "mc-exim-filter", "--port", "25", "--logpath", str(log)]
    terminal.does(*words, "--logtimezone", "America/New_York")
    assert terminal.json("jail", "show", "-j", "mine")[0]["logtimezone"] == "America/New_York"
    assert "logtimezone America/New_York" in terminal.does("jail", "show", "-j", "mine")
    assert terminal.json("replay", "-j", "mine", str(log))["bans"][0]["at"] == "2026-01-15T18:00:00Z"
    change = ("jail", "change", "-j", "mine", "--option", "logtimezone", "-v")
    assert terminal.does(*change, "UTC+0200") == ["mine: logtimezone America/New_York is now UTC+0200"]
    assert terminal.json("replay", "-j", "mine", str(log))["bans"][0]["at"] == "2026-01-15T11:00:00Z"
    assert "logtimezone UTC+2400 is no time zone" in terminal.refuses(65, *change, "UTC+2400")
    assert terminal.does(*change, "") == ["mine: logtimezone UTC+0200 is now the system's"]
    assert terminal.json("jail", "show", "-j", "mine")[0]["logtimezone"] is None
