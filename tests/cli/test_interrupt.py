"""Ctrl-C: one line and 130 wherever a command is, and nothing is torn apart by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcban.cli.interrupt import Interrupt
from mcban.cli.output import read_blocks
from mcban.filters import Scanner, load_filter
from mcban.shipped import shipped
from tests.cli.terminal import MCBAN, Terminal
from tests.patience import PATIENCE

SAID = "mcban: stopped by the keyboard\n"

INTERRUPTED_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == %r:
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
from mcban.cli.entry import main
sys.argv = ["mcban", "jail", "list"]
main()
"""


INTERRUPTED_CALL = """
import signal, sys
import %(module)s
def interrupted(*_, **__):
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("it goes on")
signal.signal(signal.SIGINT, signal.default_int_handler)
%(module)s.%(name)s = interrupted
from mcban.cli.entry import main
sys.argv = ["mcban", "banned", "-j", "nope"]
main()
"""


@pytest.fixture(autouse=True)
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals are everybody's."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # as it was, afterwards
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("module", ["click", "mcban.cli.jail", "sqlalchemy"])
def test_while_it_starts(terminal: Terminal, module: str) -> None:
    """No traceback, whatever is being imported."""
    code = INTERRUPTED_IMPORT % module
    done = subprocess.run([sys.executable, "-c", code], env=terminal.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID)


@pytest.mark.parametrize(
    ("module", "name"), [("sqlalchemy.pool.base", "_ConnectionFairy._reset"), ("mcban.cli.main", "_fail")]
)
def test_where_a_command_ends(terminal: Terminal, module: str, name: str) -> None:
    """Where a connection is put back, or while an error is told: no library says more of it, and it is one line."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_CALL % {"module": module, "name": name}],
        env=terminal.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID)


def test_a_note_is_looked_at_when_it_is_over() -> None:
    """What is held is done to its end; the second Ctrl-C does not wait."""
    interrupt, done = Interrupt(), []
    interrupt.listen()
    with pytest.raises(KeyboardInterrupt), interrupt:
        signal.raise_signal(signal.SIGINT)
        done.append("held")
    with pytest.raises(KeyboardInterrupt), interrupt:
        signal.raise_signal(signal.SIGINT)
        done.append("looked")
        interrupt.look()
    with pytest.raises(KeyboardInterrupt), interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with interrupt:
        interrupt.look()
    assert done == ["held", "looked"]


def test_where_nobody_would_hear_of_it_it_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    """Python drops what is raised while it takes an object apart; nothing of that is shown, and Ctrl-C ends the command
    all the same."""

    class Late:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            gone.append(True)

    gone: list[bool] = []
    Interrupt().listen()
    with pytest.raises(KeyboardInterrupt):  # it comes with either of them
        Late()
        time.sleep(PATIENCE)
    assert not gone
    assert capfd.readouterr() == ("", "")


def test_who_ignores_it_goes_on() -> None:
    """What a shell has put into the background is not stopped by the keyboard."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Interrupt().listen()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_no_match_of_a_block_is_lost_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the lines are searched, from within what a library calls: the block is matched to its end."""
    interrupt = Interrupt()
    interrupt.listen()
    monkeypatch.setattr("mcban.cli.output.interrupt", interrupt)
    line = b"Nov 22 10:00:00 h sshd[1]: Failed password for root from 203.0.113.7 port 22 ssh2\n"
    log = tmp_path / "auth.log"
    log.write_bytes(line * 10_000)
    scanner = Scanner([load_filter("mc-sshd-filter", (shipped("etc") / "filter.d",))])
    alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        blocks = read_blocks(str(log))
        block = next(blocks)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        hits = len(scanner.scan(block, 0))
        while not interrupt._noted:  # the alarm is late
            time.sleep(0.001)
        with pytest.raises(KeyboardInterrupt):
            next(blocks)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
    assert hits == block.count(b"\n") > 1


@pytest.mark.parametrize("typed", [("replay", "-j", "mc-ssh"), ("filter", "test", "mc-sshd-filter")])
def test_while_it_waits_for_more(terminal: Terminal, typed: tuple[str, ...]) -> None:
    """A log that says nothing is left at once."""
    pipe = terminal.folder / "quiet"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [MCBAN, *typed, str(pipe)], env=terminal.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with pipe.open("wb", buffering=0):  # it has opened it
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, SAID)
