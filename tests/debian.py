"""Debian's packages, unpacked and never installed: for those that would start a service on the machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path


class MissingPackageError(Exception):
    """A package cannot be had; the message says why."""


def unpacked(folder: Path, *packages: str) -> Path:
    """The root of `packages`, unpacked together, fetched once into `folder`. Raises MissingPackageError."""
    folder.mkdir(parents=True, exist_ok=True)
    root, done = folder / "root", folder / "unpacked"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one run want it at once
        if not done.exists() or done.read_text().split() != list(packages):
            for package in packages:
                _fetch(folder, package, root)
            done.write_text(" ".join(packages))
    return root


def _fetch(folder: Path, package: str, root: Path) -> None:
    if _run(folder, "apt-get", "download", package):
        # A machine that was just made knows no packages yet.
        if os.geteuid() == 0:
            _run(folder, "apt-get", "update", "-qq")
        if why := _run(folder, "apt-get", "download", package):
            raise MissingPackageError(f"apt-get download {package}: {why}")
    file = next(folder.glob(f"{package}_*.deb"))
    if why := _run(folder, "dpkg", "-x", str(file), str(root)):
        raise MissingPackageError(f"dpkg -x {file}: {why}")


def _run(folder: Path, *command: str) -> str:
    """What went wrong, or nothing."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-300:] or f"exit {done.returncode}"
