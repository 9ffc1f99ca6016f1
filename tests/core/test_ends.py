"""Ends of bans, kept small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcban.core import ends as module
from mcban.core.ends import Ends
from mcban.core.model import FOREVER

entries = st.sampled_from(["203.0.113.7", "203.0.113.8", "198.51.100.0/24", "2001:db8::1", "2001:db8::/64"])
said = st.dictionaries(entries, st.one_of(st.integers(0, 1 << 33), st.just(FOREVER)))
steps = st.lists(st.one_of(said, st.sets(entries)), max_size=30)


@given(first=said, steps=steps, room=st.integers(0, 9))
def test_they_are_those_of_a_dict(first: dict[str, int], steps: list[dict[str, int] | set[str]], room: int) -> None:
    """Whatever comes and goes, and however often both pieces become one."""
    before, module._ROOM = module._ROOM, room
    try:
        ends, plain = Ends(first), dict(first)
        for step in steps:
            if isinstance(step, dict):
                ends.update(step)
                plain.update(step)
            else:
                ends.discard(step)
                plain = {entry: end for entry, end in plain.items() if entry not in step}
            assert ends.unpack() == plain
    finally:
        module._ROOM = before


def test_a_journal_does_not_grow_for_ever() -> None:
    """An entry that comes and goes a hundred thousand times takes no more than ten thousand."""
    ends = Ends({"203.0.113.7": 5})
    for n in range(100_000):
        ends.update({"203.0.113.8": n})
        ends.discard(["203.0.113.8"])
    assert ends.unpack() == {"203.0.113.7": 5}
    assert len(ends._ends) <= 3 * module._ROOM
