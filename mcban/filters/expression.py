"""An expression of a rule: compiled only when it is wanted, and what Python's own parser makes of it, so that nobody
reads it differently."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

Search = Callable[[str], re.Match[str] | None]

_MOST_TREES = 1024
# What the parser lets pass and the compiler may refuse: looking behind, at more than the two colons of an IPv6 address,
# and nesting without end.
_DOUBTFUL = re.compile(r"\(\?<[=!](?!::\))")
_DEEP = 100


class Expression:
    """An expression that Python takes.

    Most rules of most filters never meet a line that could match. So it is parsed, and compiled when it is first
    searched for, which is best done by asking for `search` before a line is at hand. `flags` are all that hold for the
    whole of it, `groups` counts its groups, `groupindex` has the numbers of those with names, and one that
    `is_anchored` can only match at the beginning of a text.
    """

    __slots__ = ("_given", "_search", "flags", "groupindex", "groups", "is_anchored", "source")

    flags: int
    groups: int
    groupindex: Mapping[str, int]

    def __init__(self, source: str, flags: int = 0) -> None:
        """Raises re.error, OverflowError or RecursionError where Python does not take `source`."""
        self.source = source
        self._given = flags
        self._search: Search | None = None
        tree = self.tree
        self.is_anchored = tree is not None and _begins(tree, bool((flags | tree.state.flags) & re.MULTILINE))
        if tree is None or _DOUBTFUL.search(source) or source.count("(") > _DEEP:
            pattern = self._compile()
            self.flags, self.groups, self.groupindex = pattern.flags, pattern.groups, pattern.groupindex
        else:
            self.flags, self.groups = flags | tree.state.flags, tree.state.groups - 1
            self.groupindex = tree.state.groupdict

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and (self.source, self._given) == (other.source, other._given)

    def __hash__(self) -> int:
        return hash((self.source, self._given))

    @property
    def tree(self) -> Any:
        """See `read_tree`."""
        return read_tree(self.source, self._given)

    @property
    def search(self) -> Search:
        """`re.Pattern.search`, or `match` where that finds the same: `search` tries each place of a line in vain."""
        search = self._search
        if search is None:
            pattern = self._compile()
            search = self._search = pattern.match if self.is_anchored else pattern.search
        return search

    def _compile(self) -> re.Pattern[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(self.source, self._given)  # which keeps those of late


@lru_cache(maxsize=_MOST_TREES)
def read_tree(source: str, flags: int) -> Any:
    """The tree that Python's parser makes; None when it cannot be had. It is Python's private affair: should it change,
    what is built on it must be a short cut only. Kept until `forget_trees`, since each is asked for a few times.

    Raises re.error, OverflowError or RecursionError where Python does not take `source`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = import_module("re._parser").parse(source, flags)
            return tree if tree.state.groupdict is not None and tree.state.flags is not None else None
    except (AttributeError, ImportError, TypeError):
        return None


def forget_trees() -> None:
    """Free what `read_tree` keeps: for a hundred filters some megabytes."""
    read_tree.cache_clear()


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
