"""`mcban import` and `mcban export`: lists, fail2ban's own database, and what comes back."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import MCBAN, Terminal
from tests.fail2ban_package import MODULES
from tests.patience import PATIENCE, until

LIST = b"\xef\xbb\xbf# bad people\r\n203.0.113.7\r\n2001:DB8::1 ; who\n198.51.100.9/24\n203.0.113.7\n"
ENTRIES = ["203.0.113.7", "2001:db8::1", "198.51.100.0/24"]


def test_a_list_goes_in_and_comes_out(terminal: Terminal) -> None:
    """As long as asked; a second time it is so already, and the count is not raised."""
    file = str(terminal.write("bad.txt", LIST))
    assert terminal.does("import", "-j", "mc-exim-1d", "--for", "30d", file) == ["3 banned in mc-exim-1d"]
    assert terminal.does("import", "-j", "mc-exim-1d", "--for", "30d", file) == ["3 banned in mc-exim-1d already"]
    bans = terminal.json("banned")
    assert [(ban["ip"], ban["count"], ban["reason"]) for ban in bans] == [
        (e, 1, "imported from bad.txt") for e in ENTRIES
    ]
    assert terminal.does("export", "-j", "mc-exim-1d") == ENTRIES
    assert terminal.does("import", "-j", "mc-exim-1d", "--for", "60d", file) == ["3 renewed in mc-exim-1d"]
    (terminal.folder / "again.txt").write_text("\n".join(terminal.does("export")))
    terminal.does("import", "-j", "mc-ssh-bl", str(terminal.folder / "again.txt"))
    assert sorted(terminal.does("export", "-j", "mc-ssh-bl")) == sorted(ENTRIES)
    assert [row["until"] for row in terminal.json("export", "-j", "mc-ssh-bl")] == [None] * 3
    assert terminal.does("export") == ENTRIES
    assert len(terminal.json("export")) == 6


def test_a_group_means_all_of_its_tiers(terminal: Terminal) -> None:
    """As with every command; each for its own time."""
    file = str(terminal.write("bad.txt", b"9.9.9.9\n"))
    assert terminal.does("import", "-j", "mc-exim", file) == [
        f"1 banned in mc-exim-{suffix}" for suffix in ("1d", "1w", "1m", "1y")
    ]
    assert terminal.does("export", "-j", "mc-exim") == ["9.9.9.9"]


def test_bad_lines_are_told_and_nothing_is_written(terminal: Terminal) -> None:
    """By number, with 65; --skip-bad takes the rest. From a pipe, too."""
    content = b"9.9.9.9\n1.2.3.4-1.2.3.9\nfoo\x1b[31m\n"
    file = str(terminal.write("mixed.txt", content))
    before = terminal.dump()
    answer = terminal.type("import", "-j", "mc-exim-1d", file)
    assert (answer.status, answer.out, terminal.dump()) == (65, "", before)
    assert [line.partition(": ")[2].partition(" ")[0] for line in answer.err.splitlines()] == [
        f"{file}:2:",
        f"{file}:3:",
        f"{file}:",
    ]
    assert "foo\\x1b[31m" in answer.err
    assert "\x1b" not in answer.err
    answer = terminal.type("import", "-j", "mc-exim-1d", "--skip-bad", "-", stdin=content)
    assert (answer.status, answer.out) == (0, "1 banned in mc-exim-1d\n")
    assert answer.err.startswith("mcban: standard input:2: ")


def test_what_is_allowed_or_protected_is_skipped_and_said(terminal: Terminal) -> None:
    """And networks that hold such an address; wide ones want --yes; nobody bans himself."""
    terminal.does("whitelist", "add", "-j", "mc-exim", "-i", "192.0.2.77")
    terminal.env["SSH_CONNECTION"] = "203.0.113.9 50000 203.0.113.1 22"
    file = str(terminal.write("bad.txt", b"192.0.2.77\n192.0.2.0/24\n127.0.0.1\n203.0.113.0/24\n9.9.9.9\n"))
    lines = terminal.does("import", "-j", "mc-exim-1d", file)
    assert lines[0] == "1 banned in mc-exim-1d"
    assert {line.split()[1] for line in lines[1:]} == {"192.0.2.77:", "192.0.2.0/24:", "127.0.0.1:", "203.0.113.0/24:"}
    assert terminal.does("export") == ["9.9.9.9"]
    wide = str(terminal.write("wide.txt", b"10.0.0.0/8\n"))
    assert "wider than /16: say --yes" in terminal.refuses(3, "import", "-j", "mc-exim-1d", wide)
    assert terminal.does("import", "-j", "mc-exim-1d", "--yes", wide) == ["1 banned in mc-exim-1d"]


def test_a_whitelist_goes_in_and_lifts(terminal: Terminal) -> None:
    """Addresses, networks, names; what it covers is let in at once; and it comes out again."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "192.0.2.77")
    file = str(terminal.write("good.txt", b"192.0.2.0/24\nmail.example.com\n"))
    assert terminal.does("import", "--whitelist", file) == ["2 allowed everywhere", "1 ban lifted"]
    assert terminal.does("import", "--whitelist", file) == ["2 allowed everywhere already"]
    assert terminal.does("export") == []
    assert terminal.does("export", "--whitelist") == ["192.0.2.0/24", "mail.example.com"]
    assert terminal.json("export", "--whitelist")[0] == {"ip": "192.0.2.0/24", "jail": "*"}
    everybody = str(terminal.write("all.txt", b"0.0.0.0/0\n"))
    answer = terminal.type("import", "--whitelist", everybody)
    assert (answer.status, answer.out) == (65, "")


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        (["import", "bad.txt"], 2, "name it with -j JAIL"),
        (["import", "-j", "mc-exim", "-j", "mc-ssh", "bad.txt"], 2, "a list goes to one jail"),
        (["import", "-j", "nope", "bad.txt"], 2, "there is no jail nope"),
        (["import", "-j", "mc-exim", "--for", "soon", "bad.txt"], 2, "is not a duration"),
        (["import", "-j", "mc-exim", "no such file"], 65, "there is no such file"),
        (["import", "-j", "mc-exim", "."], 65, "cannot read"),
        (["import", "-j", "mc-exim", ""], 2, "the name of the file is empty"),
        (["import", "--whitelist", "--for", "3h", "bad.txt"], 2, "--for is for bans"),
        (["export", "-j", "nope"], 2, "there is no jail nope"),
    ],
)
def test_wrong_usage_is_one_line(terminal: Terminal, typed: list[str], status: int, said: str) -> None:
    """With its exit status, and nothing changed."""
    terminal.write("bad.txt", LIST)
    typed = [str(terminal.folder / word) if word.endswith("bad.txt") else word for word in typed]
    assert said in terminal.refuses(status, *typed)


