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


MINE = """[Definition]
prefregex = ^ \\S+ mine: <F-CONTENT>.+</F-CONTENT>$
failregex = ^failed for <F-USER>\\S+</F-USER> from <HOST>$
            ^refused <HOST>$
ignoreregex = ^failed for monitor
              ^refused 192\\.0\\.2\\.99$
"""
LINES = """Nov 22 12:00:00 mail mine: failed for bob from 192.0.2.1
Nov 22 12:00:01 mail mine: failed for monitor from 192.0.2.2
Nov 22 12:00:02 mail mine: refused evil.example.org
2026-11-22 12:00:03 mail mine: refused 192.0.2.3
Nov 22 12:00:04 mail mine: quite \x1b[31manother thing
Nov 22 12:00:05 mail other: refused 192.0.2.4
no date mine: refused 192.0.2.5
Nov 22 12:00:05 mail mine: refused 192.0.2.99
"""


def mine(terminal: Terminal) -> str:
    """The path of a filter, which a jail of this folder might use."""
    return str(terminal.write("filters/mine.conf", MINE))


def test_every_line_is_accounted_for(bare: Terminal) -> None:
    """Hits by rule, ignored lines by ignoreregex, dates by their form, and what became of all others."""
    log = bare.write("x.log", LINES)
    lines = bare.does("filter", "test", mine(bare), str(log), "--print-ignored", "5", "--print-matched", "1")
    tables = [line.split()[:3] for line in lines]
    assert ["1", "1", "^failed"] in tables
    assert ["2", "1", "^refused"] in tables
    assert tables.count(["1", "1", "^failed"]) == 2  # failregex 1 and ignoreregex 1
    assert {("6", "syslog"), ("1", "ISO")} <= {(line[0], line[1]) for line in tables if len(line) > 1}
    assert "8 lines, 2 hits, 6 others" in lines
    assert "3 lines matched by no rule" in lines
    assert "2 lines ignored" in lines
    assert "1 line with a name where the address should be: nobody is banned by a name" in lines
    assert "1 line without a date" in lines
    assert "ignored: Nov 22 12:00:01 mail mine: failed for monitor from 192.0.2.2  (ignoreregex 1)" in lines
    assert "ignored: Nov 22 12:00:05 mail mine: refused 192.0.2.99  (ignoreregex 2)" in lines
    assert [line for line in lines if line.startswith("hit: ")] == [
        "hit: Nov 22 12:00:00 mail mine: failed for bob from 192.0.2.1  (rule 1: 192.0.2.1)"
    ]
    assert any("rule 2 finds evil.example.org" in line for line in lines)
    assert next(line for line in lines if line.startswith("no hit: ")).endswith("quite \\x1b[31manother thing")
    few = bare.does("filter", "test", mine(bare), str(log), "--print-missed", "1")
    assert sum(line.startswith("no hit: ") for line in few) == 1


def test_a_line_that_should_match_is_explained(bare: Terminal) -> None:
    """The line as the rules see it, its date, and where the way ends: at the prefregex, at the rules, or ignored."""
    lines = [line for line in LINES.splitlines() if "another thing" not in line]
    said = [bare.does("filter", "test", mine(bare), line) for line in lines]
    assert all(answer[0] == "LOG names no file: it is taken as the text of a line" for answer in said)
    assert [answer[1].partition("  ")[0] for answer in said] == [
        "line 1: hit",
        "line 1: ignored",
        "line 1: name, no address",
        "line 1: hit",
        "line 1: no hit",
        "line 1: no hit",
        "line 1: ignored",
    ]
    assert "  seen   mail mine: failed for bob from 192.0.2.1" in said[0]
    assert "  user  bob" in said[0]
    assert any(line.startswith("  date  Nov 22 12:00:00 is 20") for line in said[0])
    assert any(line.startswith("  the prefregex does not match: ") for line in said[4])
    assert "  date  none found: a hit would take the time of reading" in said[5]
    near = bare.does("filter", "test", mine(bare), "Nov 22 12:00:00 mail mine: failed for bob from 192.0.2.1 port 1")
    assert "  the prefregex matches, and no rule what it leaves: failed for bob from 192.0.2.1 port 1" in near
    whole = bare.does("filter", "test", mine(bare), str(bare.write("x.log", LINES)), "--explain")
    assert [line for line in whole if line.startswith("line ")][4] == "line 5: no hit"


