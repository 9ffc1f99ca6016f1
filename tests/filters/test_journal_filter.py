"""Filters as they read the journal: held against Debian's fail2ban package, and by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcban.errors import FilterError
from mcban.filters import Explanation, Filter, load_filter, load_journal_filter
from tests.fail2ban_package import FILTERS, SAMPLES

NOW = 1_795_364_256
STAMP = "2026-11-22T10:00:00.000000+00:00"
_SYSLOG = re.compile(r"(?:<\d+>)?\w{3} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? (?P<rest>\S+ \S+\[\d+\]: .*)")


@pytest.mark.parametrize("name", ["sshd", "dovecot", "postfix", "proftpd", "named-refused"])
def test_a_sample_line_is_judged_alike_from_a_file_and_from_the_journal(package: Path, name: str) -> None:
    """What a daemon tells syslog it tells the journal, too; but for what other systems' syslog puts in between."""
    folders = [package / FILTERS]
    in_file, in_journal = load_filter(name, folders), load_journal_filter(name, folders)
    ours, theirs = in_file.matcher(), in_journal.matcher()
    compared = hits = 0
    for line in (package / SAMPLES / name).read_text("utf-8", "replace").splitlines():
        found = _SYSLOG.fullmatch(line)
        if not found or "[ID " in line or "@vserver_" in line:
            continue
        one = in_file.explain(line, NOW, matcher=ours)
        other = in_journal.explain(f"{STAMP} {found['rest']}", NOW, matcher=theirs)
        assert meaning(other) == meaning(one), line
        compared += 1
        hits += one.outcome == "hit"
        assert other.at == 1_795_341_600
    assert compared
    assert hits


def meaning(explained: Explanation) -> tuple[object, ...]:
    """What matters of a line, but for its date."""
    match = explained.match
    return explained.outcome, explained.rule, match and (match.ip, match.user)


def make(folder: Path, text: str) -> list[Path]:
    (folder / "x.conf").write_text(f"[Definition]\n{text}\n")
    return [folder]


@pytest.mark.parametrize(
    ("spec", "logtype"),
    [
        ("x", "journal"),
        ("x[]", "journal"),
        ("x[ mode=a ]", "journal"),
        ('x[mode=a, other="b, c"]', "journal"),
        ("x[logtype=file]", "file"),
        ("x[mode=a, LOGTYPE=short]", "short"),
    ],
)
def test_the_logtype_is_journal_unless_the_row_names_another(tmp_path: Path, spec: str, logtype: str) -> None:
    """As fail2ban sets it; other parameters stay."""
    folders = make(tmp_path, "logtype = file\nmode = a\nother =\nfailregex = ^<logtype> <mode> by <HOST>$")
    one: Filter = load_journal_filter(spec, folders)
    assert one.match(f"{logtype} a by 203.0.113.1")


def test_the_date_is_the_journals_whatever_the_filter_looks_for(tmp_path: Path) -> None:
    """Its datepattern is for files; a date in the text is text, and nothing stands before the host."""
    folders = make(tmp_path, "datepattern = ^%%d/%%m/%%Y\nfailregex = ^host x\\[1\\]: 22/11/2020 by <HOST>$")
    explained = load_journal_filter("x", folders).explain(f"{STAMP} host x[1]: 22/11/2020 by 203.0.113.1", NOW)
    assert explained.outcome == "hit"
    assert explained.at == 1_795_341_600
    assert explained.rest == "host x[1]: 22/11/2020 by 203.0.113.1"


def test_a_filter_without_a_date_gets_one_from_the_journal(tmp_path: Path) -> None:
    """`datepattern = {NONE}` is for logs whose lines have none; entries have."""
    folders = make(tmp_path, "datepattern = {NONE}\nfailregex = ^host x: by <HOST>$")
    assert load_journal_filter("x", folders).explain(f"{STAMP} host x: by 203.0.113.1", NOW).at == 1_795_341_600


def test_a_filter_that_there_is_none_of_is_named(tmp_path: Path) -> None:
    """As for files."""
    with pytest.raises(FilterError, match="no filter y"):
        load_journal_filter("y", [tmp_path])
