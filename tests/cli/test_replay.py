"""`replay --maxretry`, archives, and the line that tells how far a long reading has come."""

from __future__ import annotations

import fcntl
import gzip
import json
import lzma
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.logs import failure, write_log
from tests.cli.terminal import MCBAN, Terminal
from tests.patience import PATIENCE, until

TIERS = ["mc-exim-1d", "mc-exim-1w", "mc-exim-1m", "mc-exim-1y", "mc-exim-bl"]


def login(ip: str) -> str:
    """A customer of that address sends a message."""
    now = datetime.now()  # noqa: DTZ005  # exim logs local time
    return f"{now:%Y-%m-%d %H:%M:%S} 1tE0ab-000001-2F <= b@example.org H=(pc) [{ip}]:9 P=esmtpsa A=plain:bob S=8\n"


def effects(column: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What a column of the preview says of each jail."""
    return {one["jail"]: (one["held"], one["kept_out"]) for one in column["jails"]}


def test_a_preview_is_what_each_threshold_would_do(terminal: Terminal) -> None:
    """Each column is what `replay` says after `jail change` to that number, and what is kept out are the hits between
    a ban's beginning and its end."""
    log = write_log(terminal.folder / "x.log", over=timedelta(days=30))
    seen = terminal.json("replay", "-j", "mc-exim", "--maxretry", "8,2,5", str(log))
    assert [column["maxretry"] for column in seen["thresholds"]] == [8, 2, 5]
    hits = [json.loads(line) for line in terminal.does("filter", "test", "mc-exim-filter", str(log), "--json")]
    assert seen["hits"] == len(hits)
    for column in seen["thresholds"]:
        terminal.does("jail", "change", "-j", "mc-exim", "--option", "maxretry", "-v", str(column["maxretry"]))
        bans = terminal.json("replay", "-j", "mc-exim", str(log))["bans"]
        held = {jail: len({ban["ip"] for ban in bans if ban["jail"] == jail}) for jail in TIERS}
        kept: Counter[str] = Counter()
        any_kept = set()
        for ban in bans:
            for n, hit in enumerate(hits):
                until = ban["until"] or "9999"
                if hit["ip"] == ban["ip"] and ban["at"] < hit["time"] < until:
                    kept[ban["jail"]] += 1
                    any_kept.add(n)
        assert effects(column) == {jail: (held[jail], kept[jail]) for jail in TIERS}
        assert column["together"]["held"] == len({ban["ip"] for ban in bans})
        assert column["together"]["kept_out"] == len(any_kept)
    assert seen["thresholds"][1]["together"]["held"] > seen["thresholds"][0]["together"]["held"] > 0


def test_customers_among_the_banned_are_told(terminal: Terminal) -> None:
    """Who failed often enough and also logged in, before or after, is likely a customer; who only logged in, or only
    failed, is not."""
    text = login("203.0.113.1") + failure("203.0.113.1") * 5 + failure("203.0.113.2") * 9 + login("203.0.113.3")
    log = terminal.write("x.log", text + failure("203.0.113.3") * 3)
    seen = terminal.json("replay", "-j", "mc-exim", "--maxretry", "3,5,6", str(log))
    assert seen["logins"] == 2
    assert [column["together"]["customers"] for column in seen["thresholds"]] == [
        ["203.0.113.1", "203.0.113.3"],
        ["203.0.113.1"],
        [],
    ]
    assert [one["customers"] for one in seen["thresholds"][1]["jails"]] == [["203.0.113.1"], [], [], [], []]
    shown = terminal.does("replay", "-j", "mc-exim", "--maxretry", "3,5,6", str(log))
    assert "likely customer 203.0.113.1: held with 3, 5" in shown
    assert "likely customer 203.0.113.3: held with 3" in shown


def test_a_preview_is_read_at_eighty_columns(terminal: Terminal) -> None:
    """Whatever the numbers, no line of the table is too long; more columns than fit go below."""
    log = terminal.write("x.log", failure("203.0.113.1") * 30)
    numbers = [str(1_000_000 - n) for n in range(18)] + ["4", "5"]
    lines = terminal.does("replay", "-j", "mc-exim", "--maxretry", ",".join(numbers), str(log))
    assert max(map(len, lines)) <= 80
    heads = [line.split()[1:] for line in lines if line.startswith("maxretry")]
    assert [number for head in heads for number in head] == numbers
    assert [line.split() for line in lines if line.startswith("  together")][-2] == ["together", *["0"] * 3, "26", "25"]


def test_a_custom_jail_has_one_row(terminal: Terminal) -> None:
    """A jail that stands alone keeps its look-back and ban; only its number is tried."""
    log = terminal.write("x.log", failure("203.0.113.1") * 5)
    typed = "jail add -j mine --filter mc-exim-filter --logpath /x --port 25 --maxretry 9 --max-count 0"
    terminal.does(*typed.split())
    seen = terminal.json("replay", "-j", "mine", "--maxretry", "5,6", str(log))
    assert [effects(column) for column in seen["thresholds"]] == [{"mine": (1, 0)}, {"mine": (0, 0)}]
    lines = terminal.does("replay", "-j", "mine", "--maxretry", "5,6", str(log))
    assert lines[2].split() == ["mine", "1", "0"]


def test_without_a_successregex_nothing_is_said_of_customers(terminal: Terminal) -> None:
    """Not known is not nought: the filter is named that lacks the rule."""
    log = terminal.write("x.log", "")
    seen = terminal.json("replay", "-j", "mc-webauth", "--maxretry", "5", str(log))
    assert seen["logins"] is None
    assert seen["thresholds"][0]["together"]["customers"] is None
    lines = terminal.does("replay", "-j", "mc-webauth", "--maxretry", "5", str(log))
    assert "filter mc-webauth-filter has no successregex" in lines[-1]
    assert not any(line.startswith("likely customers  ") for line in lines)


def test_the_whitelist_holds_in_a_preview(terminal: Terminal) -> None:
    """Whom the database allows is held by no threshold."""
    log = terminal.write("x.log", failure("203.0.113.7") * 20)
    terminal.does("whitelist", "add", "-j", "mc-exim", "-i", "203.0.113.0/24")
    seen = terminal.json("replay", "-j", "mc-exim", "--maxretry", "1", str(log))
    assert seen["thresholds"][0]["together"] == {"held": 0, "kept_out": 0, "customers": []}


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ("0", "'0' is no whole number from 1"),
        ("-3", "'-3' is no whole number"),
        ("5,5", "5 is there twice"),
        ("abc", "'abc' is no whole number"),
        ("4,,5", "'' is no whole number"),
        ("", "'' is no whole number"),
        ("4;5", "is no whole number"),
        ("\u0665", "is no whole number"),
        ("9" * 5000, "is no whole number"),
        (",".join(map(str, range(1, 1001))), "1000 numbers; 20 are tried at once"),
    ],
    ids=lambda text: text[:10],
)
def test_odd_thresholds_are_wrong_usage(terminal: Terminal, numbers: str, why: str) -> None:
    """One line says which number is none."""
    assert why in terminal.refuses(2, "replay", "-j", "mc-exim", "--maxretry", numbers, "/dev/null")


