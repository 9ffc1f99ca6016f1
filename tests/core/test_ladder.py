"""The ladder: one number of hits, four tiers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core import ladder
from mcban.core.ladder import Step
from mcban.core.model import Kind


@given(st.integers(1, 2500))
def test_a_generated_ladder_ascends_whatever_its_number(hits: int) -> None:
    """One number gives four tiers that ascend in hits, look-back and ban, so that none can be skipped."""
    steps = ladder.generate(hits)
    assert ladder.faults(steps) == []
    assert [s.maxretry for s in steps] == [hits, 2 * hits, 3 * hits, 4 * hits]


def test_the_ladder_is_the_one_in_the_specification() -> None:
    """Each tier looks back over twice the ban of the tier below."""
    assert ladder.generate(5) == (
        Step("1d", 5, 3600, 86_400),
        Step("1w", 10, 172_800, 604_800),
        Step("1m", 15, 1_209_600, 2_592_000),
        Step("1y", 20, 5_184_000, 31_536_000),
    )


def test_the_shipped_groups_are_those_of_the_original() -> None:
    """ssh, exim and webauth with their hits for a day and ports."""
    assert [(g.name, g.hits, g.port) for g in ladder.SHIPPED] == [
        ("mc-ssh", 3, "22"),
        ("mc-exim", 5, "25,465,587"),
        ("mc-webauth", 5, "80,443"),
    ]


@pytest.mark.parametrize("hits", [0, -1])
def test_a_ladder_wants_at_least_one_hit(hits: int) -> None:
    """Nobody is banned for nothing."""
    with pytest.raises(ValueError, match=f"not {hits}"):
        ladder.generate(hits)


numbers = st.builds(
    Step,
    st.sampled_from(["a", "b", "c"]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.one_of(st.just(-1), st.integers(1, 4)),
)


@given(st.lists(numbers, max_size=4))
def test_a_fault_is_said_for_every_number_that_does_not_rise(steps: list[Step]) -> None:
    """Hits, look-back and ban must all rise from tier to tier; for ever is above any time."""
    expected = 0
    for low, high in itertools.pairwise(steps):
        expected += high.maxretry <= low.maxretry
        expected += high.findtime <= low.findtime
        expected += low.bantime == -1 or (high.bantime != -1 and high.bantime <= low.bantime)
    assert len(ladder.faults(steps)) == expected


def test_a_fault_names_the_tier_and_the_value() -> None:
    """So that the administrator sees which number to change."""
    (said,) = ladder.faults([Step("1d", 5, 10, 10), Step("1w", 5, 20, 20)])
    assert said == "maxretry 5 of 1w is not above 5 of 1d"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mc-exim-1d", ("mc-exim", Kind.TIER, "1d")),
        ("mc-exim-1y", ("mc-exim", Kind.TIER, "1y")),
        ("mc-exim-bl", ("mc-exim", Kind.BLACKLIST, "")),
        ("my-jail", ("my-jail", Kind.CUSTOM, "")),
        ("my-jail-2d", ("my-jail-2d", Kind.CUSTOM, "")),
        ("1d", ("1d", Kind.CUSTOM, "")),
        ("-1d", ("-1d", Kind.CUSTOM, "")),
        ("-bl", ("-bl", Kind.CUSTOM, "")),
        ("bl", ("bl", Kind.CUSTOM, "")),
        ("a-1d-bl", ("a-1d", Kind.BLACKLIST, "")),
    ],
)
def test_a_jails_name_says_its_group_and_kind(name: str, expected: tuple[str, Kind, str]) -> None:
    """A tier's and a blacklist's name ends in a way of its own; any other stands alone."""
    assert ladder.split_name(name) == expected


def test_tiers_stand_in_their_order() -> None:
    """From the day to the year; a custom jail is alone."""
    assert [ladder.rank(f"g-{suffix}") for suffix in ladder.TIER_SUFFIXES] == [0, 1, 2, 3]
    assert ladder.rank("my-jail") == 0


def test_a_ladder_is_shown_in_one_line() -> None:
    """With durations as people write them."""
    assert ladder.table(ladder.generate(3)[:2]) == "1d 3 in 1h for 1d, 1w 6 in 2d for 1w"
