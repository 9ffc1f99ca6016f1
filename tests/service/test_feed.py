"""The feed of changes, and what plain SQL leaves half said."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis.strategies import DataObject, booleans, data, integers, lists
from sqlalchemy import event, text

from mcban.service import bans, upkeep
from mcban.service.changes import LATE, ChangeFeed, News
from mcban.service.context import Context
from mcban.service.sync import sync
from mcban.store.changes import Extent
from mcban.store.database import Transaction
from tests.conftest import MakeContext
from tests.service.desk import IP, execute, fail, held, in_force


class Reader:
    """Whoever asks a feed and acts upon what it says; `now` is his clock."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.feed = context.database.glance(ChangeFeed)

    def ask(self, now: float) -> News | None:
        """What there is to tell, not acted upon."""
        return self.context.database.glance(lambda t: self.feed.poll(t, now))

    def hear(self, now: float) -> list[tuple[str, str]] | None:
        """What changed, acted upon; None when everything must be looked at."""
        news = self.ask(now)
        if news is None:
            return []
        self.feed.told(news)
        return None if news.missed else list(news.changed)


def note(context: Context, *ips: str) -> None:
    """Changes, each with the number that comes next."""
    for ip in ips:
        execute(context, f"INSERT INTO mcban_change (ip, jail) VALUES ('{ip}', 'j')")


def questions(context: Context) -> list[str]:
    """What the database is asked from now on."""
    asked: list[str] = []
    event.listen(context.database.engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
    return asked


def test_each_change_is_told_once(context: Context) -> None:
    """Those from before are not."""
    execute(context, "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-ssh-1w'")
    reader = Reader(context)
    assert reader.hear(0) == []
    fail(context, 5)
    execute(context, "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-ssh-1d'")
    assert reader.hear(1) == [(IP, "mc-exim-1d"), ("", "mc-ssh-1d")]
    for now in (1, 2, LATE + 2, 3 * LATE):
        assert reader.hear(now) == []
    fail(context, 5)
    assert reader.hear(3 * LATE + 1) == [(IP, "mc-exim-1w")]


def test_what_was_not_acted_upon_is_told_again(context: Context) -> None:
    """With what came since: nothing is lost when something goes wrong in between."""
    reader = Reader(context)
    note(context, "x")
    first = reader.ask(0)
    note(context, "y")
    again = reader.ask(1)
    assert first is not None and again is not None
    assert (first.changed, again.changed) == ((("x", "j"),), (("x", "j"), ("y", "j")))
    reader.feed.told(again)
    assert reader.hear(2) == []


def test_nothing_new_takes_one_question(context: Context) -> None:
    """However many changes there are, and were told."""
    note(context, *(f"h{n}" for n in range(20)))
    reader = Reader(context)
    note(context, "x")
    assert reader.hear(0) == [("x", "j")]
    asked = questions(context)
    for now in range(5):
        assert reader.hear(now) == []
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("when", "net"), [("before the feed is made", 7), ("between two polls", 57), ("at the last moment", 107)]
)
def test_a_change_that_commits_late_is_told(context: Context, when: str, net: int) -> None:
    """A transaction that was open meanwhile commits a lower number than one that was told already."""
    if context.database.sqlite_file is not None:
        return  # there is one writer at a time: numbers are committed in their order
    reader = Reader(context)
    # Addresses of no other test: InnoDB locks the place of a row that was deleted a moment ago.
    with context.database.engine.connect() as slow, slow.begin():
        slow.execute(text("INSERT INTO fail2ban_ips (ip, jail) VALUES (:ip, 'slow')"), {"ip": f"198.18.{net}.1"})
        execute(context, f"INSERT INTO fail2ban_ips (ip, jail) VALUES ('198.19.{net}.2', 'quick')")
        if when == "before the feed is made":
            reader = Reader(context)
        else:
            assert reader.hear(0) == [(f"198.19.{net}.2", "quick")]
        if when == "at the last moment":
            assert reader.hear(LATE - 10) == []
    at = LATE - 5
    assert [reader.hear(now) for now in (at, at + 1, 2 * LATE)] == [[(f"198.18.{net}.1", "slow")], [], []]


@given(data())
@settings(max_examples=60, deadline=None)
def test_whatever_order_numbers_become_visible_in_each_is_told_once(data: DataObject) -> None:
    """Gaps, as of Galera's nodes and of what was undone; late ones; old ones dropped; what the asker did himself."""
    numbers = data.draw(lists(integers(1, 60), unique=True, min_size=1, max_size=40))
    visible: dict[int, tuple[str, str]] = {}
    transaction = cast(Transaction, SimpleNamespace(changes=_Visible(visible), link=1))
    known = data.draw(integers(0, len(numbers)))
    visible.update((number, (str(number), "j")) for number in numbers[:known])
    feed = ChangeFeed(transaction)
    told: Counter[int] = Counter()
    now = 0.0
    for number in numbers[known:]:
        visible[number] = (str(number), "j")
        if data.draw(booleans()):
            now += 1
            news = feed.poll(transaction, now)
            if news is not None and data.draw(booleans()):
                feed.told(news)
                told.update(int(ip) for ip, _ in news.changed)
    for _ in range(2):
        news = feed.poll(transaction, now := now + 1)
        if news is not None:
            feed.told(news)
            told.update(int(ip) for ip, _ in news.changed)
    assert told == Counter(numbers[known:])


