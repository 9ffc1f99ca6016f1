"""What Python's own parser makes of an expression: so that nobody reads it differently."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

Search = Callable[[str], re.Match[str] | None]


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


def bind_search(pattern: re.Pattern[str]) -> Search:
    """`pattern.search`, or `pattern.match` where that finds the same: `search` tries each place of a line in vain."""
    return pattern.match if is_anchored(pattern) else pattern.search


def is_anchored(pattern: re.Pattern[str]) -> bool:
    """Whether an expression can only match at the beginning of a text."""
    tree = read_tree(pattern)
    return tree is not None and _begins(tree, bool(pattern.flags & re.MULTILINE))


def _begins(sequence: Any, multiline: bool) -> bool:
    for operation, argument in sequence:
        name = str(operation)
        if name == "AT":
            if str(argument) == "AT_BEGINNING_STRING" or (str(argument) == "AT_BEGINNING" and not multiline):
                return True
        elif name == "SUBPATTERN":
            # group, flags set, flags unset, expression: `(?m:^x)` is not held to the beginning
            return not argument[1] & re.MULTILINE and _begins(argument[3], multiline)
        elif name == "BRANCH":
            return all(_begins(branch, multiline) for branch in argument[1])
        elif name not in {"ASSERT", "ASSERT_NOT"}:
            return False
    return False