def test_every_line_as_json(bare: Terminal) -> None:
    """`--json --explain` has a document for each line; `--json` alone has the hits, as ever."""
    log = bare.write("x.log", LINES)
    every = [json.loads(line) for line in bare.does("filter", "test", mine(bare), str(log), "--json", "--explain")]
    assert [one["outcome"] for one in every] == [
        "hit",
        "ignored",
        "name",
        "hit",
        "missed",
        "missed",
        "missed",
        "ignored",
    ]
    assert every[0] | {"time": None} == {
        "line": 1,
        "outcome": "hit",
        "rule": 1,
        "ignored_by": None,
        "ip": "192.0.2.1",
        "name": None,
        "user": "bob",
        "date": "Nov 22 12:00:00",
        "form": "syslog",
        "time": None,
        "seen": " mail mine: failed for bob from 192.0.2.1",
    }
    hits = [json.loads(line) for line in bare.does("filter", "test", mine(bare), str(log), "--json")]
    assert [(hit["line"], hit["ip"], hit["user"], hit["rule"]) for hit in hits] == [
        (1, "192.0.2.1", "bob", 1),
        (4, "192.0.2.3", None, 2),
    ]
    assert [hit["time"] for hit in hits] == [one["time"] for one in every if one["outcome"] == "hit"]


def test_a_regex_stands_for_a_filter(bare: Terminal) -> None:
    """A failregex as it is typed, with an ignoreregex and a datepattern; it must be one that a filter could have."""
    rule = r"^ \S+ failed (?P<what>\w+) from <HOST>$"
    said = bare.does("filter", "test", rule, "Nov 22 12:00:00 mail failed twice from 2001:DB8::1")
    assert said[:2] == [
        f"FILTER is taken as a regex: {rule}",
        "LOG names no file: it is taken as the text of a line",
    ]
    assert said[2] == "line 1: hit  (rule 1: 2001:db8::1)"
    line = "12:00 22/Nov mail failed x from 192.0.2.1"
    typed = ["filter", "test", "^ mail failed x from <ADDR>$", line, "--json", "--datepattern", "^%H:%M %d/%b"]
    (hit,) = (json.loads(row) for row in bare.does(*typed))
    assert (hit["ip"], hit["time"][4:]) == ("192.0.2.1", "-11-22T12:00:00Z")
    assert bare.does(*typed, "--ignoreregex", "failed x") == []
    assert bare.does(*typed, "--logtimezone", "+0200")[0] != json.dumps(hit)
    assert "does not compile" in bare.refuses(65, "filter", "test", "(<HOST>", "/dev/null")
    assert "no failregex" not in bare.refuses(65, "filter", "test", "^no tag$", "/dev/null")
    assert "go with a REGEX" in bare.refuses(2, "filter", "test", "mc-exim-filter", "-", "--ignoreregex", "x")
    bare.refuses(2, "filter", "test", "mc-exim-filter", "-", "--logtimezone", "Mars")


def test_an_expression_that_explodes_is_named(bare: Terminal) -> None:
    """A line that takes a rule for ever is given up and counted; the lines after it are matched."""
    rule = r"^ (?:a+)+b <HOST>$"
    log = bare.write("x.log", "2026-09-21 12:00:00 " + "a" * 60 + "cab 192.0.2.9\n2026-09-21 12:00:00 ab 192.0.2.1\n")
    said = bare.does("filter", "test", rule, str(log))
    assert any(line.startswith("1 line given up: some rule takes longer than") for line in said)
    assert f"given up: 2026-09-21 12:00:00 {'a' * 60}cab 192.0.2.9" in said
    assert "2 lines, 1 hit, 1 other" in said
    alone = bare.does("filter", "test", rule, "2026-09-21 12:00:00 " + "a" * 60 + "cab 192.0.2.9")
    assert any("repetitions within repetitions" in line for line in alone)
    answer = bare.type("filter", "test", rule, str(log), "--json")
    assert [json.loads(line)["line"] for line in answer.lines] == [2]
    assert answer.err == "mcban: 1 line given up: the filter takes too long for it\n"


