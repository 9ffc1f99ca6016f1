"""Pipes that close, Ctrl-C, full disks, odd locales and odd arguments."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.logs import failure
from tests.cli.terminal import MCBAN, UNHEARD, Terminal, complaint
from tests.patience import PATIENCE


@pytest.fixture
def crowded(terminal: Terminal) -> Terminal:
    """A terminal with more bans than a pipe holds."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
    address = "'10.9.' || (i / 250) || '.' || (i % 250)"
    terminal.sql(
        f"{numbers} INSERT INTO fail2ban_ips (ip, jail, host, count, active, until)"
        f" SELECT {address}, 'mc-exim-1d', 'x', 1, 1, '2099-01-01 00:00:00' FROM n"
    )
    return terminal


@pytest.mark.parametrize("command", ["banned", "banned --json", "filter show mc-exim-filter", "--help"])
def test_a_pipe_that_closes_is_no_error(crowded: Terminal, command: str) -> None:
    """`mcban banned | head -1` ends quietly, with 0."""
    script = f"{{ {shlex.quote(MCBAN)} {command}; echo $? >&2; }} | head -n 1"
    done = subprocess.run(["sh", "-c", script], env=crowded.env, capture_output=True, text=True, check=True)
    assert done.stderr == "0\n"
    assert done.stdout.count("\n") == 1


def test_whoever_does_not_listen_changes_no_verdict(terminal: Terminal) -> None:
    """A command whose status says what it found or did says that, too, when nobody reads its output: no engine runs; a
    part of what was asked for failed, which stands on standard error."""
    for command in ("status", "status --json"):
        answer = terminal.process(*command.split(), before=UNHEARD)
        assert (answer.status, answer.err) == (1, "")
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.0/24", "-i", "203.0.113.7")
    answer = terminal.process("unban", "-i", "203.0.113.7", before=UNHEARD)
    assert answer.status == 1
    assert "203.0.113.0/24" in answer.err and answer.err.count("\n") == 1


def test_closed_streams_are_no_error(terminal: Terminal) -> None:
    """Without a standard output or a standard error, commands do what they are asked to."""
    for redirection in (">&-", "2>&-", ">&- 2>&- <&-"):
        typed = ("sh", "-c", f'"$@" {redirection}', "sh")
        assert terminal.process("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", before=typed).status == 0
        assert terminal.process("banned", "-j", "nope", before=typed).status == 2
    assert len(terminal.json("banned")) == 1


def test_a_full_disk_is_said(terminal: Terminal) -> None:
    """An answer that cannot be written is a failure of one line."""
    with Path("/dev/full").open("wb") as full:
        answer = terminal.process("jail", "list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert "No space left on device" in complaint(answer, 1)


def test_an_error_that_cannot_be_written_keeps_its_status(terminal: Terminal) -> None:
    """On a full disk, and with a reader of standard error that is gone, the exit status is that of the error."""
    for typed in ('"$@" 2>/dev/full', '{ sleep 0.1; exec "$@" 2>&1; } | true; exit "${PIPESTATUS[0]}"'):
        before = ("bash", "-c", typed, "bash")
        assert terminal.process("banned", "-j", "nope", before=before).status == 2
        assert terminal.process(before=before).status == 2


def test_a_word_that_nobody_reads_stops_nothing(terminal: Terminal) -> None:
    """Where a warning cannot be written, on a full disk or with a reader of standard error that is gone, a command does
    what it is for; and what failed without being heard of gives the status that it would give."""
    for typed in ('"$@" 2>/dev/full', '{ sleep 0.1; exec "$@" 2>&1 >/dev/null; } | true; exit "${PIPESTATUS[0]}"'):
        before = ("bash", "-c", typed, "bash")
        terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.0/24", "-i", "203.0.113.7")
        assert terminal.process("unban", "-i", "203.0.113.7", before=before).status == 1
        exposed = terminal.write("exposed.toml", '[database]\nurl = "mysql+pymysql://u:word@127.0.0.1:1/d"\n')
        exposed.chmod(0o644)
        assert terminal.process("--config", str(exposed), "banned", before=before).status == 69
        assert (
            terminal.process("--config", str(exposed), "replay", "-j", "mc-exim", "/dev/null", before=before).status
            == 0
        )


def test_control_c_is_one_line(terminal: Terminal) -> None:
    """Ctrl-C in the midst of a long `replay` ends it with one line and 130."""
    pipe = terminal.folder / "endless"
    os.mkfifo(pipe)
    replay = subprocess.Popen(
        [MCBAN, "replay", "-j", "mc-exim", str(pipe)],
        env=terminal.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # no thread yet; a build may ignore it
    )
    block = (failure("203.0.113.7") * 20_000).encode()
    with pipe.open("wb", buffering=0) as log:
        log.write(block)
        log.write(block)  # it does not fit into the pipe: by now the first one is being read
        replay.send_signal(signal.SIGINT)
        out, err = replay.communicate(timeout=PATIENCE)
    assert (replay.returncode, out, err) == (130, b"", b"mcban: stopped by the keyboard\n")


def test_a_terminal_without_utf8(terminal: Terminal) -> None:
    """A locale of seven bits is no reason to fail, whatever is to be shown."""
    terminal.env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert terminal.process("filter", "test", "mc-exim-filter", "/dev/null", before=("env",)).status == 0
    complaint(terminal.process("replay", before=("env",)), 2)


@pytest.mark.parametrize("junk", [b"\xff\xfe", "ä".encode("latin-1"), b"\x1b[31m", b"\xc3\x28"])
def test_bytes_that_are_no_text(terminal: Terminal, junk: bytes) -> None:
    """Arguments that are no UTF-8 are shown escaped, as what they are: wrong."""
    complaint(terminal.process("ban", "-j", junk, "-i", "203.0.113.7"), 2)
    complaint(terminal.process("ban", "-j", "mc-exim", "-i", junk), 2)
    complaint(terminal.process(junk), 2)
