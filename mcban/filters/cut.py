"""What is certain about the part of a line that a date's expression cuts out.

Of the expression's tree, as Python's own parser makes it, two things are read: which characters may stand next to that
part, so that a rule's words are known to be whole in the line with its date; and whether the part has all that the date
says, so that a moment need be worked out once only. Where the tree says nothing certain, everything is possible.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from mcban.filters.charsets import ALL, WIDE, WORD, read_set

NO_WORD = ALL & ~WORD | WIDE
"""Every character that may be neither letter, digit nor underscore."""


class Cut(NamedTuple):
    """The characters (`charsets.py`) that may stand before and behind what is cut out, none where that is at an edge of
    the line; and whether the moment follows from what is cut out alone."""

    before: int
    behind: int
    decides: bool

    def joins(self, before: int, following: int) -> bool:
        """Whether to cut it out may make one of the characters `following` follow one of `before`."""
        return bool(before & self.before and following & self.behind)


UNKNOWN = Cut(ALL, ALL, decides=False)
NOTHING = Cut(0, 0, decides=False)
"""Nothing is cut out."""
BETWEEN_WORDS = Cut(NO_WORD, NO_WORD, decides=True)


class Edge(NamedTuple):
    """What holds at an end of an expression: the characters of the line that may stand there beyond it, and those where
    there is a letter, digit or underscore on its own side."""

    beyond: int
    beyond_word: int


OPEN = Edge(ALL, ALL)
EDGE_OF_WORD = Edge(ALL, NO_WORD)
NEXT_TO_NO_WORD = Edge(NO_WORD, NO_WORD)


def read_cut(tree: Any, fields: Collection[int], opening: Edge, end: Edge, *, whole: bool) -> Cut:
    """What the expression of this tree cuts out: the `whole` of it, or its first group. `fields` are the groups of the
    date's fields."""
    place = _whole(tree) if whole else _find(tree, 1)
    if place is None:
        return UNKNOWN
    if not place.inside:
        return NOTHING
    return _cut(place, opening, end, decides=whole or {1, *_groups(place.inside)}.issuperset(fields))


class _Place(NamedTuple):
    """A group's content, and what stands before and behind it in its expression."""

    before: list[Any]
    inside: list[Any]
    behind: list[Any]


def _whole(sequence: Any) -> _Place:
    """All of an expression but the line's beginning and end."""
    items = list(sequence)
    first = 1 if items and str(items[0][1]).startswith("AT_BEGINNING") else 0
    last = len(items) - (1 if len(items) > first and str(items[-1][1]).startswith("AT_END") else 0)
    return _Place(items[:first], items[first:last], items[last:])


def _find(sequence: Any, number: int) -> _Place | None:
    """Where a group is that takes part in every match; None for others."""
    items = list(sequence)
    for index, (operation, argument) in enumerate(items):
        inner = _inner(str(operation), argument)
        if inner is None:
            continue
        if str(operation) == "SUBPATTERN" and argument[0] == number:
            return _Place(items[:index], list(inner), items[index + 1 :])
        place = _find(inner, number)
        if place:
            return _Place(items[:index] + place.before, place.inside, place.behind + items[index + 1 :])
    return None


def _inner(name: str, argument: Any) -> Any:
    if name == "SUBPATTERN":
        return argument[3]
    return argument if name == "ATOMIC_GROUP" else None


def _groups(node: Any) -> Iterator[int]:
    """The numbers of all groups in a part of a tree."""
    parts = node if isinstance(node, list | tuple) else getattr(node, "data", ())
    if len(parts) == 2 and str(parts[0]) == "SUBPATTERN" and parts[1][0]:
        yield parts[1][0]
    for part in parts:
        yield from _groups(part)


_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}


def _cut(place: _Place, opening: Edge, end: Edge, *, decides: bool) -> Cut:
    first, last = (_walk(place.inside, backwards=backwards) for backwards in (False, True))
    before, behind = _walk(place.before, backwards=True), _walk(place.behind, backwards=False)
    return Cut(before.beside(first, opening), behind.beside(last, end), decides)


class _Reach(NamedTuple):
    """What a walk from one end of a sequence meets first: the characters, whether they are all of words, whether there
    may be none, and whether there must be none, since the line ends there; whether words end there."""

    characters: int
    words: bool
    empty: bool
    closed: bool = False
    edge: bool = False

    def beside(self, inner: _Reach, end: Edge) -> int:
        """The characters next to what is met first from the other side, `end` being what holds beyond the sequence."""
        in_word = inner.words and not inner.empty
        if self.edge:
            return self.characters | (NO_WORD if in_word else ALL)
        if self.closed or not self.empty:
            return self.characters
        return self.characters | (end.beyond_word if in_word else end.beyond)


_NONE_MET = _Reach(0, words=True, empty=True)
_ANYTHING = _Reach(ALL, words=False, empty=True)


def _walk(sequence: Iterable[Any], *, backwards: bool) -> _Reach:
    characters, words = 0, True
    for operation, argument in reversed(list(sequence)) if backwards else sequence:
        met = _meet(str(operation), argument, backwards=backwards)
        characters, words = characters | met.characters, words and met.words
        if met.closed or met.edge or not met.empty:
            return _Reach(characters, words, met.empty, met.closed, met.edge)
    return _Reach(characters, words, empty=True)


def _meet(name: str, argument: Any, *, backwards: bool) -> _Reach:
    """As `_walk`, for one item."""
    inner = _inner(name, argument)
    if inner is not None:
        return _walk(inner, backwards=backwards)
    if name in _REPEATS:
        met = _walk(argument[2], backwards=backwards)
        return met if argument[0] else met._replace(empty=True, closed=False, edge=False)
    if name == "BRANCH":
        each = [_walk(branch, backwards=backwards) for branch in argument[1]]
        characters = reduce(or_, (one.characters for one in each), 0)
        return _Reach(characters, all(one.words for one in each), any(one.empty for one in each))
    return _meet_one(name, argument, backwards=backwards)


def _meet_one(name: str, argument: Any, *, backwards: bool) -> _Reach:
    if name == "AT":
        at = str(argument)
        closed = at.startswith("AT_BEGINNING" if backwards else "AT_END")
        return _NONE_MET._replace(closed=closed, edge=at == "AT_BOUNDARY")
    if name in {"ASSERT", "ASSERT_NOT"}:
        return _NONE_MET
    characters = read_set(name, argument, folded=True)
    return _ANYTHING if characters is None else _Reach(characters, _is_word(name, argument), empty=False)


def _is_word(name: str, argument: Any) -> bool:
    """Whether a node takes nothing but letters, digits and the underscore."""
    if name == "LITERAL":
        return bool(argument < 128 and WORD >> argument & 1)
    return name == "IN" and all(map(_is_word_member, argument))


def _is_word_member(member: Any) -> bool:
    kind, value = str(member[0]), member[1]
    if kind == "RANGE":
        return all(_is_word("LITERAL", code) for code in range(value[0], min(value[1], 128) + 1))
    return _is_word(kind, value) or (kind == "CATEGORY" and str(value) in {"CATEGORY_DIGIT", "CATEGORY_WORD"})
