"""Filters for the tests, and Debian's fail2ban package for those that hold mcban against it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fail2ban_package import MODULES

RULE = "^ failed from <HOST>$"
Write = Callable[..., Path]
Ask = Callable[[dict[str, Any]], Any]
"""Gives an answer of oracle.py to a job."""


@pytest.fixture(scope="session")
def ask_fail2ban(package: Path) -> Iterator[Ask]:
    """Asks fail2ban's own modules: see oracle.py."""
    env = {**os.environ, "PYTHONPATH": str((package / MODULES).parent), "TZ": "UTC"}
    program = [sys.executable, str(Path(__file__).with_name("oracle.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        asked, told = process.stdin, process.stdout
        assert asked is not None and told is not None

        def ask(job: dict[str, Any]) -> Any:
            asked.write(json.dumps(job) + "\n")
            asked.flush()
            return json.loads(told.readline())

        yield ask
        asked.close()


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """A folder for filters, with a function that writes one."""

    def write(name: str, text: str, inside: str = "a") -> Path:
        path = tmp_path / inside / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path.parent

    return write
