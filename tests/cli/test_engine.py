"""`replay` and `run --once`: what a log leads to, without and with SQL."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.logs import failure, write_log
from tests.cli.terminal import Answer, Terminal, complaint


def once(terminal: Terminal) -> Answer:
    """`mcban run --once`, which must succeed."""
    done = terminal.process("run", "--once")
    assert (done.status, done.out) == (0, ""), done
    return done


def test_replay_needs_no_database(bare: Terminal) -> None:
    """Where nothing is installed yet, `replay` uses the shipped ladder, says so, and leaves nothing behind."""
    log = write_log(bare.folder / "exim.log")
    answer = bare.type("replay", "-j", "mc-exim", str(log), "--json")
    assert answer.status == 0
    assert "using the jails that mcban comes with" in answer.err
    assert answer.document.keys() == {"lines", "hits", "bans"}
    assert answer.document["lines"] == 2_000
    assert answer.document["hits"] > 500
    assert not bare.database.exists()


def test_replay_says_what_run_would_do(terminal: Terminal) -> None:
    """The bans of `replay` are those that `run --once` writes into SQL from the same log, to the second."""
    log = write_log(terminal.folder / "mc-exim.log")
    terminal.read_only_here()
    before = terminal.dump()
    replayed = terminal.json("replay", "-j", "mc-exim", str(log))
    assert terminal.dump() == before
    once(terminal)
    rows = terminal.sql("SELECT ip, jail FROM mcban_event WHERE what IN ('ban', 'blacklist') ORDER BY id")
    assert len(rows) == len(replayed["bans"]) > 20
    assert [(ban["ip"], ban["jail"]) for ban in replayed["bans"]] == rows
    last = {(ban["ip"], ban["jail"]): ban for ban in replayed["bans"]}
    held = terminal.sql("SELECT ip, jail, since, until, count FROM fail2ban_ips WHERE jail LIKE 'mc-exim-%'")
    assert len(held) == len(last)
    for ip, jail, since, until, count in held:
        assert last[ip, jail]["at"] == _seconds(since), (ip, jail)
        assert last[ip, jail]["until"] == (None if until.startswith("9999") else _seconds(until)), (ip, jail)
        assert count == sum((ban["ip"], ban["jail"]) == (ip, jail) for ban in replayed["bans"]), (ip, jail)
    assert terminal.json("jail", "show", "-j", "mc-exim-1d")[0]["hits"] == replayed["hits"]


def _seconds(sql: str) -> str:
    return sql[:19].replace(" ", "T") + "Z"


def test_replay_climbs_the_ladder_on_the_logs_own_clock(terminal: Terminal) -> None:
    """Twenty failures in a minute, a year ago, ban once in each tier; the ends are counted from then."""
    ago = timedelta(days=365)
    log = terminal.write("x.log", "".join(failure("203.0.113.7", ago) for _ in range(20)))
    bans = terminal.json("replay", "-j", "mc-exim", str(log))["bans"]
    assert [ban["jail"] for ban in bans] == [f"mc-exim-{tier}" for tier in ("1d", "1w", "1m", "1y")]
    lengths = [datetime.fromisoformat(ban["until"]) - datetime.fromisoformat(ban["at"]) for ban in bans]
    assert lengths == [timedelta(days=days) for days in (1, 7, 30, 365)]
    assert datetime.fromisoformat(bans[0]["at"]) < datetime.now(UTC) - timedelta(days=364)
    table = terminal.does("replay", "-j", "mc-exim", str(log))
    assert table[0].split() == ["AT", "ADDRESS", "JAIL", "FOR", "WHY"]
    assert table[-1] == "20 lines, 20 hits, 4 bans of 1 address"


def test_replay_of_a_tier_shows_that_tier(terminal: Terminal) -> None:
    """`-j` takes a tier here too: what the group's hits would have done in it."""
    log = terminal.write("x.log", "".join(failure("203.0.113.7") for _ in range(20)))
    bans = terminal.json("replay", "-j", "mc-exim-1w", str(log))["bans"]
    assert [ban["jail"] for ban in bans] == ["mc-exim-1w"]


def test_replay_takes_several_logs_and_standard_input(terminal: Terminal) -> None:
    """Logs are read one after the other as if they were one; `-` is standard input; junk is no reason to stop."""
    part = "".join(failure("203.0.113.7") for _ in range(2))
    one, two = terminal.write("1.log", part), terminal.write("2.log", b"\xff\xfe\0junk\x1b[31m\n\n" + part.encode())
    answer = terminal.type("replay", "-j", "mc-exim", str(one), str(two), "-", "--json", stdin=part.encode().rstrip())
    assert (answer.status, answer.err) == (0, "")
    assert (answer.document["lines"], answer.document["hits"], len(answer.document["bans"])) == (8, 6, 1)


def test_replay_respects_the_whitelist(terminal: Terminal) -> None:
    """What the database allows is not counted."""
    log = terminal.write("x.log", "".join(failure("203.0.113.7") for _ in range(20)))
    terminal.does("whitelist", "add", "-j", "mc-exim", "-i", "203.0.113.0/24")
    assert terminal.json("replay", "-j", "mc-exim", str(log)) == {"lines": 20, "hits": 0, "bans": []}


