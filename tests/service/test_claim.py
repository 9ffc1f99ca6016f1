"""The name of a node is one engine's at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mcban.service.changes import ChangeFeed
from mcban.service.claim import BEAT, LEASE, LostNameError, NodeName
from mcban.service.context import Context
from tests.conftest import Machine, MakeContext
from tests.service.desk import execute


def test_a_name_that_is_in_use_is_refused_in_one_line(context: Context, machine: Machine) -> None:
    """It says by whom, and what to do; after the lease, with nothing heard, it may be taken."""
    machine.protected["198.51.100.1"] = "an address of this host"
    first, second = NodeName(context, "one"), NodeName(context, "another")
    first.take()
    machine.now += 5
    with pytest.raises(LostNameError) as caught:
        second.take()
    said = str(caught.value)
    assert caught.value.exit_status == 1 and "\n" not in said
    assert "an engine on 198.51.100.1 is node here of this database already, seen 5 s ago" in said
    assert f"try again in {LEASE - 5} s" in said
    machine.now += LEASE
    second.take()


def test_saying_so_keeps_the_name(context: Context, machine: Machine) -> None:
    """For as long as it is said often enough."""
    first = NodeName(context, "one")
    first.take()
    for _ in range(10):
        machine.now += int(BEAT)
        assert first.keep() == ""
        with pytest.raises(LostNameError):
            NodeName(context, "another").take()


def test_the_others_hear_of_a_nodes_addresses(context: Context, machine: Machine) -> None:
    """They protect them: when the node begins, and when it is given another; not each time that it says it is there."""
    first = NodeName(context, "one")

    def heard() -> bool:
        before = context.database.read(lambda t: t.changes.last())
        first.take()
        return context.database.read(lambda t: t.changes.last()) > before

    machine.protected["198.51.100.1"] = "an address of this host"
    assert [heard(), heard()] == [True, False]
    machine.protected["198.51.100.2"] = "an address of this host"
    assert [heard(), heard()] == [True, False]


def test_the_same_machine_begins_anew_at_once(context: Context) -> None:
    """After a kill nobody said that it ended."""
    NodeName(context, "one").take()
    again = NodeName(context, "one")
    again.take()
    assert again.keep() == ""


def test_a_name_that_was_left_is_free_at_once(context: Context) -> None:
    """For another machine, too; whoever has lost it leaves it to the one that has it."""
    first, second = NodeName(context, "one"), NodeName(context, "another")
    first.take()
    first.leave()
    second.take()
    first.leave()
    with pytest.raises(LostNameError):
        NodeName(context, "third").take()


def test_of_two_copies_of_a_machine_the_first_stays(context: Context, machine: Machine) -> None:
    """The second looks like the first after a restart, and is told when it next says that it is there."""
    first, second = NodeName(context, "one"), NodeName(context, "one")
    first.take()
    machine.now += int(BEAT)
    first.keep()
    second.take()
    assert "wanted to be node here too" in first.keep()
    with pytest.raises(LostNameError, match="and was so before"):
        second.keep()
    assert first.keep() == ""


def test_after_a_time_without_the_database_a_name_is_still_ones_own(context: Context, machine: Machine) -> None:
    """Whoever took it meanwhile has it for less long; a row that somebody deleted is made again."""
    first, second = NodeName(context, "one"), NodeName(context, "another")
    first.take()
    first.keep()
    machine.now += 3 * LEASE
    second.take()
    assert "wanted to be node here too" in first.keep()
    execute(context, "DELETE FROM mcban_node")
    assert first.keep() == ""
    with pytest.raises(LostNameError):
        second.take()


def test_of_many_at_once_one_gets_the_name(make_context: MakeContext) -> None:
    """However close they come."""
    contexts = [make_context() for _ in range(8)]

    def take(number: int) -> bool:
        try:
            NodeName(contexts[number], str(number)).take()
        except LostNameError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


def test_new_addresses_of_a_node_are_told_to_the_others(context: Context, machine: Machine) -> None:
    """They protect them: each looks at its allowances again. That it is still there is told to nobody."""
    node = NodeName(context, "one")
    node.take()
    feed = context.database.glance(ChangeFeed)
    node.keep()
    assert context.database.glance(lambda t: feed.poll(t, 0)) is None
    machine.protected["198.51.100.1"] = "an address of this host"
    node.keep()
    news = context.database.glance(lambda t: feed.poll(t, 1))
    assert news is not None and news.changed == (("", ""),)
