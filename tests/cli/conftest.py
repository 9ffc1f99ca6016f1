"""Terminals for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal


@pytest.fixture
def bare(tmp_path: Path) -> Terminal:
    """A terminal on a machine where mcban was just installed: no database, no state directory."""
    return Terminal(tmp_path)


@pytest.fixture
def terminal(bare: Terminal, sqlite_template: Path) -> Terminal:
    """A terminal with the schema and the shipped jails, on SQLite, without a kernel."""
    bare.database.parent.mkdir()
    shutil.copy(sqlite_template, bare.database)
    return bare
