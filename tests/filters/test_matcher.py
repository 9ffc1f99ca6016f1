"""Failures that take several lines: sessions by <F-MLFID>, and windows of maxlines lines."""

import string
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.filters import Filter, Match, Scanner, load_filter
from mcban.filters.matcher import LONGEST_ID, MOST_SESSIONS, SESSION_SECONDS

SESSIONS = r"""[Definition]
prefregex = ^ app\[<F-MLFID>\w+</F-MLFID>\]: <F-CONTENT>.+</F-CONTENT>$
failregex = ^<F-NOFAIL>connect</F-NOFAIL> from <HOST>$
            ^<F-NOFAIL>key</F-NOFAIL> for <F-USER>\S*</F-USER>$
            ^bad password(?: for <F-USER>\S*</F-USER>)?(?: from <HOST>)?$
            ^<F-MLFGAINED>welcome</F-MLFGAINED>$
            ^<F-NOFAIL><F-MLFFORGET>bye</F-MLFFORGET></F-NOFAIL>(?: <HOST>)?$
            ^<F-MLFFORGET>cut off</F-MLFFORGET>$
ignoreregex = for monitor
"""
WINDOW = """[Definition]
maxlines = 4
failregex = ^ (?P<id>\\d+) open <HOST>$<SKIPLINES>^ (?P=id) refused(?: <F-USER>\\S+</F-USER>)?$
            ^ failed <HOST>$
ignoreregex = 192\\.0\\.2\\.9
"""


