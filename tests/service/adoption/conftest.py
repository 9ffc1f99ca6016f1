"""Databases of the original, and nodes on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcban.config import Config
from mcban.firewall.memory import MemoryFirewall
from mcban.service.context import Context
from mcban.shipped import shipped
from mcban.store.database import Database
from tests import original
from tests.conftest import Machine
from tests.service.adoption.desk import Make


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a database of the original: on SQLite, since what rows mean is the same everywhere."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    original.make(url)
    return url


@pytest.fixture
def either(empty_database: str) -> str:
    """The same, of each kind."""
    original.make(empty_database)
    return empty_database


@pytest.fixture
def make(machine: Machine, tmp_path: Path) -> Iterator[Make]:
    """Makes a context on a URL."""
    made: list[Context] = []

    def on(url: str) -> Context:
        config = Config(tmp_path, (shipped("etc") / "filter.d",), node="here", database_url=url)
        made.append(Context(config, Database(url), MemoryFirewall(), machine.host()))
        return made[-1]

    yield on
    for context in made:
        context.database.dispose()
