"""What the engine remembers between batches is forgotten as soon as somebody else wrote: it never shows in a result."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Transaction

from mcban.config import Config
from mcban.core.model import Hit
from mcban.errors import DatabaseError
from mcban.firewall.memory import MemoryFirewall
from mcban.service import bans, upkeep
from mcban.service import memory as module
from mcban.service.allow import allow
from mcban.service.bans import unban
from mcban.service.claim import NodeName
from mcban.service.context import Context
from mcban.service.memory import Memory
from mcban.service.record import record
from mcban.store.database import Database
from mcban.store.events import EventTable
from tests.conftest import Machine, MakeContext
from tests.service.desk import IP, dump, execute, known


def fail(context: Context, memory: Memory, times: int = 1, ip: str = IP) -> list[str]:
    """Hits recorded as the engine does; the jails that follow."""
    return [ban.jail for ban in record(context, [Hit(context.now, ip, "mc-exim")] * times, memory=memory).bans]


def questions(context: Context, work: Callable[[], object]) -> int:
    """How often `work` asks SQL for the hits of addresses."""
    asked: list[str] = []

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        if "SELECT" in statement and "mcban_hit.at" in statement:
            asked.append(statement)

    event.listen(context.database.engine, "before_cursor_execute", note)
    work()
    event.remove(context.database.engine, "before_cursor_execute", note)
    return len(asked)


def test_hits_add_up_over_batches(context: Context) -> None:
    """One at a time and five at a time lead to the same."""
    memory = Memory()
    assert [fail(context, memory) for _ in range(5)] == [[], [], [], [], ["mc-exim-1d"]]
    assert fail(context, memory, 5) == ["mc-exim-1w"]
    assert known(context, "mc-exim-1w").count == 1


def test_sql_is_not_asked_twice_while_nobody_else_writes(context: Context) -> None:
    """On a server, where nobody can tell, it is asked each time."""
    memory = Memory()
    assert questions(context, lambda: fail(context, memory)) == 1
    assert questions(context, lambda: fail(context, memory)) == (context.database.sqlite_file is None)


def test_that_the_engine_says_that_it_is_there_makes_nothing_forgotten(context: Context) -> None:
    """It does so every few seconds, and changes nothing that is known of an address."""
    memory, name = Memory(), NodeName(context, "owner")
    name.take()
    fail(context, memory)
    name.keep()
    assert questions(context, lambda: fail(context, memory)) == (context.database.sqlite_file is None)


@pytest.mark.parametrize("by", ["command", "plain SQL", "another process"])
def test_what_somebody_else_lifts_counts_from_zero(make_context: MakeContext, by: str) -> None:
    """From whichever side it came, between two batches."""
    context, memory = make_context(), Memory()
    assert fail(context, memory, 4) == []
    if by == "plain SQL":
        execute(make_context(), f"DELETE FROM mcban_hit WHERE ip = '{IP}'")
    else:
        unban(context if by == "command" else make_context(), "mc-exim", [IP])
    assert fail(context, memory) == []
    assert fail(context, memory, 4) == ["mc-exim-1d"]


def test_whoever_was_allowed_meanwhile_is_not_counted(make_context: MakeContext, machine: Machine) -> None:
    """By SQL, and by an interface that came up."""
    context, memory = make_context(), Memory()
    assert fail(context, memory, 4) == []
    allow(make_context(), "mc-exim", [IP])
    assert fail(context, memory, 20) == []
    fail(context, memory, 4, "203.0.113.9")
    machine.protected["203.0.113.9"] = "an address of this host"
    assert fail(context, memory, 20, "203.0.113.9") == []


@pytest.mark.parametrize(("place", "name"), [(EventTable, "add"), (Transaction, "commit")])
def test_what_could_not_be_written_is_not_remembered(
    context: Context, monkeypatch: pytest.MonkeyPatch, place: type[object], name: str
) -> None:
    """In the midst of it, or as it is committed: the same batch, offered again, counts once."""
    memory = Memory()
    assert fail(context, memory, 4) == []

    def refuse(*_: object) -> None:
        raise DatabaseError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(place, name, refuse)
        with pytest.raises(DatabaseError, match="the disk is gone"):
            fail(context, memory)
    assert fail(context, memory) == ["mc-exim-1d"]
    assert known(context, "mc-exim-1d").count == 1


def test_a_second_ban_keeps_what_the_row_says_besides(context: Context, machine: Machine) -> None:
    """The row of a ban that is over is changed, not written anew: its count goes on."""
    memory = Memory()
    for count in (1, 2, 3):
        assert "mc-exim-1d" in fail(context, memory, 5)
        assert known(context, "mc-exim-1d").count == count
        machine.now += 90_000


def test_memory_is_bounded(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses attack; who was forgotten is asked for again."""
    monkeypatch.setattr(module, "MOST", 10)
    memory = Memory()
    for n in range(40):
        fail(context, memory, 4, f"198.51.100.{n}")
    assert fail(context, memory, 1, "198.51.100.0") == ["mc-exim-1d"]
    assert sum(map(len, memory._records.values())) <= 10  # what it holds is its business, how much is ours


def happen(step: float, here: Context, there: Context, side: int, ip: str) -> None:
    """What comes between two batches, by this process or by another one."""
    context = (here, there)[side]
    if step < 0.3:
        bans.unban(context, None if step < 0.15 else "mc-exim", [ip])
    elif step < 0.55:
        upkeep.expire(context)
        upkeep.Purge().step(context, upkeep.take_over(context)[0])
    elif step < 0.75:
        bans.ban(context, "mc-exim-1d", [ip], None, force=False, yes=False)
    else:
        execute(there, f"UPDATE fail2ban_ips SET active = 0 WHERE ip = '{ip}'")


@pytest.mark.parametrize("seed", range(4))
def test_with_a_memory_and_without_all_is_the_same(
    sqlite_template: Path, tmp_path: Path, machine: Machine, seed: int
) -> None:
    """Hits in any order, bans that end, commands and plain SQL between them: the same bans, and in the end the same
    rows."""

    def node(file: Path) -> Context:
        config = Config(tmp_path, (), node="here", database_url=f"sqlite:///{file}")
        return Context(config, Database(config.database_url), MemoryFirewall(), machine.host())

    files = [Path(shutil.copy(sqlite_template, tmp_path / name)) for name in ("one", "two")]
    pairs = [(node(file), node(file)) for file in files]
    memories = (Memory(), None)
    chance = random.Random(seed)
    ips = [*(f"203.0.113.{n}" for n in range(4)), "2001:db8:1::5"]
    ages, groups, numbers = (0, 0, 0, 5, 4_000, 100_000), ("mc-exim", "mc-ssh"), (1, 1, 2, 5, 12)
    for _ in range(80):
        what = chance.random()
        if what < 0.75:
            number = chance.choice(numbers)
            now = int(machine.now)
            hits = [Hit(now - chance.choice(ages), chance.choice(ips), chance.choice(groups)) for _ in range(number)]
            one, two = (record(here, hits, memory=m) for (here, _), m in zip(pairs, memories, strict=True))
            assert (one.hits, one.bans, one.records) == (two.hits, two.bans, two.records)
        elif what < 0.85:
            machine.now += chance.choice((1, 60, 3_700, 90_000, 700_000))
        else:
            step, side, ip = chance.random(), chance.randrange(2), chance.choice(ips)
            for here, there in pairs:
                happen(step, here, there, side, ip)
    assert dump(pairs[0][0]) == dump(pairs[1][0])
    for one_of_them in (*pairs[0], *pairs[1]):
        one_of_them.database.dispose()
