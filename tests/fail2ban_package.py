"""Debian's fail2ban package, unpacked and never installed: its filters and the sample lines that come with them.

They are fail2ban's own, under its licence, and so are fetched when a test wants them instead of standing here.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

FILTERS = Path("etc/fail2ban/filter.d")
MODULES = Path("usr/lib/python3/dist-packages/fail2ban")
SAMPLES = MODULES / "tests/files/logs"


class MissingPackageError(Exception):
    """The package cannot be had; the message says why."""


def unpack(folder: Path) -> Path:
    """The root of an unpacked package: `FAIL2BAN_ROOT`, else fetched once into `folder`; raises MissingPackageError."""
    if named := os.environ.get("FAIL2BAN_ROOT"):
        root = Path(named)
        if not (root / SAMPLES).is_dir():
            raise MissingPackageError(f"FAIL2BAN_ROOT={named} has no {SAMPLES}")
        return root
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one run want it at once
        if not (root / SAMPLES).is_dir():
            _fetch(folder, root)
    return root


def _fetch(folder: Path, root: Path) -> None:
    if _run(folder, "apt-get", "download", "fail2ban"):
        # A machine that was just made knows no packages yet.
        if os.geteuid() == 0:
            _run(folder, "apt-get", "update", "-qq")
        if why := _run(folder, "apt-get", "download", "fail2ban"):
            raise MissingPackageError(f"apt-get download fail2ban: {why}; or set FAIL2BAN_ROOT to an unpacked package")
    package = next(folder.glob("fail2ban_*.deb"))
    if why := _run(folder, "dpkg", "-x", str(package), str(root)):
        raise MissingPackageError(f"dpkg -x {package}: {why}")


def _run(folder: Path, *command: str) -> str:
    """What went wrong, or nothing."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-300:] or f"exit {done.returncode}"
