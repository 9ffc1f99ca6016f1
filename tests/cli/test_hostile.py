"""Nothing is ever executed from data: not as SQL, not as a command, not by a terminal; whichever way it comes in."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from mcban.store.database import Database
from mcban.store.tables import METADATA
from tests import original
from tests.cli.terminal import Answer, Terminal, is_clean
from tests.conftest import found

CANARY = "canary"
"""A file that every command among the values below would make."""

VALUES = [
    "'; DROP TABLE fail2ban_ips; --",
    '"; DROP TABLE fail2ban_jail; --',
    "x') ; DELETE FROM fail2ban_jail; --",
    "\\'; DROP TABLE fail2ban_ips; #",
    "; touch {canary}",
    "| touch {canary}",
    "`touch {canary}`",
    "$(touch {canary})",
    "'$(touch {canary})'",
    "\n touch {canary}\n",
    "-A INPUT -j ACCEPT",
    "%(canary)s {0.__class__} %s %n",
    "\x1b]0;owned\x07\x1b[31;1mred\x9b2J\r",
    "../../../../etc/passwd",
]


@pytest.fixture(params=["sqlite", "mariadb"])
def target(request: pytest.FixtureRequest, bare: Terminal) -> Terminal:
    """A terminal on a database of each kind, reading the logs of its own folder."""
    bare.env["MCBAN_DATABASE_URL"] = request.getfixturevalue(f"{request.param}_url")
    bare.read_only_here()
    return bare


@pytest.fixture
def values(target: Terminal) -> list[str]:
    """The values, their commands meant for this test's canary."""
    return [value.replace("{canary}", str(target.folder / CANARY)) for value in VALUES]


def url(target: Terminal) -> str:
    """The database's URL."""
    return target.env["MCBAN_DATABASE_URL"]


def execute(target: Terminal, statement: str, **parameters: object) -> None:
    """Plain SQL with values bound, as anybody's program might write them."""
    database = Database(url(target))
    with database.engine.begin() as connection:
        connection.execute(text(statement), parameters)
    database.dispose()


def typed(target: Terminal, *arguments: str, stdin: bytes = b"") -> Answer:
    """A command; whatever it says, a terminal shows it and does nothing else."""
    answer = target.type(*arguments, stdin=stdin)
    assert is_clean(answer.out), (arguments, answer.out)
    assert is_clean(answer.err), (arguments, answer.err)
    assert "defect" not in answer.err, (arguments, answer.err)
    assert "Traceback" not in answer.err, (arguments, answer.err)
    return answer


LOOKS = [
    ("status",),
    ("status", "--json"),
    ("jail", "list"),
    ("jail", "show", "-j", "mc-exim"),
    ("banned",),
    ("blacklist", "list"),
    ("whitelist", "list"),
    ("show", "203.0.113.7"),
    ("export",),
    ("export", "--whitelist"),
    ("sync",),
    ("jail", "reload"),
]


def stands(target: Terminal) -> None:
    """Every look shows clean text, every table and every shipped jail is there, and no command ran."""
    for look in LOOKS:
        typed(target, *look)
    database = Database(url(target))
    tables = set(inspect(database.engine).get_table_names())
    jails = {row.name for row in database.read(lambda t: t.jails.all())}
    database.dispose()
    assert set(METADATA.tables) <= tables
    assert {"mc-ssh-1d", "mc-exim-1d", "mc-exim-bl", "mc-webauth-1y"} <= jails
    assert not list(target.folder.rglob(CANARY))
    assert not Path(CANARY).exists()


