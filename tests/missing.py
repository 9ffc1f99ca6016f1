"""Where a test cannot run: the rule for all that needs root, a server or a package."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(why: str) -> NoReturn:
    """Skip the test, saying why; under CI, where everything must be there, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"must run under CI, but: {why}")
    pytest.skip(why)
