"""Names of logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcban.logs.paths import expand, fixed_directory, rotated_from, split_logpath


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("/var/log/auth.log", ["/var/log/auth.log"]),
        ("/var/log/a.log\n/var/log/b.log tail\n", ["/var/log/a.log", "/var/log/b.log"]),
        ("/a head\n  /b\ttail \n\n/a", ["/a", "/b"]),
        ("/a,/b, /c  /d", ["/a", "/b", "/c", "/d"]),
        ("/var/log/*/access.log", ["/var/log/*/access.log"]),
    ],
)
def test_split(text: str, paths: list[str]) -> None:
    """A `logpath` as administrators and fail2ban write it is taken apart into absolute paths."""
    assert split_logpath(text) == paths


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), (" \n", "empty"), ("log/x", "absolute"), ("tail", "absolute"), ("systemd-journal", "journal")],
)
def test_split_refuses(text: str, words: str) -> None:
    """A `logpath` that cannot be followed is refused with one line that says why."""
    with pytest.raises(ValueError, match=words) as caught:
        split_logpath(text)
    assert "\n" not in str(caught.value)


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
