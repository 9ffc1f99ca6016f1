"""Names of logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcban.logs import Follower, LogState
from mcban.logs.paths import expand, fixed_directory, length_fault, rotated_from, split_logpath


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("/var/log/auth.log", ["/var/log/auth.log"]),
        ("/var/log/a.log\n/var/log/b.log tail\n", ["/var/log/a.log", "/var/log/b.log"]),
        ("/a head\n  /b\ttail \n\n/a", ["/a", "/b"]),
        ("/a,/b, /c  /d", ["/a", "/b", "/c", "/d"]),
        ("/var/log/*/access.log", ["/var/log/*/access.log"]),
        ("systemd-journal", ["systemd-journal"]),
        ("/a systemd-journal[], /b", ["/a", "systemd-journal", "/b"]),
        (
            "systemd-journal[journalpath=/x/, ] systemd-journal[ journalpath = '/x y' ]".replace("'", '"'),
            ['systemd-journal[journalpath="/x"]', 'systemd-journal[journalpath="/x y"]'],
        ),
        ("systemd-journal[journalflags=1,namespace=a]", ['systemd-journal[namespace="a", journalflags="1"]']),
    ],
)
def test_split(text: str, paths: list[str]) -> None:
    """A `logpath` as administrators and fail2ban write it is taken apart into absolute paths."""
    assert split_logpath(text) == paths


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("log/x", "absolute"),
        ("tail", "absolute"),
        ("systemd-journal[journalpath=log]", "absolute"),
        ("systemd-journal[journalfiles=/x.journal]", "journalpath"),
        ("systemd-journal[journalpath]", "key=value"),
        ("systemd-journal[journalflags=2]", "journalflags"),
        ("systemd-journal[namespace=a/b]", "namespace"),
        ("systemd-journal[journalpath=/x, journalflags=1]", "journalpath"),
        ("/" + "x" * 500, "501"),
    ],
)
def test_split_refuses(text: str, words: str) -> None:
    """A `logpath` that cannot be followed is refused with one line that says why."""
    with pytest.raises(ValueError, match=words) as caught:
        split_logpath(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/" + "x" * 499, True),
        ("/" + "x" * 500, False),
        ("/" + "\\" * 249, True),
        ("/" + "\\" * 250, False),
        ("/" + "\udcff" * 124, True),
        ("/" + "\udcff" * 125, False),
        ("/" + "\N{PILE OF POO}" * 499, True),
    ],
    ids=ascii,
)
def test_a_path_is_as_long_as_sql_writes_it(path: str, fits: bool) -> None:
    """Characters; a backslash is two, a byte that is no UTF-8 four."""
    assert (length_fault(path) is None) == fits


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("mainlog.1", "mainlog"),
        ("mainlog-20261122", "mainlog"),
        ("mainlog.2.gz", "mainlog"),
        ("access.log.old", "access.log"),
        ("access-20261122.log", "access.log"),
        ("access.1.log.gz", "access.log"),
        ("mail.err", None),
        ("mail.log", None),
    ],
)
def test_rotated_names(name: str, base: str | None) -> None:
    """The names that logrotate and its like give are known, and a log of another name is not taken for one."""
    assert rotated_from(name) == base


def test_glob_leaves_predecessors_out(tmp_path: Path) -> None:
    """A glob that also matches rotated files does not count their lines a second time."""
    for name in ["mainlog", "mainlog.1", "mainlog.2.gz", "rejectlog", "app-20261122.log"]:
        (tmp_path / name).touch()
    names = [Path(path).name for path in expand(f"{tmp_path}/*", [])]
    assert names == ["app-20261122.log", "mainlog", "rejectlog"]
    assert fixed_directory(f"{tmp_path}/*/x") == str(tmp_path)


def test_a_log_found_by_a_glob_whose_position_cannot_be_kept_is_not_read(tmp_path: Path) -> None:
    """It is unreadable, and why is said; the others go on."""
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    for name in ("short", "z" * 200):
        (folder / name).write_text("line\n")
    with Follower([f"{folder}/*"]) as follower:
        blocks = [block.path for _ in range(4) if (block := follower.read())]
        states = {Path(status.path).name: (status.state, status.reason) for status in follower.status()}
    assert {Path(path).name for path in blocks} == {"short"}
    assert states["short"] == (LogState.FOLLOWING, "")
    assert states["z" * 200][0] is LogState.UNREADABLE
    assert "positions are kept of 500 at the most" in states["z" * 200][1]
