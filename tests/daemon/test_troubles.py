"""What is wrong is told once, whatever there is of it."""

from __future__ import annotations

import logging

import pytest

from mcban.daemon.troubles import Troubles
from mcban.firewall.base import Refusal


class Entry(str):
    """Counts how often it is compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Entry.compared += 1
        return str.__eq__(self, other)


def test_refusals_are_told_in_time_however_many_are_met_again() -> None:
    """A jail's thousands of bans that the kernel keeps refusing leave the engine time for all others."""
    troubles = Troubles()

    def met() -> list[Refusal]:
        return [Refusal("mc-exim-1d", Entry(f"10.0.{n // 256}.{n % 256}"), "the set is full") for n in range(3_000)]

    Entry.compared = 0
    for _ in range(3):
        again = met()
        troubles.forget_refusals(but=again)
        troubles.refused(again)
    assert len(troubles.status()["not_enforced"]) == 3_000
    assert Entry.compared < 100_000


def test_a_full_list_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Of bans refused in one jail for one reason some are named and all are counted; `status` has each in its JSON."""
    troubles = Troubles()
    full = [Refusal("mc-exim-1d", f"10.0.0.{n}", "the set is full") for n in range(200)]
    troubles.refused([*full, Refusal("mc-ssh-1d", "10.0.0.1", "the set is full")])
    troubles.refused(full)
    assert caplog.messages == [
        "not enforced: 10.0.0.0, 10.0.0.1, 10.0.0.2 and 197 more in mc-exim-1d: the set is full",
        "not enforced: 10.0.0.1 in mc-ssh-1d: the set is full",
    ]
    assert len(troubles.status()["not_enforced"]) == 201


def test_a_reason_that_only_counts_otherwise_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Of bans that somebody must decide about some end meanwhile: the log has one line, `status` the newest number, and
    the log one when that is over; an address, or a jail that ends in a number, is another reason."""
    caplog.set_level(logging.INFO, logger="mcban")
    troubles = Troubles()
    for left in (120, 119, 118):
        troubles.failed("tend", f"SQL knows nothing of {left} of the {left} bans in the kernel")
        troubles.failed("poll", f"SQL knows nothing of {left} of the {left} bans in the kernel")
    (said,) = troubles.status()["troubles"]
    assert "118 of the 118" in said
    troubles.succeeded("poll")
    troubles.succeeded("tend")
    for jail in ("mine-1", "mine-2"):
        troubles.failed("tend", f"set {jail} is there")
    assert [line.split()[0] for line in caplog.messages] == ["SQL", "over:", "set", "set"]


def test_what_is_not_done_any_more_is_forgotten_and_all_else_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Answers that take long, one after the other, bring no line anew of what is wrong all the time."""
    troubles = Troubles()
    for _ in range(3):
        troubles.failed("tend", "a set of others")
        troubles.failed("look_out", "out of order")
        troubles.forget(["look_out"])
    assert troubles.status()["troubles"] == ["a set of others"]
    assert caplog.messages.count("a set of others") == 1
