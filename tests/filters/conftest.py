"""Debian's fail2ban package for the tests that hold mcban against it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fail2ban_package import MODULES


@pytest.fixture(scope="session")
def ask_fail2ban(package):
    """Asks fail2ban's own modules: see oracle.py."""
    env = {**os.environ, "PYTHONPATH": str((package / MODULES).parent), "TZ": "UTC"}
    program = [sys.executable, str(Path(__file__).with_name("oracle.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:

        def ask(job):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