Load = Callable[[str], Filter]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a filter of the given text."""

    def load(text: str) -> Filter:
        (tmp_path / "x.conf").write_text(text)
        return load_filter("x", [tmp_path])

    return load


def read(one: Filter, *lines: str) -> list[tuple[int, str, str | None] | None]:
    """What the lines of one log give: for each None, or rule, address and login."""
    matcher = one.matcher()
    found = [matcher.match(line, one.rules) for line in lines]
    return [(match.rule, match.ip, match.user) if match else None for match in found]


def test_the_line_that_fails_counts_with_the_address_of_its_session(load: Load) -> None:
    """A failure without an address takes that of an earlier line with the same identifier, each time that it comes."""
    one = load(SESSIONS)
    assert one.stateful
    assert not one.every_line
    assert read(
        one,
        " app[1]: connect from 192.0.2.1",
        " app[2]: connect from 192.0.2.2",
        " app[1]: bad password for joe",
        " app[2]: bad password",
        " app[1]: bad password",
        " app[3]: bad password from 2001:db8::3",
    ) == [
        None,
        None,
        (3, "192.0.2.1", "joe"),
        (3, "192.0.2.2", None),
        (3, "192.0.2.1", "joe"),
        (3, "2001:db8::3", None),
    ]


def test_a_failure_waits_for_its_address(load: Load) -> None:
    """A failure that comes before the address counts with the line that tells it; once."""
    assert read(
        load(SESSIONS),
        " app[1]: bad password",
        " app[1]: connect from 192.0.2.1",
        " app[1]: connect from 192.0.2.1",
    ) == [None, (1, "192.0.2.1", None), None]


def test_getting_in_makes_good_what_waited(load: Load) -> None:
    """<F-MLFGAINED>: a failure that still waits for its address is forgotten when the login succeeds."""
    assert read(
        load(SESSIONS), " app[1]: bad password", " app[1]: welcome", " app[1]: bye 192.0.2.1"
    ) == [None, None, None]  # fmt: skip


def test_a_session_that_ended_tells_nothing(load: Load) -> None:
    """<F-MLFFORGET>: whoever gets the same identifier next is somebody else; the line that ends it may still fail."""
    assert read(
        load(SESSIONS),
        " app[1]: connect from 192.0.2.1",
        " app[1]: bye",
        " app[1]: bad password",
        " app[2]: connect from 192.0.2.2",
        " app[2]: cut off",
        " app[2]: cut off",
    ) == [None, None, None, None, (6, "192.0.2.2", None), None]


def test_two_logins_in_one_session_are_a_failure(load: Load) -> None:
    """Lines that are no failures by themselves are one as soon as a session tries a second login."""
    assert read(
        load(SESSIONS),
        " app[1]: connect from 192.0.2.1",
        " app[1]: key for joe",
        " app[1]: key for joe",
        " app[1]: key for ann",
    ) == [None, None, None, (2, "192.0.2.1", "ann")]


def test_an_ignored_line_tells_a_session_nothing(load: Load) -> None:
    """What an ignoreregex matches neither counts nor is remembered; it sees what the rules see."""
    one = load(SESSIONS)
    matcher = one.matcher()
    assert matcher.judge(" app[1]: connect from 192.0.2.1", one.rules).outcome == "context"
    verdict = matcher.judge(" app[1]: bad password for monitor", one.rules)
    assert (verdict.outcome, verdict.rule, verdict.ignored_by) == ("ignored", 3, 1)
    assert matcher.match(" app[1]: bad password", one.rules) == Match(3, "192.0.2.1", None)


def test_a_session_ends_after_a_while(load: Load) -> None:
    """An identifier that was silent for ten minutes of the log is another session: process ids come again."""
    one = load(SESSIONS)
    matcher = one.matcher()
    matcher.match(" app[1]: connect from 192.0.2.1", one.rules, 1000)
    assert matcher.match(" app[1]: bad password", one.rules, 1000 + SESSION_SECONDS)
    assert not matcher.match(" app[1]: bad password", one.rules, 1001 + 2 * SESSION_SECONDS)


def test_a_flood_of_sessions_takes_no_memory(load: Load) -> None:
    """Only so many sessions are open; the one silent for longest is dropped, and endless identifiers are not kept."""
    one = load(SESSIONS)
    matcher = one.matcher()
    matcher.match(" app[a]: connect from 192.0.2.1", one.rules)
    matcher.match(" app[b]: connect from 192.0.2.2", one.rules)
    for number in range(MOST_SESSIONS - 1):
        matcher.match(f" app[{number}]: connect from 192.0.2.3", one.rules)
    assert not matcher.match(" app[a]: bad password", one.rules)
    long = "c" * (LONGEST_ID + 1)
    assert not matcher.match(f" app[{long}]: connect from 192.0.2.4", one.rules)
    assert not matcher.match(f" app[{long}]: bad password", one.rules)
    assert matcher.match(f" app[{long}]: bad password from 192.0.2.4", one.rules)


def test_a_name_is_told_and_bans_nobody(load: Load) -> None:
    """An offender that is a host name is recognised and told, and never looked up."""
    one = load(SESSIONS)
    matcher = one.matcher()
    one.explain(" app[1]: connect from host.example.net", 0, matcher=matcher)
    explained = one.explain(" app[1]: bad password for joe", 0, matcher=matcher)
    assert (explained.outcome, explained.match, explained.name) == ("name", None, "host.example.net")
    assert (explained.user, explained.rule) == ("joe", 3)


def test_a_name_takes_the_place_of_an_address(load: Load) -> None:
    """A line that names another offender than the session had, even one that is no address, does not ban the first."""
    assert read(
        load(SESSIONS),
        " app[1]: connect from 192.0.2.1",
        " app[1]: bad password from host.example.net",
        " app[1]: bad password",
        " app[1]: bad password from 192.0.2.1",
    ) == [None, None, None, (3, "192.0.2.1", None)]


def test_whoever_comes_next_under_an_identifier_tried_no_login_yet(load: Load) -> None:
    """A process id that comes again with another address does not make its new owner one who tries several logins."""
    assert read(
        load(SESSIONS),
        " app[1]: bad password for joe from 192.0.2.1",
        " app[1]: connect from 192.0.2.2",
        " app[1]: key for ann",
        " app[1]: key for bob",
    ) == [(3, "192.0.2.1", "joe"), None, None, (2, "192.0.2.2", "bob")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["connect from {}", "bad password", "bye {}"]))))
def test_sessions_never_mix(tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]]) -> None:
    """However the lines of sessions alternate, each gives what it gives alone, and nobody pays for another."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "x.conf").write_text(SESSIONS)
    one = load_filter("x", [folder])
    address = {key: f"192.0.2.{number}" for number, key in enumerate("abc", start=1)}
    lines = [(key, f" app[{key}]: {text.format(address[key])}") for key, text in lines]
    together = read(one, *(text for _, text in lines))
    for key, ip in address.items():
        alone = read(one, *(text for other, text in lines if other == key))
        assert [found for (other, _), found in zip(lines, together, strict=True) if other == key] == alone
        assert {found[1] for found in alone if found} <= {ip}


