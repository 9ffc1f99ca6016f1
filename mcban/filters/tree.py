"""What Python's own parser makes of an expression: so that nobody reads it differently."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any


@lru_cache(maxsize=64)  # each is asked for a few times in a row
def read_tree(pattern: re.Pattern[str]) -> Any:
    """The tree of an expression; None when it cannot be had. The tree is Python's private affair: should it change,
    what is built on it must be a short cut only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module("re._parser").parse(pattern.pattern, pattern.flags)
    except Exception:  # noqa: BLE001
        return None
