"""From lines of logs to hits: what belongs together, and what does not."""

from pathlib import Path

from mcban.filters import load_filter
from mcban.service.sources import MOST_FEEDS, Intake, Source

NOW = 1_795_360_000
SESSIONS = r"""[Definition]
prefregex = ^ app\[<F-MLFID>\d+</F-MLFID>\]: <F-CONTENT>.+</F-CONTENT>$
failregex = ^<F-NOFAIL>connect</F-NOFAIL> from <HOST>$
            ^bad password for <F-USER>\S+</F-USER>$
"""
GLOB = "/var/log/*/app.log"
CONNECT = b"2026-11-22 13:00:00+00:00 app[7]: connect from 192.0.2.1\n"
FAIL = b"2026-11-22 13:00:01+00:00 app[7]: bad password for joe\n"


def make_intake(folder: Path) -> Intake:
    """The intake of one group that reads every log of a glob."""
    (folder / "app.conf").write_text(SESSIONS)
    return Intake([Source("g", (GLOB,), load_filter("app", [folder]))])


def test_a_session_goes_on_from_block_to_block(tmp_path: Path) -> None:
    """What a log told in an earlier reading belongs to what it tells later."""
    intake = make_intake(tmp_path)
    assert intake.hits("/var/log/a/app.log", CONNECT, [GLOB], NOW) == []
    (hit,) = intake.hits("/var/log/a/app.log", FAIL, [GLOB], NOW)
    assert (hit.ip, hit.login, hit.group) == ("192.0.2.1", "joe", "g")


def test_logs_of_one_glob_share_no_sessions(tmp_path: Path) -> None:
    """The same process id in another log is another process: nobody is banned for it."""
    intake = make_intake(tmp_path)
    intake.hits("/var/log/a/app.log", CONNECT, [GLOB], NOW)
    assert intake.hits("/var/log/b/app.log", FAIL, [GLOB], NOW) == []
    assert len(intake.hits("/var/log/a/app.log", FAIL, [GLOB], NOW)) == 1


def test_logs_named_by_date_take_no_memory(tmp_path: Path) -> None:
    """Only the logs that were read last keep their sessions."""
    intake = make_intake(tmp_path)
    intake.hits("/var/log/a/app.log", CONNECT, [GLOB], NOW)
    for day in range(MOST_FEEDS):
        intake.hits(f"/var/log/{day}/app.log", CONNECT, [GLOB], NOW)
    assert intake.hits("/var/log/a/app.log", FAIL, [GLOB], NOW) == []
    assert len(intake.hits(f"/var/log/{MOST_FEEDS - 1}/app.log", FAIL, [GLOB], NOW)) == 1


def test_lines_that_take_a_filter_too_long_are_told_with_its_name(tmp_path: Path) -> None:
    """The first line that is given up is reported with the log and the filter; a flood of them is no flood of reports,
    and the hits around them count."""
    (tmp_path / "bomb.conf").write_text("[Definition]\nfailregex = ^ failed from <ADDR>(?: (?:a+)+)?$\n")
    source = Source("g", ("/log",), load_filter("bomb", [tmp_path]))
    intake = Intake([source])
    hit = b"2026-11-22 13:00:00 failed from 192.0.2.1\n"
    bomb = hit[:-1] + b" " + b"a" * 60 + b"b\n"
    assert len(intake.hits("/log", hit + bomb + hit, ("/log",), NOW)) == 2
    (warning,) = intake.warnings
    assert warning.startswith("/log: filter bomb takes too long with some lines")
    assert "(1 so far)" in warning
    for _ in range(30):
        intake.hits("/log", bomb * 10, ("/log",), NOW)
    assert len(intake.warnings) <= 3
