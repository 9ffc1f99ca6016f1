"""`status` and `sync` where no kernel is asked, and an engine that runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.logs import failure
from tests.cli.terminal import MCBAN, Terminal
from tests.patience import PATIENCE, until


@pytest.fixture
def running(terminal: Terminal) -> Iterator[Terminal]:
    """A terminal beside which an engine runs."""
    terminal.write("mc-exim.log", "".join(failure("203.0.113.7") for _ in range(5)))
    terminal.read_only_here()
    with (terminal.folder / "engine.log").open("wb") as said:
        engine = subprocess.Popen([MCBAN, "run"], env=terminal.env, stdout=said, stderr=said)
    try:
        _wait_for(terminal, engine)
        yield terminal
    finally:
        engine.terminate()
        engine.wait(PATIENCE)


def _wait_for(terminal: Terminal, engine: subprocess.Popen[bytes]) -> None:
    """Until it is ready and has banned whom the log shows."""
    said = terminal.folder / "engine.log"
    until(lambda: engine.poll() is not None or b"ban 203.0.113.7" in said.read_bytes(), "the ban")
    assert engine.poll() is None, said.read_text()


def test_without_an_engine(terminal: Terminal) -> None:
    """`status` exits 1 when no engine runs, and tells of database, firewall and jails all the same."""
    document = terminal.json("status", status=1)
    assert document["engine"] == {"running": False}
    database = document["database"]
    assert (database["url"], database["error"]) == (f"sqlite:///{terminal.database}", None)
    assert (database["away_since"], database["copy_of"]) == (None, None)
    assert (document["firewall"]["backend"], document["firewall"]["enforces"]) == ("memory", False)
    assert len(document["jails"]) == 15
    assert document["jails"][0].keys() >= {"name", "enabled", "hits", "bans", "bans_ever", "faults"}
    answer = terminal.type("status")
    assert (answer.status, answer.err) == (1, "")
    assert answer.lines[0] == f"engine    does not run on {terminal.folder / 'state'}"
    assert [jail["name"] for jail in terminal.json("status", "-j", "mc-ssh-1w", status=1)["jails"]] == ["mc-ssh-1w"]


def test_with_an_engine(running: Terminal) -> None:
    """`status` exits 0 while one runs and tells its process, its logs, hits and bans; a second one is refused with 1;
    commands work beside it, and `jail reload` reaches it."""
    document = running.json("status")
    assert document["engine"]["running"] is True
    assert isinstance(document["engine"]["pid"], int)
    assert document["engine"]["since"].endswith("Z")
    tier = next(jail for jail in document["jails"] if jail["name"] == "mc-exim-1d")
    assert (tier["hits"], tier["bans"], tier["bans_ever"]) == (5, 1, 1)
    assert {log["path"].rsplit("/", 1)[1]: log["state"] for log in document["logs"]} == {
        "mc-exim.log": "following", "mc-ssh.log": "waiting", "mc-webauth.log": "waiting",
    }  # fmt: skip
    answer = running.type("status")
    assert (answer.status, answer.err) == (0, "")
    assert answer.lines[0].startswith(f"engine    runs (process {document['engine']['pid']}, for ")
    for again in (("run",), ("run", "--once")):
        second = running.process(*again)
        assert second.status == 1
        assert second.err.splitlines()[-1].startswith("mcban: an engine runs on ")
    assert running.does("jail", "reload") == ["the jails are in order; the engine was asked to reload"]
    assert running.does("unban", "-i", "203.0.113.7")
    assert running.json("status")["engine"]["pid"] == document["engine"]["pid"]
    running.write("mcban.toml", "[database]\nurl = 'mysql+pymysql://u:secret@127.0.0.1:1/d'\n").chmod(0o640)
    assert "cannot be used" in running.json("status")["database"]["error"]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_there_is_nothing_to_compare_without_a_kernel(terminal: Terminal, check: list[str]) -> None:
    """With the memory firewall `sync` says that there is nothing to compare, and exits 0, with bans and without."""
    terminal.does("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    before = terminal.dump()
    (said,) = terminal.does("sync", *check)
    assert said == "the memory firewall touches no kernel: there is nothing to compare"
    document = terminal.json("sync", *check)
    assert (document["in_sync"], document["applied"], document["create"], document["add"]) == (True, False, [], {})
    assert document["note"] == said
    assert terminal.dump() == before