class _Visible:
    """`mcban_change` as a feed asks it."""

    def __init__(self, rows: dict[int, tuple[str, str]]) -> None:
        self._rows = rows

    def extent(self, low: int, high: int) -> Extent:
        """As `ChangeTable.extent`."""
        between = sum(low < number <= high for number in self._rows)
        return Extent(min(self._rows, default=0), max(self._rows, default=0), between)

    def since(self, number: int) -> list[tuple[int, str, str]]:
        """As `ChangeTable.since`."""
        return sorted((n, *what) for n, what in self._rows.items() if n > number)

    def newest(self, most: int) -> list[int]:
        """As `ChangeTable.newest`."""
        return sorted(self._rows, reverse=True)[:most]


def test_a_feed_that_was_away_too_long_says_so_once(context: Context) -> None:
    """When changes were dropped that it never told, everything must be looked at, once, and before anything else."""
    note(context, "a", "b")
    reader = Reader(context)
    note(context, "x", "y", "z")
    last = context.database.read(lambda t: t.changes.last())
    execute(context, f"DELETE FROM mcban_change WHERE id < {last}")
    unheard = reader.ask(1)
    assert unheard is not None and unheard.missed
    assert [reader.hear(now) for now in (2, 3, LATE + 4)] == [None, [], []]
    note(context, "n")
    assert reader.hear(LATE + 5) == [("n", "j")]


def test_changes_that_were_told_may_be_dropped(context: Context) -> None:
    """The oldest notes go without anybody's looking at everything."""
    reader = Reader(context)
    note(context, "x", "y", "z")
    assert reader.hear(0) == [("x", "j"), ("y", "j"), ("z", "j")]
    last = context.database.read(lambda t: t.changes.last())
    execute(context, f"DELETE FROM mcban_change WHERE id < {last}")
    assert reader.hear(1) == []


@pytest.mark.parametrize("what", ["DELETE FROM mcban_change", "TRUNCATE TABLE mcban_change"])
def test_after_the_notes_were_lost_everything_is_looked_at(context: Context, what: str) -> None:
    """An older copy of the database, or another: numbers that were told are not there."""
    if context.database.sqlite_file is not None and what.startswith("TRUNCATE"):
        return
    note(context, "x", "y")
    reader = Reader(context)
    execute(context, what)
    assert [reader.hear(now) for now in (1, 2)] == [None, []]
    note(context, "n")
    assert reader.hear(3) == [("n", "j")]


def test_after_a_lost_connection_everything_is_looked_at(context: Context) -> None:
    """The next one may lead to another server, whose numbers mean other changes; no error is made of it."""
    if context.database.sqlite_file is not None:
        return
    reader = Reader(context)
    note(context, "x")
    mine, end = {
        "mysql": ("SELECT CONNECTION_ID()", "KILL CONNECTION {}"),
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    }[context.database.engine.dialect.name]
    number = context.database.glance(lambda t: t.connection.exec_driver_sql(mine).scalar_one())
    execute(context, end.format(number))
    assert [reader.hear(now) for now in (1, 2)] == [None, []]
    note(context, "y")
    assert reader.hear(3) == [("y", "j")]


def test_a_whitelisting_by_sql_that_is_taken_back_bans_nobody(context: Context) -> None:
    """`active` is 1 by default: a row that only allowed is no ban once it allows no more."""
    execute(context, "INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('203.0.113.50', 'mc-exim-1d', 1)")
    upkeep.take_over(context)
    execute(context, "UPDATE fail2ban_ips SET whitelisted = 0 WHERE ip = '203.0.113.50'")
    upkeep.take_over(context)
    assert in_force(context, "203.0.113.50") == [] and held(context, "203.0.113.50") == []


def test_allowing_by_sql_lifts_what_it_covers_and_it_stays_lifted(context: Context) -> None:
    """A network whitelisted by plain SQL ends the bans in it, in SQL too; taking it back brings none of them back."""
    bans.ban(context, "mc-exim", ["203.0.113.50"], None, force=False, yes=False)
    bans.ban(context, "mc-ssh", ["203.0.113.50"], None, force=False, yes=False)
    before, _ = upkeep.take_over(context)
    execute(context, "INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('203.0.113.0/26', 'mc-exim', 1)")
    world, said = upkeep.take_over(context, before)
    assert in_force(context, "203.0.113.50") == [f"mc-ssh-{tier}" for tier in ("1d", "1m", "1w", "1y")]
    assert len(said) == 4
    execute(context, "UPDATE fail2ban_ips SET whitelisted = 0 WHERE ip = '203.0.113.0/26'")
    assert upkeep.take_over(context, world)[1] == []
    sync(context)
    assert held(context, "203.0.113.50") == [f"mc-ssh-{tier}" for tier in ("1d", "1m", "1w", "1y")]


def test_what_the_engine_did_itself_is_not_told_to_it(make_context: MakeContext) -> None:
    """Where that is certain; what others do meanwhile, to the same address too, is told."""
    context, other = make_context(), make_context()
    reader = Reader(context)
    for ip in (IP, "203.0.113.8"):
        reader.feed.pass_over(fail(context, 5, ip).noted)
    execute(other, f"UPDATE fail2ban_ips SET reason = 'x' WHERE ip = '{IP}'")
    reader.feed.pass_over(fail(context, 5, "203.0.113.9").noted)
    own = [] if context.database.sqlite_file else [(ip, "mc-exim-1d") for ip in ("203.0.113.8", "203.0.113.9")]
    assert sorted(reader.hear(0) or []) == [(IP, "mc-exim-1d"), *own]
    assert reader.hear(1) == []