def test_a_filter_that_is_long_to_compile_gives_up_no_line(bare: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a line is the line's: a filter of thousands of words has its own before the first."""
    monkeypatch.setattr("mcban.service.inspection.LIMIT", 0.02)
    words = "|".join(f"{number * 7919 % 99_991:x}[a-z]{number}" for number in range(20_000))
    bare.write("many.conf", f"[Definition]\nfailregex = ^ (?:{words}|bot) <HOST>$\n")
    log = bare.write("x.log", "2026-09-21 12:00:00 bot 192.0.2.1\n" * 3)
    assert "3 lines, 3 hits, 0 others" in bare.does("filter", "test", str(bare.folder / "many.conf"), str(log))


def test_a_slip_in_a_path_is_no_line(bare: Terminal) -> None:
    """Only what has a blank and does not begin like a path is taken for a line."""
    for log in ("/var/log/no such file", "nope.log"):
        assert "there is no such file" in bare.refuses(65, "filter", "test", "mc-exim-filter", log)
    file = bare.write("a log with blanks", failure("192.0.2.1"))
    assert "1 line, 1 hit, 0 others" in bare.does("filter", "test", "mc-exim-filter", str(file))


def test_where_each_filter_comes_from(bare: Terminal) -> None:
    """The list tells which folder hides which, what a filter is made of, and why one cannot be used."""
    one = bare.write("one/x.conf", "[INCLUDES]\nbefore = y.conf\n[Definition]\nfailregex = %(rule)s\n").parent
    bare.write("one/x.local", "[Definition]\nignoreregex = ^never\n")
    bare.write("one/y.conf", "[Definition]\nrule = ^ failed <HOST>$\n")
    two = bare.write("two/x.conf", "[Definition]\nfailregex = ^ other <HOST>$\n").parent
    bare.write("two/z.conf", "[Definition]\nfailregex = ^ (<HOST>$\n")
    bare.write("two/w.conf", "[INCLUDES]\nbefore = gone.conf\n[Definition]\nfailregex = ^ <HOST>$\n")
    bare.write("one/v.d/1.conf", "[Definition]\nfailregex = ^ part <HOST>$\n")
    bare.write("two/v.local", "[Definition]\nfailregex = ^ hidden <HOST>$\n")
    bare.env["MCBAN_FILTER_PATH"] = f"{one}:{two}:{bare.folder / 'nowhere'}"
    listed = {row["name"]: row for row in bare.json("filter", "list")}
    assert (listed["v"]["path"], listed["v"]["hides"]) == (str(one / "v.d/1.conf"), [str(two / "v.local")])
    assert listed["x"] == {
        "name": "x",
        "path": str(one / "x.conf"),
        "files": [str(one / name) for name in ("x.conf", "x.local", "y.conf")],
        "hides": [str(two / "x.conf")],
        "usable": True,
        "why": None,
        "warnings": [],
    }
    assert (listed["y"]["usable"], listed["z"]["usable"]) == (False, False)
    assert "does not compile" in listed["z"]["why"]
    shown = bare.does("filter", "list")
    notes = {line.split()[0]: " ".join(line.split()[2:]) for line in shown[1:-1]}
    assert notes["x"] == f"with x.local, y.conf; hides {two / 'x.conf'}"
    assert notes["y"] == "for others to include"
    assert notes["z"].startswith("cannot be used: failregex 1 does not compile")
    missing = "includes gone.conf, which does not exist; it is passed over, as fail2ban does"
    assert notes["w"] == missing
    assert f"{two / 'w.conf'} {missing}" in bare.process("filter", "show", "w", "--json").err
    assert shown[-1] == "5 files, 3 filters that can be used"
    assert bare.json("filter", "show", "x")["files"] == listed["x"]["files"]
    assert f"also reads  {one / 'x.local'}" in bare.does("filter", "show", "x")


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
        (b"\xff\xfe\0", "cannot be read: byte 1 is no UTF-8"),
        ("[Definition]\nfailregex = %(nothing)s <HOST>\n", "defined nowhere"),
        (f"[INCLUDES]\nbefore = {'x' * 300}\n[Definition]\nfailregex = <HOST>\n", "cannot look for"),
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


def test_a_path_means_the_file_that_it_names(bare: Terminal) -> None:
    """A file that no jail could use is refused: the filter beside it, whose name begins alike, is not taken for it."""
    beside = "[Definition]\nfailregex = ^ x <HOST>$\n"
    bare.write("filters/mine.conf", beside)
    backup = bare.write("filters/mine.conf.bak", beside)
    text = bare.write("filters/mine.txt", beside)
    for file in (backup, text):
        assert "ends in .conf or .local" in bare.refuses(65, "filter", "show", str(file))
    shown = bare.json("filter", "show", str(bare.write("filters/mine.v2.conf", beside)).removesuffix(".conf"))
    assert (shown["name"], shown["path"]) == ("mine.v2", str(text.with_name("mine.v2.conf")))


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_log_in_utf16_is_told_as_such(terminal: Terminal, encoding: str, mark: str) -> None:
    """With a mark at its beginning or without: one line names the log and what to do; else it would look as if the
    filter were to blame. Zeros before the lines, as in a log that was cut while somebody wrote, are no UTF-16."""
    log = terminal.folder / "windows.log"
    log.write_bytes((mark + failure("203.0.113.7")).encode(encoding))
    for typed in (("filter", "test", "mc-exim-filter"), ("replay", "-j", "mc-exim")):
        answer = terminal.process(*typed, str(log))
        assert answer.status == 0
        assert answer.err.startswith(f"mcban: {log}: it is UTF-16, ") and answer.err.count("\n") == 1
    log.write_bytes(bytes(500) + failure("203.0.113.7").encode())
    assert terminal.process("replay", "-j", "mc-exim", str(log)).err == ""
    log.write_bytes(("\ufeff" + failure("203.0.113.7")).encode("utf-8"))
    assert terminal.process("replay", "-j", "mc-exim", str(log)).err == ""
