"""The loop of the engine when something goes wrong that nobody foresaw."""

from __future__ import annotations

import logging

import pytest

from mcban.daemon.engine import Engine
from mcban.daemon.presence import Presence
from mcban.service.context import Context


def test_a_defect_is_said_once_and_does_not_end_the_engine(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """An error that is none of ours is one line with its place, said once however often it comes, and once that it is
    over; nothing is raised."""
    engine = Engine(context, Presence(context.config.state_dir))
    broken = [True]

    def activity() -> str:
        if broken[0]:
            raise ZeroDivisionError("odd\x1b[31m")
        return "done"

    with caplog.at_level(logging.INFO, logger="mcban"):
        for _ in range(3):
            assert engine._guarded(activity) is None
        broken[0] = False
        assert engine._guarded(activity) == "done"
    first, second = (record.getMessage() for record in caplog.records)
    assert "ZeroDivisionError" in first and "test_engine.py" in first and "\x1b" not in first and "\n" not in first
    assert second.startswith("over: ")
