"""A clock that is wrong, for one process and its children: Debian's libfaketime, unpacked and never installed."""

from __future__ import annotations

from pathlib import Path
from sysconfig import get_config_var

from tests.debian import unpacked


def wrong_clock(folder: Path, seconds: int) -> dict[str, str]:
    """The environment in which a process sees the clock so far ahead. The package is fetched once into `folder`. Raises
    MissingPackageError."""
    root = unpacked(folder, "libfaketime")
    library = root / "usr/lib" / str(get_config_var("MULTIARCH")) / "faketime/libfaketimeMT.so.1"
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}s",
        "NO_FAKE_STAT": "1",
    }
