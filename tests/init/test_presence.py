"""That an engine runs, as others see it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from mcban.daemon.presence import LOCK, STATE, Presence, look
from mcban.errors import McbanError


def test_only_one_engine(tmp_path: Path) -> None:
    """A second engine on a state directory is refused, and told which process has it."""
    first, second = Presence(tmp_path), Presence(tmp_path)
    first.take()
    first.say({"pid": 4711})
    with pytest.raises(McbanError, match="process 4711"):
        second.take()
    first.leave()
    assert not look(tmp_path).running
    second.take()
    assert look(tmp_path).running
    second.leave()


def test_what_a_killed_engine_said_is_forgotten(tmp_path: Path) -> None:
    """While an engine starts nobody takes a dead one's process for it, which may be a stranger's by now."""
    (tmp_path / LOCK).touch()
    (tmp_path / STATE).write_text(json.dumps({"pid": 1}))
    presence = Presence(tmp_path)
    presence.take()
    view = look(tmp_path)
    presence.leave()
    assert view.running
    assert view.pid is None


def test_looking_keeps_no_engine_from_starting(tmp_path: Path) -> None:
    """However often `mcban status` is run, an engine that starts meanwhile is not told that another one runs."""
    (tmp_path / LOCK).touch()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            look(tmp_path)

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(200):
            presence = Presence(tmp_path)
            presence.take()
            presence.leave()
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
