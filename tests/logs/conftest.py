"""Logs and journals for the tests, and what follows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journald import Journald, running_journald
from tests.logs.reader import Reader, append

Follow = Callable[..., Reader]


@pytest.fixture
def journald() -> Iterator[Journald]:
    """A journald of our own, with a journal that is empty."""
    with running_journald() as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two lines."""
    path = tmp_path / "mainlog"
    append(path, "Nov 22 10:00:01 one", "Nov 22 10:00:02 two")
    return path


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Follows logs: `follow(log, grace=0.2)`."""
    readers: list[Reader] = []

    def make(*patterns: object, **options: Any) -> Reader:
        readers.append(Reader([str(pattern) for pattern in patterns], **options))
        return readers[-1]

    yield make
    for reader in readers:
        reader.follower.close()