ARGUMENTS = [
    ("ban", "-j", "{}", "-i", "203.0.113.7"),
    ("ban", "-j", "mc-exim", "-i", "{}"),
    ("ban", "-j", "mc-exim", "-i", "203.0.113.7", "--for", "{}"),
    ("unban", "-j", "{}", "-i", "203.0.113.7"),
    ("unban", "-i", "{}"),
    ("whitelist", "add", "-i", "{}"),
    ("whitelist", "add", "-j", "{}", "-i", "203.0.113.7"),
    ("whitelist", "remove", "-i", "{}"),
    ("blacklist", "add", "-j", "{}", "-i", "203.0.113.7"),
    ("blacklist", "enable", "-j", "mc-exim", "-v", "{}"),
    ("jail", "add", "-j", "{}", "--filter", "mc-exim-filter", "--logpath", "/x", "--port", "25"),
    ("jail", "add", "-j", "bad-filter", "--filter", "{}", "--logpath", "/x", "--port", "25"),
    ("jail", "add", "-j", "bad-port", "--filter", "mc-exim-filter", "--logpath", "/x", "--port", "{}"),
    ("jail", "add", "-j", "bad-log", "--filter", "mc-exim-filter", "--logpath", "{}", "--port", "25"),
    ("jail", "change", "-j", "mc-exim", "--option", "banaction", "-v", "{}"),
    ("jail", "change", "-j", "mc-exim", "--option", "logtimezone", "-v", "{}"),
    ("jail", "change", "-j", "mc-exim", "--option", "{}", "-v", "1"),
    ("jail", "remove", "-j", "{}"),
    ("show", "{}"),
    ("banned", "-j", "{}"),
    ("filter", "show", "{}"),
    ("filter", "test", "{}", "{}"),
    ("import", "-j", "{}", "/dev/null"),
    ("import", "-j", "mc-exim", "{}"),
    ("export", "-j", "{}"),
    ("replay", "-j", "{}", "{}"),
    ("db", "adopt", "--from", "{}"),
    ("{}",),
]


def test_arguments(target: Terminal, values: list[str]) -> None:
    """Whatever is typed for a jail, an address, a duration, an option, a file, a filter or a URL is but text."""
    # What is typed rarely comes to a server: each command gets some of the values there, and each value some commands.
    every = 4 if url(target).startswith("mysql") else 2
    for (n, arguments), (m, value) in product(enumerate(ARGUMENTS), enumerate(values)):
        if (n + m) % every == 0:
            typed(target, *(word.replace("{}", value) for word in arguments))
    stands(target)


def test_rows_of_sql(target: Terminal, values: list[str]) -> None:
    """Whatever stands in a column that somebody may write into is but text when it is read, judged and enforced."""
    jail = {"name": "odd", "port": "25", "filter": "mc-exim-filter", "banaction": "mc-custom", "logpath": "/nowhere"}
    statement = (
        "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
        " max_count, escalate, logtimezone)"
        " VALUES (1, :name, 3, 600, 3600, :port, :filter, :banaction, :logpath, 3, :escalate, :logtimezone)"
    )
    for n, value in enumerate(values):
        for column in [*jail, *jail][n % 5 : n % 5 + 2]:
            row = jail | {"name": f"odd{n}{column[:3]}"} | {column: value}
            execute(target, statement, **row, escalate=n % 2, logtimezone=value[:64] if n % 3 == 0 else "")
        for m, (ip, where) in enumerate(((value, "mc-exim-1d"), (f"203.0.113.{n}", value), (value, value))):
            execute(
                target,
                "INSERT INTO fail2ban_ips (ip, jail, count, active, whitelisted, host, reason)"
                " VALUES (:ip, :jail, 1, 1, :white, :host, :reason)",
                ip=ip,
                jail=where,
                white=(n + m) % 2,
                host=value,
                reason=value,
            )
        execute(
            target,
            "INSERT INTO fail2ban_ips (ip, jail, count, host, reason) VALUES (:ip, 'mc-exim-1d', 1, :text, :text)",
            ip=f"203.0.113.{100 + n}",
            text=value,
        )
        execute(
            target,
            "INSERT INTO fail2ban_conf (src_email, src_name, dest_email, chain) VALUES (:t, :t, :t, :t)",
            t=value,
        )
    enforced = {"MCBAN_FIREWALL": "ipset"} if os.geteuid() == 0 and found("ipset") else {}
    target.env |= enforced
    done = target.process("run", "--once", before=("unshare", "-n") if enforced else ())
    target.env["MCBAN_FIREWALL"] = "memory"
    assert done.status in {0, 65}, done.err
    assert is_clean(done.err), done.err
    assert "defect" not in done.err, done.err
    for n in range(len(values)):
        typed(target, "show", f"203.0.113.{100 + n}")
    typed(target, "unban", "-i", "203.0.113.101")
    stands(target)


