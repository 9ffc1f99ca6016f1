"""The journal in the whole: a real journald, the real commands, an engine that decides and records."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mcban.filters import load_filter
from mcban.shipped import shipped
from tests.e2e.node import Node
from tests.journald import Journald, running_journald
from tests.patience import PATIENCE, until


class Inside:
    """Where Node starts its processes: the machine's journal is that of `journald`."""

    def __init__(self, journald: Journald) -> None:
        self._journald = journald

    def process(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever it returns."""
        inside = self._journald.inside(*command)
        return subprocess.run(inside, capture_output=True, text=True, check=False, env=env, timeout=PATIENCE)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process; the caller ends it."""
        return subprocess.Popen(self._journald.inside(*command), text=True, **options)


class Gate:
    """A gateway whose sshd writes to the journal."""

    def __init__(self, journald: Journald, folder: Path) -> None:
        self.journald = journald
        self.node = Node(Inside(journald), folder / "gate", "memory")  # type: ignore[arg-type]  # of a Host, these are all that it needs
        self.node.apart = True
        self.node.prepare()
        self.node.mcban("jail", "change", "-j", "mc-ssh", "--option", "logpath", "-v", "systemd-journal")
        self._daemons = ExitStack()
        self._failures = 0

    def fail(self, *addresses: str, process: str = "sshd") -> None:
        """Failed passwords, told by a process of that name as sshd tells of them."""
        texts = [f"<38>Nov 22 10:00:00 sshd[77]: Failed password for root from {ip} port 22 ssh2" for ip in addresses]
        self._daemons.enter_context(self.journald.daemon(process, *texts))
        self._failures += len(addresses)
        self.journald.flush("SYSLOG_IDENTIFIER=sshd", entries=self._failures)

    def await_hits(self, number: int) -> None:
        """Wait until so many hits are counted, all in all."""
        until(lambda: self.hits() == number, f"counting to {number}")

    def hits(self) -> int:
        """All hits of the group that SQL counted."""
        totals: dict[str, int] = self.node.database.read(lambda t: t.hits.totals())
        return totals.get("mc-ssh", 0)

    def journal(self) -> dict[str, Any]:
        """What `status` says of the journal."""
        (log,) = [log for log in self.node.json("status")["logs"] if log["path"].startswith("systemd-journal")]
        return dict(log)

    def end(self) -> None:
        self._daemons.close()
        self.node.end()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with running_journald() as journald:
        made = Gate(journald, tmp_path)
        try:
            yield made
        finally:
            made.end()


def test_failures_in_the_journal_lead_to_a_ban(gate: Gate) -> None:
    """From what sshd writes, and from nothing that another process writes in its name."""
    gate.node.start()
    gate.fail("203.0.113.9", "203.0.113.9", "203.0.113.9")
    gate.fail("203.0.113.8", "203.0.113.8", "203.0.113.8", process="impostor")
    gate.fail("203.0.113.7", "203.0.113.7", "203.0.113.7")
    bans = {("203.0.113.9", "mc-ssh-1d"), ("203.0.113.7", "mc-ssh-1d")}
    until(lambda: gate.node.banned() == bans, "the bans")
    (jail,) = [jail for jail in gate.node.json("show", "203.0.113.9")["jails"] if jail["banned"]]
    assert jail["jail"] == "mc-ssh-1d"
    until(lambda: gate.journal()["state"] == "following", "a status that says so")
    gate.node.stop()
    assert gate.hits() == 6


def test_each_failure_counts_once_over_kills_and_rotation(gate: Gate) -> None:
    """Killed while it reads and while nothing happens, the journal rotated meanwhile: every hit is there, once."""
    sent = 0
    for round_ in range(3):
        gate.node.start()
        if round_ % 2:
            gate.journald.rotate()
        gate.fail(*(f"198.51.100.{number}" for number in range(sent, sent + 40)))
        sent += 40
        if round_ in {1, 2}:
            gate.await_hits(sent)
        gate.node.stop(signal.SIGKILL)
        gate.fail(f"198.51.100.{sent}")
        sent += 1
    assert gate.node.process("run", "--once").returncode == 0
    assert gate.hits() == sent
    assert gate.node.process("run", "--once").returncode == 0
    assert gate.hits() == sent


def test_what_was_written_before_the_machines_restart_counts_too(gate: Gate) -> None:
    """Read or not when it went down: each failure once, and what comes afterwards is followed."""
    gate.node.start()
    gate.fail("198.51.100.1", "198.51.100.2")
    until(lambda: gate.hits() == 2, "counting")
    gate.node.stop(signal.SIGKILL)
    gate.fail("198.51.100.3")
    gate.journald.reboot()
    gate.fail("198.51.100.4")
    gate.node.start()
    until(lambda: gate.hits() == 4, "counting what was left")
    gate.fail("198.51.100.5")
    until(lambda: gate.hits() == 5, "following")
    gate.node.stop()
    assert gate.node.process("run", "--once").returncode == 0
    assert gate.hits() == 5


def test_a_filter_of_fail2bans_kind_gets_the_journals_lines(gate: Gate) -> None:
    """It asks for `logtype=journal` lines by itself, its rules begin where fail2ban's do, and its date pattern is for
    files; a file beside the journal is read as a file."""
    folder, log = gate.node.folder / "filter.d", gate.node.folder / "app.log"
    folder.mkdir()
    (folder / "app.conf").write_text(
        "[Definition]\n"
        "_lt_file = ^\\s*from a file\n"
        "_lt_journal = ^\\S+ app\\[\\d+\\]: \\[2026-01-02 03:04:05\\] from the journal\n"
        "logtype = file\n"
        "failregex = <_lt_<logtype>> <HOST>$\n"
        "datepattern = ^%%d/%%b/%%Y %%H:%%M:%%S\n"
        "journalmatch = SYSLOG_IDENTIFIER=app\n"
    )
    gate.node.env["MCBAN_FILTER_PATH"] = f"{folder}:{shipped('etc')}/filter.d"
    now = f"{datetime.now():%d/%b/%Y %H:%M:%S}"  # noqa: DTZ005  # daemons log local time
    log.write_text(f"{now} from a file 203.0.113.1\n{now} from the journal 203.0.113.2\n")
    gate.node.mcban(
        *("jail", "add", "-j", "app", "--filter", "app", "--logpath", f"{log} systemd-journal", "--port", "80"),
        *("--maxretry", "1", "--findtime", "1h", "--bantime", "-1"),
    )
    for number, text in enumerate(["from the journal 203.0.113.3", "from a file 203.0.113.4"]):
        gate.journald.send(MESSAGE=f"[2026-01-02 03:04:05] {text}", SYSLOG_IDENTIFIER="app")
        gate.journald.flush("SYSLOG_IDENTIFIER=app", entries=number + 1)
    gate.node.mcban("run", "--once")
    assert {ip for ip, jail in gate.node.banned() if jail == "app"} == {"203.0.113.1", "203.0.113.3"}


def test_a_filter_is_tried_on_the_journal(gate: Gate) -> None:
    """`filter test` reads what the filter asks of the journal, or what is asked for by hand, from the first entry to
    the last; nothing is counted by it."""
    gate.fail("203.0.113.9", "203.0.113.9")
    gate.fail("203.0.113.8", process="impostor")
    told = gate.node.mcban("filter", "test", "mc-sshd-filter", "systemd-journal", "--json")
    hits = [json.loads(line) for line in told.splitlines()]
    assert [(hit["line"], hit["ip"], hit["user"]) for hit in hits] == [(n, "203.0.113.9", "root") for n in (1, 2)]
    assert "2 lines, 2 hits" in gate.node.mcban("filter", "test", "mc-sshd-filter", "systemd-journal")
    by_hand = gate.node.mcban(
        *("filter", "test", r"^\S+ sshd\[\d+\]: Failed password for \S+ from <ADDR> "),
        *("systemd-journal SYSLOG_IDENTIFIER=sshd", "--json"),
    )
    assert [json.loads(line)["ip"][-1] for line in by_hand.splitlines()] == ["9", "9", "8"]
    gate.node.mcban("run", "--once")
    assert gate.hits() == 2


def test_the_journal_is_replayed_beside_files(gate: Gate) -> None:
    """`replay` takes of the journal what the jail's filter asks for, and files as files; the jail's own logs need not
    be the journal."""
    gate.node.mcban("jail", "change", "-j", "mc-ssh", "--option", "logpath", "-v", "/var/log/auth.log")
    gate.fail("203.0.113.9", "203.0.113.9", "203.0.113.8")
    log = gate.node.folder / "auth.log"
    line = f"{datetime.now():%b %d %H:%M:%S} gate sshd[7]: Failed password for root from {{}} port 22 ssh2\n"  # noqa: DTZ005
    log.write_text("".join(line.format(f"203.0.113.{n}") for n in (9, 8, 7)))
    done = gate.node.json("replay", "-j", "mc-ssh", "systemd-journal", str(log))
    assert (done["lines"], done["hits"], [ban["ip"] for ban in done["bans"]]) == (6, 6, ["203.0.113.9"])
    tried = gate.node.json("replay", "-j", "mc-ssh", "systemd-journal", str(log), "--maxretry", "2,4")
    assert [column["together"]["held"] for column in tried["thresholds"]] == [2, 0]
    assert gate.hits() == 0


@pytest.mark.parametrize("command", [("filter", "test", "mc-sshd-filter"), ("replay", "-j", "mc-ssh")])
def test_a_journal_that_is_not_there_is_said(gate: Gate, command: tuple[str, ...]) -> None:
    """In one line, with the status of what cannot be read."""
    done = gate.node.process(*command, f"systemd-journal[journalpath={gate.node.folder}/none]")
    assert done.returncode == 65
    assert f"there is no journal in {gate.node.folder}/none" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_journal_that_is_not_there_is_waited_for(gate: Gate) -> None:
    """`status` says so; the other jails go on."""
    gate.node.mcban(
        *("jail", "change", "-j", "mc-ssh", "--option", "logpath"),
        *("-v", f"systemd-journal[journalpath={gate.node.folder}/none]"),
    )
    gate.node.start()
    until(lambda: gate.journal()["state"] == "waiting", "a status that says so")
    assert f"there is no journal in {gate.node.folder}/none" in gate.journal()["reason"]
    gate.node.stop()


@pytest.mark.parametrize(
    ("logpath", "words"),
    [
        ("systemd-journal[journalpath=none]", "absolute"),
        ("systemd-journal[journalfiles=/x]", "journalfiles"),
    ],
)
def test_a_journal_that_cannot_be_named_so_is_refused(gate: Gate, logpath: str, words: str) -> None:
    """In one line, before anything is changed."""
    done = gate.node.process("jail", "change", "-j", "mc-ssh", "--option", "logpath", "-v", logpath)
    assert done.returncode == 65
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_shipped_ssh_filter_asks_for_sshds_entries() -> None:
    """Whatever the unit is called."""
    one = load_filter("mc-sshd-filter", [shipped("etc") / "filter.d"])
    assert "_SYSTEMD_UNIT=ssh.service" in one.journalmatch
    assert "_COMM=sshd" in one.journalmatch
