"""What the rows of the original become: bans, counts, blacklistings, allowances; what cannot be taken over is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.core.model import FOREVER
from mcban.service.adoption import adopt
from mcban.service.heritage import read_entry
from mcban.service.report import bans_in_force
from mcban.service.sync import sync
from mcban.store.database import Database
from tests import original
from tests.conftest import NOON
from tests.service.adoption.desk import DAY, IP, RECENT, Make, raw, rows
from tests.service.desk import held, sql_time


@pytest.mark.parametrize(
    ("given_rows", "expected"),
    [
        # (count, active, blacklisted, whitelisted, last hit) of each row → count, active, until, allowed
        ([(2, 1, 0, 0, NOON - 60)], (2, True, NOON - 60 + DAY, False)),
        ([(2, 1, None, None, NOON - 60)], (2, True, NOON - 60 + DAY, False)),
        ([(None, 1, None, None, NOON - 60)], (1, True, NOON - 60 + DAY, False)),
        ([(2, None, None, None, NOON - 60)], (2, False, None, False)),
        ([(2, 0, 0, 0, NOON - 60)], (2, False, None, False)),
        ([(2, 1, 0, 0, NOON - 9 * DAY)], (2, False, NOON - 8 * DAY, False)),
        ([(2, 1, 0, 0, None)], (2, True, NOON + DAY, False)),
        ([(0, 0, 0, 1, NOON - 60)], (0, False, None, True)),
        ([(4, 1, 0, 1, NOON - 60)], (4, False, None, True)),
        ([(2, 1, 0, 0, NOON - 60), (3, 0, 0, 0, NOON - 90)], (3, True, NOON - 60 + DAY, False)),
        ([(2, 0, 0, 0, NOON - 60), (1, 1, 0, 0, NOON - 90)], (2, True, NOON - 60 + DAY, False)),
        ([(2, 1, 0, 0, NOON - 60), (0, 0, 0, 1, None)], (2, False, None, True)),
        ([(5, 0, 1, 0, NOON - 60)], (5, False, None, False)),
    ],
)
def test_what_rows_mean(
    make: Make, old: str, given_rows: list[tuple[Any, ...]], expected: tuple[int, bool, int | None, bool]
) -> None:
    """One row of an address in a jail, or several that become one."""
    original.add(old, *((IP, "mc-exim-1d", *row[:4], row[4] and sql_time(row[4])) for row in given_rows))
    context = make(old)
    adopt(context)
    if given_rows[0][4] is None:
        # Not every server lets a time be NULL; without one the ban counts from now.
        assert rows(context)["mc-exim-1d"].active
        return
    row = rows(context)["mc-exim-1d"]
    assert (row.count, row.active, row.until, row.whitelisted) == expected
    assert not row.blacklisted
    sync(context)
    assert held(context) == (["mc-exim-1d"] if expected[1] else [])


def test_a_blacklisted_address_goes_to_the_blacklist_of_its_group(make: Make, old: str) -> None:
    """The original marked the row of a tier, and had a blacklist jail for each tier."""
    original.add(
        old,
        (IP, "mc-exim-1d", 4, 1, 1, 0, RECENT),
        (IP, "mc-exim-1w", 5, 1, 1, 0, RECENT),
        ("192.0.2.9", "mc-exim-1d-bl", 1, 1, 0, 0, RECENT),
        ("192.0.2.10", "mc-exim-bl", 1, 1, 1, 0, RECENT),
        ("192.0.2.11", "mc-exim-1d", 4, 1, 1, 1, RECENT),
    )
    context = make(old)
    adopt(context)
    sync(context)
    for ip in (IP, "192.0.2.9", "192.0.2.10"):
        assert held(context, ip) == ["mc-exim-bl"]
        assert rows(context, ip)["mc-exim-bl"].until == FOREVER
    assert held(context, "192.0.2.11") == []
    assert [rows(context)[f"mc-exim-{suffix}"].count for suffix in ("1d", "1w")] == [4, 5]


def test_a_disabled_blacklist_stays_disabled_and_that_is_said(make: Make, old: str) -> None:
    """So that nobody thinks its addresses were kept out."""
    original.execute(Database(old), "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-exim-bl'")
    original.add(old, (IP, "mc-exim-1d", 4, 1, 1, 0, RECENT))
    context = make(old)
    assert [line for line in adopt(context).to_mend if "mcban blacklist enable -j mc-exim" in line]
    sync(context)
    assert held(context) == []


def test_what_cannot_be_taken_over_is_named_and_kept(make: Make, old: str) -> None:
    """Names, garbage, ambiguous zeros, everybody, no jail; nothing that a terminal would obey is printed."""
    bad = ["mail.example.com", "\x1b[31mred", "010.2.3.4", "192.0.2.1-192.0.2.9", "0.0.0.0/0", "", "1.2.3.4; touch /x"]
    original.add(old, *((ip, "mc-exim-1d", 1, 1, 0, 0, RECENT) for ip in bad), (IP, None, 1, 1, 0, 0, RECENT))
    original.add(old, (None, "mc-exim-1d", 1, 1, 0, 0, RECENT), ("198.51.100.1", "gone-jail", 1, 1, 0, 0, RECENT))
    adopted = adopt(make(old))
    lines = [line for line in adopted.to_mend if line.startswith("fail2ban_ips")]
    assert len(lines) == 3, lines
    assert lines[0].startswith("fail2ban_ips: 1 ban is in jails that do not exist: kept, not enforced: 198.51.100.1")
    assert lines[1].startswith("fail2ban_ips: 8 rows name no address or network that can be banned")
    assert "'\\x1b[31mred' in mc-exim-1d" in lines[1]
    assert lines[2].startswith("fail2ban_ips: 1 row names no jail")
    assert all(line.isprintable() for line in (*adopted.done, *adopted.to_mend))
    assert len(raw(old, "mcban_adopted_ips")) == len(bad) + 3
    assert len(raw(old, "fail2ban_ips")) == 1


def test_allowed_names_and_networks_are_taken_over(make: Make, old: str) -> None:
    """Everybody, too, since somebody said so; and that is told."""
    for ip in ("mail.example.com", "192.0.2.0/24", "0.0.0.0/0"):
        original.add(old, (ip, "mc-exim-1d", 0, 0, 0, 1, RECENT))
    context = make(old)
    assert [line for line in adopt(context).to_mend if "nobody is banned there" in line]
    assert {row.ip for row in context.database.read(lambda t: t.addresses.allowing())} == {
        "mail.example.com",
        "192.0.2.0/24",
        "0.0.0.0/0",
    }


def test_spellings_of_one_address_become_one_row(make: Make, old: str) -> None:
    """Upper case, mapped, zeros, masks; and jails in another case, which the original took for the same."""
    for spelled in ("2001:DB8:0::1", "2001:db8::1", " 2001:db8::0001 "):
        original.add(old, (spelled, "mc-exim-1d", 1, 1, 0, 0, RECENT))
    for spelled in ("::ffff:203.0.113.7", "203.0.113.007", IP):
        original.add(old, (spelled, "MC-Exim-1d", 1, 1, 0, 0, RECENT))
    original.add(old, ("198.51.100.9/255.255.255.0", "mc-exim-1d", 1, 1, 0, 0, RECENT))
    context = make(old)
    done = adopt(context).done
    assert sorted(ban.ip for ban in bans_in_force(context, None)) == ["198.51.100.0/24", "2001:db8::1", IP]
    (merged,) = [line for line in done if "more than once" in line]
    assert "2 addresses" in merged
    assert f"{IP} in mc-exim-1d (3)" in merged


@given(
    st.one_of(
        st.text(max_size=30),
        st.ip_addresses().map(str),
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    ),
    st.booleans(),
)
def test_any_text_reads_as_an_entry_or_as_none(spelled: str, names: bool) -> None:
    """Never an error; and what is read, reads as itself."""
    entry = read_entry(spelled, names=names)
    assert entry is None or read_entry(entry, names=names) == entry