def test_lines_of_logs(target: Terminal, values: list[str]) -> None:
    """A login name is whatever an attacker types; it is kept, and shown as what it is."""
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"  # noqa: DTZ005  # exim logs local time
    line = "{} login authenticator failed for ({}) [203.0.113.7]: 535 Incorrect authentication data (set_id={})\n"
    lines = [line.format(now, "h", value.replace("\n", " ")) for value in values]
    lines += [line.format(now, value.replace("\n", " "), "x") for value in values]
    target.write("mc-exim.log", "".join(lines))
    done = target.process("run", "--once")
    assert done.status == 0, done.err
    assert is_clean(done.err)
    shown = typed(target, "show", "203.0.113.7").out
    assert "$(touch " in shown, shown
    stands(target)


def test_imported_files(target: Terminal, values: list[str]) -> None:
    """Neither a list, nor its name, nor a database of fail2ban's brings in more than addresses."""
    for value in values:
        for options in ((), ("--whitelist",), ("--skip-bad",)):
            typed(target, "import", "-j", "mc-exim-1d", *options, "-", stdin=f"{value}\n9.9.9.9 # {value}\n".encode())
    typed(
        target, "import", "-j", "mc-exim-1d", str(target.write("'; DROP TABLE fail2ban_ips; --\x1b[31m", "9.9.9.8\n"))
    )
    file = target.folder / "fail2ban.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE fail2banDb(version INTEGER)")
        connection.execute(
            "CREATE TABLE bips(ip TEXT, jail TEXT, timeofban INTEGER, bantime INTEGER, bancount INTEGER)"
        )
        for n, value in enumerate(values):
            connection.execute("INSERT INTO bips VALUES (?, 'sshd', 1, -1, 1)", (value,))
            connection.execute("INSERT INTO bips VALUES (?, ?, 1, -1, ?)", (f"203.0.113.{n}", value, value))
    connection.close()
    for value in values:
        typed(target, "import", "-j", f"{value}=mc-ssh-1d", "-j", "sshd=mc-ssh-1d", str(file))
        typed(target, "import", "-j", f"sshd={value}", str(file))
    typed(target, "show", "203.0.113.1")
    stands(target)


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_a_database_of_the_original(request: pytest.FixtureRequest, bare: Terminal, kind: str) -> None:
    """It is taken over with whatever stands in its columns, which is but text."""
    bare.env["MCBAN_DATABASE_URL"] = request.getfixturevalue(f"empty_{kind}")
    original.make(url(bare), "DEFAULT CHARSET=utf8mb4")
    values = [value.replace("{canary}", str(bare.folder / CANARY)) for value in VALUES]
    for value in values:
        cut = value[:20]
        for ip, jail, white in ((value, "mc-exim-1d", 0), (value, cut, 1), ("203.0.113.9", cut, 0)):
            original.add(url(bare), (ip, jail, 1, 1, 0, white, None))
        execute(
            bare,
            "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
            " max_count) VALUES (1, :name, 3, 600, 3600, :text, :text, :text, :name, 1)",
            name=value,
            text=value[:50],
        )
    execute(bare, "UPDATE fail2ban_conf SET src_name = :text", text=values[0])
    for options in (("--check",), (), ()):
        assert typed(bare, "db", "adopt", *options).status == 0
    done = bare.process("run", "--once")
    assert is_clean(done.err), done.err
    for look in LOOKS:
        typed(bare, *look)
    assert not list(bare.folder.rglob(CANARY))
    database = Database(url(bare))
    assert set(METADATA.tables) <= set(inspect(database.engine).get_table_names())
    database.dispose()
