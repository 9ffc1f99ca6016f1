"""Port lists as rows have them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcban.core.model import Ports
from mcban.core.ports import join_ports, parse_ports

NAMES = {"smtp": 25, "submission": 587, "ms-sql-s": 1433, "nothing": 0}


def resolve(name: str) -> int:
    """A small /etc/services."""
    if name not in NAMES:
        raise OSError(name)
    return NAMES[name]


ports = st.integers(1, 65_535)
ranges = st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair)))
near = st.tuples(st.integers(1, 30), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
separators = st.sampled_from([",", " ", ", ", ",,", "\t"])


@example([(1, 1), (2, 2), (2, 3)], ",", ":")
@given(st.lists(st.one_of(ranges, near), min_size=1, max_size=12), separators, st.sampled_from(":-"))
def test_a_list_closes_exactly_the_ports_in_it(pairs: list[tuple[int, int]], separator: str, dash: str) -> None:
    """However it is written, in whatever order and overlap; it reads back as it shows."""
    text = separator.join(str(low) if low == high else f"{low}{dash}{high}" for low, high in pairs)
    parsed = parse_ports(text, resolve)
    assert closed(parsed) == {port for low, high in pairs for port in range(low, high + 1)}
    assert list(parsed.ranges) == sorted(set(parsed.ranges))
    assert all(a[1] + 1 < b[0] for a, b in zip(parsed.ranges, parsed.ranges[1:], strict=False))
    assert parse_ports(str(parsed), resolve) == parsed


def closed(parsed: Ports) -> set[int]:
    """Every port, one by one."""
    return {port for low, high in parsed.ranges for port in range(low, high + 1)}


@given(st.lists(st.lists(near, min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_group_closes_the_ports_of_all_its_jails(lists: list[list[tuple[int, int]]]) -> None:
    """The union, no port twice."""
    made = [parse_ports(",".join(f"{low}:{high}" for low, high in pairs), resolve) for pairs in lists]
    assert closed(join_ports(made)) == set().union(*(closed(parsed) for parsed in made))


def test_all_ports_win_over_some() -> None:
    """Where one jail of a group closes everything, the group does."""
    assert join_ports([parse_ports("25", resolve), parse_ports("all", resolve)]).everything
    assert str(parse_ports(" all ", resolve)) == "all"


def test_names_of_services_are_numbers() -> None:
    """smtp is 25; a name may have a dash."""
    assert str(parse_ports("smtp,submission ms-sql-s", resolve)) == "25,587,1433"


@pytest.mark.parametrize(
    "text",
    ["", " , ", "0", "65536", "99999999999999999999", "-1", "25;26", "smtps", "nothing", "30:20", "20:", ":20", "1:2:3",
     "all,25", "25 --dport 80", "2\u0665", "1.5", "smtp:30", "!25"],
)  # fmt: skip
def test_what_is_no_port_is_refused_in_one_line(text: str) -> None:
    """And never reaches the firewall."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_ports(text, resolve)
    assert "\n" not in str(caught.value)