def test_a_rule_may_span_lines(load: Load) -> None:
    """With maxlines an expression is matched with the last lines; those between the parts are left for others."""
    one = load(WINDOW)
    assert one.stateful
    assert one.every_line
    assert read(
        one,
        " 1 open 192.0.2.1",
        " 2 open 192.0.2.2",
        " 1 refused joe",
        " 2 refused",
        " 2 refused",
        " failed 192.0.2.3",
    ) == [None, None, (1, "192.0.2.1", "joe"), (1, "192.0.2.2", None), None, (2, "192.0.2.3", None)]


def test_the_window_moves_on(load: Load) -> None:
    """A line that lies more than maxlines back is forgotten."""
    one = load(WINDOW)
    assert read(one, " 1 open 192.0.2.1", " x", " x", " 1 refused")[-1]
    assert not read(one, " 1 open 192.0.2.1", " x", " x", " x", " 1 refused")[-1]


def test_an_ignored_failure_leaves_the_window(load: Load) -> None:
    """What an ignoreregex matches takes its lines with it, so that it does not come back with the next line."""
    one = load(WINDOW)
    matcher = one.matcher()
    outcomes = [matcher.judge(line, one.rules).outcome for line in (" 1 open 192.0.2.9", " 1 refused", " 1 refused")]
    assert outcomes == ["missed", "ignored", "missed"]


def test_a_failure_of_several_lines_has_a_moment(load: Load) -> None:
    """Its moment is that of the last of its lines that has a date."""
    one = load(WINDOW)
    matcher = one.matcher()
    first = one.explain("2026-11-22 13:00:00Z 1 open 192.0.2.1", 1795352400, matcher=matcher)
    assert (first.outcome, first.at) == ("missed", 1795352400)
    last = one.explain(" 1 refused", 1795352400, matcher=matcher)
    assert (last.outcome, last.at, last.date) == ("hit", 1795352400, None)


@given(st.lists(st.text(st.sampled_from(string.digits + " \t\x0b\x85abc"), max_size=6), max_size=20))
def test_any_lines_may_stand_between(tmp_path_factory: pytest.TempPathFactory, noise: list[str]) -> None:
    """Whatever stands between the lines of a failure neither stops the matcher nor is taken for a part of it."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "window.conf").write_text(WINDOW.replace("maxlines = 4", "maxlines = 50"))
    one = load_filter("window", [folder])
    lines = [" 777777 open 192.0.2.1", *noise, " 777777 refused"]
    assert read(one, *lines) == [None] * (len(lines) - 1) + [(1, "192.0.2.1", None)]


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("rules", [3, 4])
def test_a_line_is_ignored_by_its_beginning_where_rules_are_many(load: Load, session: bool, rules: int) -> None:
    """With three more rules than ignoreregex these see what the prefregex cuts away, line by line and in blocks."""
    identifier = r"<F-MLFID>\d+</F-MLFID>" if session else r"\d+"
    failregex = "\n  ".join(f"^bad{number} <HOST>$" for number in range(rules))
    one = load(
        f"[Definition]\nprefregex = ^ app\\[{identifier}\\]: <F-CONTENT>.+</F-CONTENT>$\n"
        f"failregex = {failregex}\nignoreregex = ^ app\\[7\\]\n"
    )
    assert one.stateful == session
    found = [match and match[1] for match in read(one, " app[7]: bad1 192.0.2.1", " app[8]: bad1 192.0.2.2")]
    assert found == [None if rules == 4 else "192.0.2.1", "192.0.2.2"]
    block = b"".join(b"2026-11-22 13:00:00 app[%d]: bad1 192.0.2.%d\n" % (pid, pid) for pid in (7, 8))
    hits = [match.ip for match in Scanner([one], UTC).scan(block, 1_795_352_400)]
    assert hits == (["192.0.2.8"] if rules == 4 else ["192.0.2.7", "192.0.2.8"])
