"""`filter`, as it is typed."""

from __future__ import annotations

import json

import pytest

from tests.cli.logs import failure
from tests.cli.terminal import Terminal


def test_a_hit_is_one_json_line(bare: Terminal) -> None:
    """`filter test --json` has line (from 1), time, ip, user and rule for each hit, across blocks, and nothing else."""
    filler = "2026-09-21 12:00:00 nothing here\n" * 50_000
    log = bare.write("x.log", failure("203.0.113.7") + filler + failure("2001:db8::7") + "bad \xff\n" + failure("::1"))
    answer = bare.type("filter", "test", "mc-exim-filter", str(log), "--json")
    hits = [json.loads(line) for line in answer.lines]
    assert all(hit.keys() == {"line", "time", "ip", "user", "rule"} for hit in hits)
    assert [(hit["line"], hit["ip"]) for hit in hits] == [(1, "203.0.113.7"), (50_002, "2001:db8::7"), (50_004, "::1")]
    assert all(hit["time"].endswith("Z") and hit["user"] is None and hit["rule"] >= 1 for hit in hits)


def test_a_person_sees_rules_and_what_was_missed(bare: Terminal) -> None:
    """Without --json: hits by rule, a sum, and the first lines that were no hit, safe for a terminal."""
    answer = bare.type(
        "filter", "test", "mc-exim-filter", "-", stdin=b"\x1b[31mjunk\xff\n" + failure("1.2.3.4").encode()
    )
    assert answer.status == 0
    assert "2 lines, 1 hit, 1 other" in answer.lines
    assert answer.lines[-1].startswith("no hit: \\x1b[31mjunk")


def test_filters_are_listed_and_shown(bare: Terminal) -> None:
    """`filter list` names each filter and its file, `show` its rules; a path works as well as a name."""
    files = {one["name"]: one["path"] for one in bare.json("filter", "list")}
    assert {"mc-exim-filter", "mc-sshd-filter", "mc-webauth-filter"} <= files.keys()
    shown = bare.json("filter", "show", "mc-sshd-filter")
    assert shown["name"] == "mc-sshd-filter"
    assert [rule["rule"] for rule in shown["rules"]] == list(range(1, len(shown["rules"]) + 1))
    assert bare.json("filter", "show", files["mc-sshd-filter"]) == shown
    assert bare.does("filter", "show", "mc-sshd-filter")[0] == f"mc-sshd-filter: {files['mc-sshd-filter']}"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[Definition]\nfailregex = ^(unclosed <HOST>\n", "does not compile"),
        ("[Definition]\nfailregex = ^\x1b[31m(<HOST>\n", "does not compile"),
        ("[Definition]\nfailregex = ^foo$\n", "<HOST>"),
        ("[Definition]\n", "no failregex"),
        ("text", "cannot be read"),
        (b"\xff\xfe\0", "cannot be read"),
        ("[Definition]\nfailregex = %(nothing)s <HOST>\n", "defined nowhere"),
    ],
)
def test_a_filter_that_does_not_compile(terminal: Terminal, content: str | bytes, why: str) -> None:
    """It is bad data wherever it is named: shown, tested, given to a new jail or to one that is there, replayed."""
    file = terminal.write("filters/mine.conf", content)
    terminal.env["MCBAN_FILTER_PATH"] = f"{file.parent}:{terminal.json('filter', 'list')[0]['path'].rsplit('/', 1)[0]}"
    for typed in (
        "filter show mine",
        "filter test mine /dev/null",
        "jail add -j new --filter mine --logpath /x --port 1",
        "jail change -j mc-exim --option filter -v mine",
    ):
        assert why in terminal.refuses(65, *typed.split())
    terminal.sql("UPDATE fail2ban_jail SET filter = 'mine' WHERE name LIKE 'mc-exim-%'")
    assert why in terminal.refuses(65, "replay", "-j", "mc-exim", "/dev/null")
    assert why in terminal.json("status", status=1)["faults"][0]["why"]


@pytest.mark.parametrize(
    "name", ["nope", "", "../x", "/etc/passwd", "mc-exim-filter[", "\x1b[31m", "\udcff", "x" * 10_000]
)
def test_a_filter_that_there_is_not(bare: Terminal, name: str) -> None:
    """It is bad data, and the folders that were looked into, or the nearest name, are told."""
    bare.refuses(65, "filter", "show", name)
    assert "did you mean mc-exim-filter?" in bare.refuses(65, "filter", "show", "mc-exim-filer")
