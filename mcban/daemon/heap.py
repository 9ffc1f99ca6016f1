"""The memory of the process: what was needed for a flood is given back to the system after it."""

from __future__ import annotations

import gc
from contextlib import suppress


def give_back() -> None:
    """Let the system have what is free. Takes some hundredths of a second."""
    import ctypes  # noqa: PLC0415  # rarely needed

    gc.collect()
    with suppress(OSError, AttributeError):  # the C library's own way, which not every one has
        ctypes.CDLL(None).malloc_trim(0)
