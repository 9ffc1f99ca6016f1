"""What the engine reads and writes: no hit without its position, none twice, whatever the database loses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from mcban.core.model import Position
from mcban.logs import Block
from mcban.service.context import Context
from mcban.store.database import Database, Transaction, UnsureError
from tests.conftest import MakeContext
from tests.daemon.desk import failures, follow, read_until
from tests.patience import PATIENCE, until
from tests.service.desk import execute, known


def test_a_new_file_under_the_number_of_a_forgotten_one_is_written_with_its_hits(
    context: Context, tmp_path: Path
) -> None:
    """A kill finds both in SQL or neither: no hit without the position up to which it was read."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    old, other, new = (Position(str(log), 1, inode, 0, "", offset) for inode, offset in ((5, 10), (6, 20), (5, 30)))
    engine._reading.take(Block(str(log), b"", old), {str(log)})
    engine._commit()
    engine._reading.take(Block(str(log), b"", other, (old,)), {str(log)})
    engine._reading.take(Block(str(log), failures(context, 1).encode(), new), {str(log)})

    def written() -> tuple[int, set[Position]]:
        read = context.database.read
        return read(lambda t: t.hits.totals().get("mc-ssh", 0)), set(read(lambda t: t.positions.all("here")))

    before, positions = written()
    assert (before, new in positions) == (0, False)
    engine._commit()
    after, positions = written()
    assert after == 1 and {other, new} <= positions and old not in positions


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_logs_that_are_read_again_wake_the_engine_as_before(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database lost was read again; from then on a line is acted upon when it comes, not when something else
    is due."""
    for name in ("COMMIT_EVERY", "LOOK_EVERY", "PURGE_EVERY", "BEAT"):
        monkeypatch.setattr(f"mcban.daemon.engine.{name}", 10 * PATIENCE)
    context, other = make_context(poll_interval=10 * PATIENCE, sync_interval=int(10 * PATIENCE)), make_context()
    log = tmp_path / "auth.log"
    engine = follow(context, log)

    def counted(number: int) -> bool:
        return other.database.read(lambda t: t.hits.totals().get("mc-ssh", 0)) >= number

    def attack() -> None:
        try:
            for number in range(1, 4):
                with log.open("a") as opened:
                    opened.write(failures(context, 1))
                until(partial(counted, number))
                if number == 1:  # as from a backup of before, met on a new connection
                    execute(other, "UPDATE mcban_position SET batch = 'another'")
                    for connection in infos:
                        connection.pop("mcban_met", None)
        finally:
            engine._signals.stop = True
            engine._signals._writer.send(b"x")

    infos: list[dict[str, object]] = []
    meet = Transaction.meet

    def met(self: Transaction) -> None:
        meet(self)
        infos.append(self.connection.info)

    monkeypatch.setattr(Transaction, "meet", met)
    with ThreadPoolExecutor(1) as pool:
        attacker = pool.submit(attack)
        engine.run()
        attacker.result()
    assert known(context, "mc-ssh-1d").active


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_nothing_is_added_to_a_batch_of_which_nobody_knows_whether_it_was_written(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a commit is lost, and two connections in a row lead to a node that is behind: each hit counts."""
    log, copy = tmp_path / "auth.log", tmp_path / "behind.sqlite"
    engine, write = follow(context, log), Database.write
    with sqlite3.connect(str(context.database.sqlite_file)) as now, sqlite3.connect(copy) as then:
        now.backup(then)
    behind = Database(f"sqlite:///{copy}")
    asked: list[object] = []

    def led_astray(self: Database, work: Callable[[Transaction], object], *, touches: bool = True) -> object:
        asked.append(work)
        done = write(behind if len(asked) in (2, 4) else self, work, touches=touches)
        if len(asked) == 1:
            raise UnsureError("gone")
        return done

    def turn() -> int:
        if engine._bridge.outage is not None:
            engine._go_without()
        else:
            engine._guarded(engine._read_some)
        return len(asked)

    def all_read() -> bool:
        return any(position.offset == log.stat().st_size for position in engine._reading.positions)

    log.write_text(failures(context, 1))
    read_until(engine, lambda: bool(engine._reading.written))
    with log.open("a") as opened, monkeypatch.context() as patch:
        patch.setattr(Database, "write", led_astray)
        opened.write(failures(context, 2))
        opened.flush()
        until(turn)
        opened.write(failures(context, 3))
        opened.flush()
        until(lambda: turn() > 5 and not engine._reading.pending and all_read())
    behind.dispose()
    assert engine._bridge.outage is None
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-ssh": 6}