def test_what_another_command_writes_is_read_whole(terminal: Terminal) -> None:
    """`mcban import -j JAIL <(…)`, or /dev/stdin: nothing that a pipe gave is lost by looking what it is."""
    end, other = os.pipe()
    try:
        os.write(other, LIST)
    finally:
        os.close(other)
    try:
        assert terminal.does("import", "-j", "mc-exim-1d", f"/dev/fd/{end}") == ["3 banned in mc-exim-1d"]
    finally:
        os.close(end)


def test_export_to_a_pipe_that_closes(terminal: Terminal) -> None:
    """`mcban export | head -1` ends quietly, with 0."""
    file = str(terminal.write("many.txt", "".join(f"10.{i >> 8}.{i & 255}.1\n" for i in range(7_000))))
    assert terminal.does("import", "-j", "mc-exim-1d", file) == ["7000 banned in mc-exim-1d"]
    for options in ("", "--json"):
        script = f"{{ {shlex.quote(MCBAN)} export {options}; echo $? >&2; }} | head -n 1"
        done = subprocess.run(["sh", "-c", script], env=terminal.env, capture_output=True, text=True, check=True)
        assert (done.stderr, done.stdout.count("\n")) == ("0\n", 1)


Ban = tuple[str, str, int, int, int]


@pytest.fixture
def fail2ban(package: Path, terminal: Terminal) -> Callable[..., Any]:
    """Writes a database with fail2ban's own module, and holds it open for as long as the context lasts."""

    @contextmanager
    def write(bans: list[Ban], name: str = "fail2ban.sqlite3") -> Iterator[str]:
        file = str(terminal.folder / name)
        program = [sys.executable, str(Path(__file__).parents[1] / "fail2ban_db.py")]
        env = {**os.environ, "PYTHONPATH": str((package / MODULES).parent)}
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"file": file, "bans": bans, "run": True}) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            yield file

    return write


def test_bans_of_fail2ban_that_run_come_over(terminal: Terminal, fail2ban: Callable[..., Any]) -> None:
    """With their ends, while fail2ban has the file open; what is over leaves its count; a second time it is so."""
    now = int(time.time())
    bans: list[Ban] = [
        ("sshd", "203.0.113.7", now - 100, 3600, 4),
        ("sshd", "2001:db8::1", now - 100, -1, 1),
        ("sshd", "198.51.100.0/24", now - 100, 86400, 2),
        ("sshd", "192.0.2.5", now - 9000, 3600, 7),
        ("sshd", "127.0.0.1", now - 100, 3600, 1),
        ("sshd", "some-session-id\x1b[31m", now - 100, 3600, 1),
        ("dovecot", "203.0.113.8", now - 100, 3600, 1),
        ("second try", "203.0.113.9", now - 100, 3600, 1),
        ("mc-exim-1d", "203.0.113.10", now - 100, -2, 1),
    ]
    with fail2ban(bans) as file:
        before = Path(file).read_bytes()
        answer = terminal.type("import", "-j", "sshd=mc-ssh-1d", "-j", "dovecot=", file)
        assert Path(file).read_bytes() == before
    assert answer.status == 1
    assert "1 of fail2ban's jail second try not taken over: there is no jail of that name here" in answer.err
    assert "-j 'second try'=JAIL names one, -j 'second try'= leaves it out" in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out.splitlines() == [
        "3 banned in mc-ssh-1d",
        "1 banned in mc-exim-1d",
        "1 without a ban: count kept in mc-ssh-1d",
        "skipped 127.0.0.1: 127.0.0.0/8 is allowed in mc-ssh-1d (loopback)",
        "1 of dovecot left out, as asked",
        "1 of sshd are no address or network that can be banned: 'some-session-id\\x1b[31m'",
    ]
    rows = {ip: row for ip, *row in terminal.sql("SELECT ip, count, active, strftime('%s', until) FROM fail2ban_ips")}
    assert rows["203.0.113.7"] == [4, 1, str(now - 100 + 3600)]
    assert rows["198.51.100.0/24"] == [2, 1, str(now - 100 + 86400)]
    assert rows["192.0.2.5"][:2] == [7, 0]
    assert rows["203.0.113.10"] == [1, 1, str(now - 100 + 86400)]
    assert [b["until"] for b in terminal.json("banned") if b["ip"] == "2001:db8::1"] == [None]
    again = terminal.type("import", "-j", "sshd=mc-ssh-1d", "-j", "dovecot=", "-j", "second try=", file)
    assert (again.status, again.err) == (0, "")
    assert again.out.splitlines()[:2] == ["3 banned in mc-ssh-1d already", "1 banned in mc-exim-1d already"]
    assert "imported from fail2ban's sshd" in "".join(terminal.does("show", "203.0.113.7"))