@pytest.mark.parametrize("command", ["replay -j mc-exim", "filter test mc-exim-filter"])
def test_a_log_that_cannot_be_read(terminal: Terminal, command: str) -> None:
    """A log that is missing, a folder or a broken archive is bad data; a forbidden one is a matter of permission."""
    typed = command.split()
    missing = str(terminal.folder / "nope\x1b[31m.log")
    assert "there is no such file" in terminal.refuses(65, *typed, missing)
    assert "s a directory" in terminal.refuses(65, *typed, str(terminal.folder))
    assert "is damaged" in terminal.refuses(65, *typed, str(terminal.write("x.gz", b"\x1f\x8b\x08junk")))
    terminal.refuses(65, *typed, "x" * 10_000)
    terminal.refuses(2, *typed, "")
    assert "standard input is closed" in complaint(
        terminal.process(*typed, "-", stdin=None, before=("sh", "-c", '"$@" <&-', "sh")), 65
    )


def test_run_once_reads_everything_and_nothing_twice(terminal: Terminal) -> None:
    """`run --once` counts every line up to the end, exits 0, and counts only what is new when it is run again."""
    log = terminal.write("mc-exim.log", "".join(failure("203.0.113.7") for _ in range(4)))
    terminal.read_only_here()
    assert "waiting" in once(terminal).err  # for the other groups' logs, which are missing
    assert terminal.json("banned") == []
    hits = terminal.sql("SELECT * FROM mcban_hit")
    once(terminal)
    assert terminal.sql("SELECT * FROM mcban_hit") == hits
    with log.open("a") as more:
        more.write(failure("203.0.113.7"))
    assert "ban 203.0.113.7 in mc-exim-1d" in once(terminal).err
    bans = terminal.dump()
    once(terminal)
    assert terminal.sql("SELECT count FROM fail2ban_ips WHERE jail = 'mc-exim-1d'") == [(1,)]
    assert terminal.dump().count('INSERT INTO "mcban_event"') == bans.count('INSERT INTO "mcban_event"')


def test_a_ban_ends_by_the_logs_time(terminal: Terminal) -> None:
    """From lines of three days ago the day's ban is over and the week's still runs."""
    terminal.write("mc-exim.log", "".join(failure("203.0.113.7", timedelta(days=3)) for _ in range(10)))
    terminal.read_only_here()
    assert "over by now" in once(terminal).err
    (ban,) = terminal.json("banned")
    assert ban["jail"] == "mc-exim-1w"
    assert datetime.fromisoformat(ban["until"]) - datetime.fromisoformat(ban["since"]) == timedelta(weeks=1)
    jails = {jail["jail"]: jail for jail in terminal.json("show", "203.0.113.7")["jails"]}
    assert (jails["mc-exim-1d"]["banned"], jails["mc-exim-1d"]["count"]) == (False, 1)


def test_run_once_tells_of_a_jail_that_it_passed_over(terminal: Terminal) -> None:
    """A filter that no longer compiles, or a row that cannot work, does not stop the others; the exit status is 65."""
    terminal.write("mc-exim.log", "".join(failure("203.0.113.7") for _ in range(5)))
    terminal.read_only_here()
    folder = terminal.write("filters/mine.conf", "[Definition]\nfailregex = ^ bad <HOST>$\n").parent
    terminal.env["MCBAN_FILTER_PATH"] = f"{folder}:{Path(__file__).parents[2] / 'etc/filter.d'}"
    terminal.does("jail", "add", "-j", "mine", "--filter", "mine", "--logpath", str(folder / "x.log"), "--port", "25")
    once(terminal)
    terminal.write("filters/mine.conf", "[Definition]\nfailregex = ^ (bad <HOST>$\n")
    done = terminal.process("run", "--once")
    assert done.status == 65
    assert done.err.splitlines()[-1].startswith("mcban: passed over mine: filter mine: ")
    assert "does not compile" in done.err
    assert "Traceback" not in done.err
    assert [ban["ip"] for ban in terminal.json("banned")] == ["203.0.113.7"]
    assert "does not compile" in terminal.json("status", status=1)["faults"][0]["why"]


def test_run_makes_no_database(bare: Terminal) -> None:
    """Without a schema the engine does not start, and says what to do."""
    assert "mcban db upgrade" in complaint(bare.process("run", "--once"), 78)
    assert not bare.database.parent.exists()


LIBRARY = """
import click, logging
from mcban.cli import engine, output
from mcban.cli.progress import Progress
output.context_of(click.Context(engine.run), database=False, waiting=False)
engine._log_to_stderr("info", Progress(0, wanted=False))
for name in ("pyroute2", "sqlalchemy.pool"):
    try:
        raise OSError("broken\\x1b[2J")
    except OSError:
        logging.getLogger(name).error("while terminating a connection", exc_info=True)
"""


def test_what_a_library_logs_is_no_traceback(bare: Terminal) -> None:
    """In the engine's log an error that a library tells is a line, and nothing of it reaches the terminal raw; of
    connections that break the engine tells by itself."""
    command = [sys.executable, "-c", LIBRARY]
    done = subprocess.run(command, env={**os.environ, **bare.env}, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    assert done.stderr.count("OSError: broken") == 1
