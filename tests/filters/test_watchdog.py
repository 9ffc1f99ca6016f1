"""Expressions that explode: the line is given up and counted, other filters and lines do not suffer.

Each of the matches here would take minutes or for ever; that the tests end is what they prove.
"""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest

from mcban.filters import Filter, Scanner, load_filter
from mcban.filters.watchdog import LIMIT, GaveUp, Watchdog

NOW = 1_795_352_400  # 2026-11-22 13:00:00 UTC
DATE = b"2026-11-22 13:00:00"
HIT = DATE + b" failed from 192.0.2.1\n"
BOMB = DATE + b" failed from 192.0.2.1 " + b"a" * 60 + b"b\n"

EXPLODING = [
    (r"(a+)+$", "a" * 60 + "b"),
    (r"(\w+\s?)*:$", "word " * 12 + "x" * 40 + "!"),
    (r"^(a|a)*$", "a" * 60 + "b"),
    (r"(?:a|aa)+$", "a" * 120 + "b"),
    (r"(a*)*\1b", "a" * 60),
    (r"(.+)\1x", "a" * 20_000),
    (r"(?<=a)(?:a|aa)+$", "a" * 120 + "b"),
    (r"(?!(?:a|aa)+$)x", "a" * 120 + "b"),
    (r"(?=((?:a|aa)+$))x", "a" * 120 + "b"),
    (r"(?>(?:a|aa)*c)", "a" * 120 + "b"),
    (r"(?:(?:a|aa)*c)++", "a" * 120 + "b"),
    (r"(?i:(?:a|A|aa)+)c", "a" * 120 + "b"),
    (r"^.*.*.*.*x$", "a" * 8_000),
    (r"\s+\s+x", " " * 20_000),
    (r"(?:(?:a?){40})a{40}$", "a" * 40 + "b"),
]


Load = Callable[..., Filter]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A function that loads a filter of the given name, with a rule and options."""

    def load(name: str, rule: str = "^ failed from <ADDR>", **options: object) -> Filter:
        more = "".join(f"{key} = {value}\n" for key, value in options.items())
        (tmp_path / f"{name}.conf").write_text(f"[Definition]\nfailregex = {rule}\n{more}".replace("%", "%%"))
        return load_filter(name, [tmp_path])

    return load


@pytest.mark.parametrize(("expression", "text"), EXPLODING)
def test_python_ends_any_match_that_its_timer_interrupts(expression: str, text: str) -> None:
    """Nested and overlapping repeats, back references, look-around, possessive and atomic groups: all can be ended."""
    watchdog = Watchdog()
    with pytest.raises(GaveUp), watchdog:
        watchdog.running = (1, 0)
        re.compile(expression).search(text)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("^ failed from <ADDR> (?:a+)+$", {}),
        ("^ failed from <ADDR>", {"ignoreregex": "(?:a+)+$"}),
        ("^ failed from <ADDR>", {"prefregex": "^<F-CONTENT>.*</F-CONTENT>(?:a+)+$"}),
        ("^ failed from <ADDR>", {"datepattern": "(?:a+)+c%Y"}),
        ("^ failed <F-MLFID>from</F-MLFID> <ADDR> (?:a+)+$", {}),
        ("^ failed from <ADDR> (?:a+)+$", {"maxlines": 3}),
        ("^ failed from <ADDR> <F-ID>x</F-ID>(?:a+)+$|(?:a+)+c", {}),
    ],
)
def test_a_line_that_explodes_is_given_up_and_counted(load: Load, rule: str, options: dict[str, str]) -> None:
    """Whichever expression of a filter it is, the line is given up for this filter alone: others find their hits in
    the same line and in those around it, and no hit of theirs is lost."""
    bomb, other = load("bomb", rule, **options), load("other")
    scanner = Scanner([other, bomb, other], UTC)
    found = scanner.scan(HIT + BOMB + HIT, NOW)
    assert [match.line for match in found if match.filter == 0] == [0, 1, 2]
    assert [match.line for match in found if match.filter == 2] == [0, 1, 2]
    assert scanner.gave_up[1] >= 1
    assert scanner.gave_up.keys() == {1}


def test_other_lines_of_a_filter_that_gave_up_are_matched(load: Load) -> None:
    """One line that explodes costs that line: the filter's hits before and after it are found."""
    scanner = Scanner([load("bomb", "^ failed from <ADDR>(?: (?:a+)+)?$")], UTC)
    assert [match.line for match in scanner.scan(HIT + BOMB + HIT, NOW)] == [0, 2]
    assert scanner.gave_up == {0: 1}
    assert [match.line for match in scanner.scan(HIT, NOW)] == [0]


def test_a_flood_of_lines_that_explode_ends(load: Load) -> None:
    """Thousands of such lines cost about as much as a few: the filter is passed over when it has spent its credit,
    and the others go on."""
    bomb, other = load("bomb", "^ failed from <ADDR> (?:a+)+$"), load("other")
    scanner = Scanner([bomb, other], UTC)
    found = scanner.scan(BOMB * 5_000, NOW)
    assert [match.line for match in found] == list(range(5_000))
    assert scanner.gave_up == {0: 5_000}


def test_who_spent_his_credit_regains_it(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    """A filter that was passed over is asked again after a while."""
    clock = [0.0]
    monkeypatch.setattr("mcban.filters.watchdog.time.monotonic", lambda: clock[0])
    scanner = Scanner([load("bomb", "^ failed from <ADDR>(?: (?:a+)+)?$")], UTC)
    scanner.scan(BOMB * 200, NOW)
    assert scanner.scan(HIT, NOW) == []
    clock[0] += 3_600
    assert [match.line for match in scanner.scan(HIT, NOW)] == [0]
    assert scanner.gave_up == {0: 201}


def test_the_timer_and_the_handler_of_others_are_as_before(load: Load) -> None:
    """While nothing is scanned, neither the signal nor its timer is ours."""
    seen = []
    before = signal.signal(signal.SIGVTALRM, lambda *_: seen.append(1))
    try:
        mine = signal.getsignal(signal.SIGVTALRM)
        signal.setitimer(signal.ITIMER_VIRTUAL, 1_000, 2_000)
        Scanner([load("bomb", "^ failed from <ADDR> (?:a+)+$")], UTC).scan(HIT + BOMB, NOW)
        left, every = signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        assert signal.getsignal(signal.SIGVTALRM) is mine
        assert 900 < left <= 1_001
        assert every == 2_000
        assert not seen
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_a_tick_that_comes_late_ends_nothing() -> None:
    """One that was sent while lines were matched may arrive when they no longer are: the process goes on."""
    code = (
        "import os, signal\n"
        "from mcban.filters.watchdog import Watchdog\n"
        "for _ in range(2):\n"
        "    with Watchdog():\n"
        "        pass\n"
        "    os.kill(os.getpid(), signal.SIGVTALRM)\n"
        "print('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_in_another_thread_lines_are_matched_without_a_watch(load: Load) -> None:
    """Signals are for Python's main thread alone: elsewhere the hits are found all the same."""
    found = []
    scanner = Scanner([load("other")], UTC)
    thread = threading.Thread(target=lambda: found.extend(scanner.scan(HIT, NOW)))
    thread.start()
    thread.join()
    assert [match.ip for match in found] == ["192.0.2.1"]


def test_a_match_is_given_time_in_which_nothing_else_runs() -> None:
    """Time in which the process does not run is not the match's: only CPU time counts."""
    watchdog = Watchdog()
    with watchdog:
        watchdog.running = (1, 0)
        threading.Event().wait(LIMIT * 3)
        watchdog.running = None
