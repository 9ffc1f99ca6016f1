"""A small disk of its own over a folder, which can be full: seen by this thread and what it starts, by nobody else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNS = 0x00020000


@dataclass(frozen=True)
class Disk:
    """A disk mounted at `folder`."""

    folder: Path

    def fill(self) -> None:
        """Leave no byte."""
        with (self.folder / "fill").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """There is room again."""
        (self.folder / "fill").unlink()


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@contextmanager
def small_disk(folder: Path, size: str = "4m") -> Iterator[Disk]:
    """Mount an empty disk over `folder`, in a mount namespace of this thread's own. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/mnt", os.O_RDONLY)
    here = Path.cwd()
    try:
        _call("unshare", _CLONE_NEWNS)
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
            yield Disk(folder)
        finally:
            _call("setns", before, _CLONE_NEWNS)
            os.chdir(here)
    finally:
        os.close(before)
