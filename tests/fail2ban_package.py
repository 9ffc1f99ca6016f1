"""Debian's fail2ban package, unpacked and never installed: its filters and the sample lines that come with them.

They are fail2ban's own, under its licence, and so are fetched when a test wants them instead of standing here.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.debian import MissingPackageError, unpacked

FILTERS = Path("etc/fail2ban/filter.d")
MODULES = Path("usr/lib/python3/dist-packages/fail2ban")
SAMPLES = MODULES / "tests/files/logs"


def unpack(folder: Path) -> Path:
    """The root of an unpacked package: `FAIL2BAN_ROOT`, else fetched once into `folder`; raises MissingPackageError."""
    if named := os.environ.get("FAIL2BAN_ROOT"):
        root = Path(named)
        if not (root / SAMPLES).is_dir():
            raise MissingPackageError(f"FAIL2BAN_ROOT={named} has no {SAMPLES}")
        return root
    try:
        return unpacked(folder, "fail2ban")
    except MissingPackageError as error:
        raise MissingPackageError(f"{error}; or set FAIL2BAN_ROOT to an unpacked package") from None
