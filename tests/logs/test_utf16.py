"""What is taken for UTF-16, and what is not."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from mcban.logs import is_utf16

LINES = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30), max_size=5).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)


@given(st.integers(0, 300), LINES)
@example(1, "\n")
@example(1, "a\n")
def test_a_run_of_zeros_is_no_utf16(zeros: int, lines: str) -> None:
    """Nobody is told to convert a log because a crash left zeros in it, few or many, with lines behind them or none."""
    assert not is_utf16(bytes(zeros) + lines.encode())


@given(st.sampled_from(["utf-16-le", "utf-16-be"]), st.booleans(), st.sampled_from("äß€日"), LINES)
def test_a_line_with_a_date_in_utf16_is_recognised(encoding: str, marked: bool, letter: str, lines: str) -> None:
    """Whichever byte comes first, and whatever else the lines hold."""
    text = f"2026-11-22 10:00:00 {letter}\n{lines}"
    assert is_utf16((marked * "\ufeff" + text).encode(encoding))
