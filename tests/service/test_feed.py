"""The feed of changes, and what plain SQL leaves half said."""

from __future__ import annotations

from mcban.service import bans, upkeep
from mcban.service.changes import BELOW, OVERLAP, ChangeFeed
from mcban.service.context import Context
from mcban.service.sync import sync
from tests.conftest import MakeContext
from tests.service.desk import IP, execute, fail, held, in_force


def test_a_feed_that_was_away_too_long_says_so_once(context: Context) -> None:
    """When changes were dropped that it never told, the feed says that everything must be looked at, once."""
    for n in range(BELOW // 100 + 2):
        values = ", ".join(f"('h{n}-{m}', '')" for m in range(100))
        execute(context, f"INSERT INTO mcban_change (ip, jail) VALUES {values}")
    feed = context.database.read(ChangeFeed)
    context.database.read(lambda t: feed.poll(t, 0))
    assert not feed.missed
    execute(context, "INSERT INTO mcban_change (ip, jail) VALUES ('x', 'a'), ('y', 'b')")
    last = context.database.read(lambda t: t.changes.last())
    execute(context, f"DELETE FROM mcban_change WHERE id < {last}")
    assert context.database.read(lambda t: feed.poll(t, 1)) == [("y", "b")]
    assert feed.missed
    for at in (2, OVERLAP + 1, OVERLAP + 2):  # also when what was seen before them is let go of
        context.database.read(lambda t, at=at: feed.poll(t, at))  # type: ignore[misc]
        assert not feed.missed


def test_a_feed_does_not_read_again_what_was_there_before_it(context: Context) -> None:
    """What is old is asked for until all that was open is committed, and then no more: an idle poll reads nothing."""
    execute(context, "INSERT INTO mcban_change (ip, jail) VALUES ('x', 'a'), ('y', 'b')")
    feed = context.database.read(ChangeFeed)
    context.database.read(lambda t: feed.poll(t, 0))
    assert feed._seen
    context.database.read(lambda t: feed.poll(t, OVERLAP + 1))
    assert not feed._seen
    execute(context, "INSERT INTO mcban_change (ip, jail) VALUES ('z', 'c')")
    assert context.database.read(lambda t: feed.poll(t, OVERLAP + 2)) == [("z", "c")]


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
    feed = context.database.read(ChangeFeed)
    for ip in (IP, "203.0.113.8"):
        feed.pass_over(fail(context, 5, ip).noted)
    execute(other, f"UPDATE fail2ban_ips SET reason = 'x' WHERE ip = '{IP}'")
    told = context.database.read(lambda t: feed.poll(t, 0))
    own = [] if context.database.sqlite_file else [("203.0.113.8", "mc-exim-1d")]
    assert sorted(told) == [(IP, "mc-exim-1d"), *own]
    context.database.read(lambda t: feed.poll(t, OVERLAP + 1))
    assert not feed._seen
