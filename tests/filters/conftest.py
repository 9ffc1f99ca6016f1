"""Debian's fail2ban package for the tests that hold mcban against it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fail2ban_package import MODULES, MissingPackageError, unpack


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The root of the unpacked package."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    try:
        return unpack(shared / "fail2ban")
    except MissingPackageError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


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