def test_older_databases_and_one_in_wal_mode(terminal: Terminal) -> None:
    """Versions 2 and 3 have no bips, version 2 no length of a ban: then the jail's own counts."""
    now = int(time.time())
    for version, columns, values in (
        (2, "jail TEXT, ip TEXT, timeofban INTEGER, data JSON", "?, ?, ?, '{}'"),
        (
            3,
            "jail TEXT, ip TEXT, timeofban INTEGER, bantime INTEGER, bancount INTEGER, data JSON",
            "?, ?, ?, 3600, 1, '{}'",
        ),
    ):
        file = terminal.folder / f"v{version}.sqlite3"
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE fail2banDb(version INTEGER)")
            connection.execute("INSERT INTO fail2banDb VALUES (?)", (version,))
            connection.execute(f"CREATE TABLE bans({columns})")
            for at in (now - 5000, now - 100):
                connection.execute(f"INSERT INTO bans VALUES ({values})", ("sshd", f"203.0.113.{version}", at))
            connection.commit()
            assert terminal.does("import", "-j", "sshd=mc-ssh-1d", str(file)) == ["1 banned in mc-ssh-1d"]
        connection.close()
    ends = {row["ip"]: row["until"] for row in terminal.json("export")}
    stamp = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 100 + length)) for length in (86400, 3600)]
    assert ends == {"203.0.113.2": stamp[0], "203.0.113.3": stamp[1]}


def test_a_file_that_cannot_be_read_is_one_line(terminal: Terminal, fail2ban: Callable[..., Any]) -> None:
    """Damaged, cut short, something else, a mapping that cannot be: nothing is changed."""
    bans: list[Ban] = [("sshd", f"10.0.{n >> 8}.{n & 255}", 1, -1, 1) for n in range(3000)]
    with fail2ban(bans) as file:
        good = Path(file).read_bytes()
    for name, content in (("cut", good[: len(good) // 2]), ("holes", good[:4096] + bytes(len(good) - 4096))):
        bad = str(terminal.write(name, content))
        assert "is damaged" in terminal.refuses(65, "import", "-j", "sshd=mc-ssh-1d", bad)
    assert "not fail2ban's" in terminal.refuses(65, "import", str(terminal.database))
    assert "has no jail ssh: there are sshd" in terminal.refuses(2, "import", "-j", "ssh=mc-ssh-1d", file)
    assert "write fail2ban's jail and ours" in terminal.refuses(2, "import", "-j", "mc-ssh", file)
    assert "there is no jail nope" in terminal.refuses(2, "import", "-j", "sshd=nope", file)
    assert "given twice" in terminal.refuses(2, "import", "-j", "sshd=mc-ssh-1d", "-j", "sshd=mc-ssh-bl", file)
    assert "are for lists" in terminal.refuses(2, "import", "--for", "3h", file)


def test_control_c_in_the_midst_is_one_line_and_can_be_done_again(terminal: Terminal) -> None:
    """What was written stays, and the next time the rest comes."""
    file = str(
        terminal.write("many.txt", "".join(f"10.{i >> 16}.{(i >> 8) & 255}.{i & 255}\n" for i in range(1, 40_001)))
    )
    process = subprocess.Popen(
        [MCBAN, "import", "-j", "mc-exim-1d", file],
        env=terminal.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # a build may ignore it
    )
    until(lambda: terminal.sql("SELECT 1 FROM fail2ban_ips LIMIT 1"), "the first of it")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    if process.returncode:  # it may have come to its end just before
        assert (process.returncode, out, err) == (130, b"", b"mcban: stopped by the keyboard\n")
    terminal.does("import", "-j", "mc-exim-1d", file)
    assert terminal.sql("SELECT COUNT(*), SUM(count) FROM fail2ban_ips WHERE active") == [(40_000, 40_000)]