def test_a_preview_wants_a_group(terminal: Terminal) -> None:
    """A number makes a whole ladder: one tier, or the blacklist, cannot be tried by itself."""
    for jail in ("mc-exim-1w", "mc-exim-bl"):
        assert "say -j mc-exim" in terminal.refuses(2, "replay", "-j", jail, "--maxretry", "4", "/dev/null")


# Archives


def test_logs_in_the_wrong_order_are_told(terminal: Terminal) -> None:
    """`mainlog*` names the newest log first, and a ladder climbed backwards bans others: that is said, as is a log that
    is named twice; the oldest first, or logs that overlap, are nothing to speak of."""
    lines = write_log(terminal.folder / "x.log", over=timedelta(days=3)).read_text().splitlines(keepends=True)
    older, newer = terminal.folder / "mainlog.1", terminal.folder / "mainlog"
    older.write_text("".join(lines[: len(lines) // 2]))
    newer.write_text("".join(lines[len(lines) // 2 :]))
    for more in ([], ["--maxretry", "4"]):
        told = terminal.type("replay", "-j", "mc-exim", *more, str(newer), str(older))
        assert told.status == 0
        assert told.err.count("\n") == 1
        assert f"{older} is older than {newer}, which was read before it" in told.err
        right = terminal.type("replay", "-j", "mc-exim", *more, str(older), str(newer), str(terminal.folder / "x.log"))
        assert (right.status, right.err) == (0, "")
    link = terminal.folder / "again"
    link.symlink_to(newer)
    told = terminal.type("replay", "-j", "mc-exim", str(newer), str(link))
    assert f"{link} is named twice" in told.err


def test_archives_are_replayed_like_the_logs_that_they_were(terminal: Terminal) -> None:
    """Rotated logs, compressed or not, are read one after the other; a broken one gives an error and no answer."""
    log = write_log(terminal.folder / "x.log")
    lines = log.read_bytes().splitlines(keepends=True)
    old = terminal.write("x.log.2.gz", gzip.compress(b"".join(lines[:700])))
    new = terminal.write("x.log.1", lzma.compress(b"".join(lines[700:1500])))
    last = terminal.write("x.log.0", b"".join(lines[1500:]))
    whole = terminal.json("replay", "-j", "mc-exim", str(log))
    assert terminal.json("replay", "-j", "mc-exim", str(old), str(new), str(last)) == whole
    old.write_bytes(old.read_bytes()[:-20])
    for command in ("replay -j mc-exim", "filter test mc-exim-filter"):
        said = terminal.refuses(65, *command.split(), str(old))
        assert "x.log.2.gz is cut short" in said
        assert "gzip -dc" in said


# The line on a terminal


def watched(terminal: Terminal, *typed: str, interrupt: bool = False, feed: bool = True) -> tuple[int, bytes, bytes]:
    """Run a command with standard error on a terminal, fed until it tells how far it is, then interrupted if so wanted:
    exit status, standard output, what the terminal got."""
    master, slave = pty.openpty()
    env = {**terminal.env, "TERM": "xterm"}
    process = subprocess.Popen([MCBAN, *typed], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    assert process.stdin is not None
    block = (failure("203.0.113.7") * 2_000).encode()
    shown = b""
    os.set_blocking(master, False)
    end = time.monotonic() + PATIENCE
    while feed and b"lines/s" not in shown:
        assert time.monotonic() < end
        process.stdin.write(block)
        process.stdin.flush()
        try:
            shown += os.read(master, 1 << 16)
        except OSError:
            time.sleep(0.02)
    if interrupt:
        until(lambda: waits_for_more(process), "all of that to be read")
        process.send_signal(signal.SIGINT)
    process.stdin.close()
    os.set_blocking(master, True)
    with suppress(OSError):  # the terminal's other side is closed: that is the end
        while part := os.read(master, 1 << 16):
            shown += part
    os.close(master)
    assert process.stdout is not None
    out = process.stdout.read()
    status = process.wait(PATIENCE)
    return status, out, shown


def waits_for_more(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has read all that was written to its standard input, and sleeps."""
    assert process.stdin is not None
    unread = struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)))
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return unread == (0,) and state == "S"


def on_screen(shown: bytes) -> list[str]:
    """What is left to be read on the terminal."""
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    return [line.rpartition("\x1b[K")[2].rpartition("\r")[2] for line in lines]


def test_a_terminal_shows_how_far_it_is(terminal: Terminal) -> None:
    """Bytes and lines a second while it reads, nothing of that afterwards."""
    status, out, shown = watched(terminal, "replay", "-j", "mc-exim", "-")
    assert status == 0
    assert b"kB read, " in shown or b"MB read, " in shown
    assert b"lines/s" in shown
    assert on_screen(shown) == [""]
    assert b"lines/s" not in out
    assert out.startswith(b"AT")


def test_control_c_leaves_a_clean_terminal(terminal: Terminal) -> None:
    """Ctrl-C takes the line away and says one of its own: 130."""
    status, out, shown = watched(terminal, "replay", "-j", "mc-exim", "-", interrupt=True)
    assert (status, out) == (130, b"")
    assert on_screen(shown) == ["mcban: stopped by the keyboard", ""]


def test_json_and_pipes_show_no_progress(terminal: Terminal) -> None:
    """With --json, or where standard error is no terminal, there is nothing but what is asked for."""
    log = write_log(terminal.folder / "x.log", 60_000)
    done = terminal.process("replay", "-j", "mc-exim", str(log))
    assert (done.status, done.err) == (0, "")
    master, slave = pty.openpty()
    try:
        answer = terminal.process(
            "replay", "-j", "mc-exim", str(log), "--json", capture_output=False, stdout=subprocess.PIPE, stderr=slave
        )
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
    finally:
        os.close(slave)
        os.close(master)
    assert answer.document["lines"] == 60_000
