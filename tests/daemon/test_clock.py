"""A clock that jumps, on a machine whose database has another one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcban.service import bans
from mcban.service.context import Context
from tests.daemon.desk import failures, follow, read_until
from tests.patience import PATIENCE
from tests.service.desk import IP, held, known

OTHER = "198.51.100.9"


def counted(context: Context) -> int:
    """The hits that are kept."""
    return len(context.database.read(lambda t: t.hits.of([IP])).get(("mc-ssh", IP), ()))


@pytest.mark.parametrize("any_database", ["mariadb"], indirect=True)
@pytest.mark.parametrize(
    ("activity", "years"), [("_tend", 10), ("_tend", -10), ("_purge", 10), ("_poll", 10), ("_reload", 10)]
)
def test_a_clock_that_was_set_ends_no_ban_and_forgets_no_hit(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activity: str, years: int
) -> None:
    """Somebody sets this machine's clock by ten years: whatever the engine does next, bans run and hits count for
    all nodes by the database's clock, and the kernel holds what it held."""
    jumped = [0]

    def clock() -> float:
        return time.time() + jumped[0]

    monkeypatch.setattr("mcban.store.clock.time", SimpleNamespace(**{**vars(time), "time": clock}))
    context = replace(context, host=replace(context.host, clock=clock))
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    log.write_text(failures(context, 2))
    read_until(engine, lambda: counted(context) == 2)
    bans.ban(context, "mc-exim-1d", [OTHER], None, force=False, yes=False)
    bans.ban(context, "mc-ssh-1d", [IP], None, force=False, yes=False)
    engine._guarded(engine._poll)
    jumped[0] = years * 31_536_000
    bans.unban(context, "mc-exim-1w", [OTHER])  # news of a row
    engine._enforcement.doubt()
    engine._guarded(getattr(engine, activity))
    assert known(context, "mc-ssh-1d").active
    assert held(context) == ["mc-ssh-1d"]
    assert counted(context) == 2
    assert abs(context.now - time.time()) < PATIENCE
