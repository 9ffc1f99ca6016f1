"""Several things wrong at once, at any moment, and all well in the end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mcban.daemon.engine import Engine
from mcban.daemon.presence import look
from mcban.errors import DatabaseError, FirewallError, UnavailableError
from mcban.firewall.memory import MemoryFirewall
from mcban.service import bans
from mcban.service.context import Context
from mcban.store.database import Database, UnsureError
from tests.conftest import MakeContext
from tests.daemon.desk import failures, follow
from tests.patience import until

FAULTS: dict[tuple[type, str], tuple[type[Exception], ...]] = {
    (Database, "read"): (DatabaseError, ZeroDivisionError),
    (Database, "write"): (DatabaseError, UnsureError, ZeroDivisionError),
    (Database, "glance"): (DatabaseError, ZeroDivisionError),
    (MemoryFirewall, "apply"): (FirewallError, ZeroDivisionError),
    (MemoryFirewall, "read"): (FirewallError,),
    (MemoryFirewall, "glance"): (FirewallError, UnavailableError),
    (MemoryFirewall, "turnover"): (FirewallError, ZeroDivisionError),
}


class Weather:
    """Faults that come and go in the engine's thread and in those that it has: each may strike before what it strikes
    is done, or afterwards, when it has been done and nobody hears of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dice: random.Random) -> None:
        self._dice, self.now = dice, set[tuple[type, str]]()
        self.struck = 0
        self._safe = threading.current_thread()
        for place, name in FAULTS:
            monkeypatch.setattr(place, name, self._struck(place, name))

    def _struck(self, place: type, name: str) -> Callable[..., Any]:
        real = getattr(place, name)

        def do(*arguments: Any, **options: Any) -> Any:
            if (place, name) not in self.now or threading.current_thread() is not self._safe:
                return real(*arguments, **options)
            self.struck += 1
            error = self._dice.choice(FAULTS[place, name])
            if issubclass(error, UnsureError) or (place is MemoryFirewall and self._dice.random() < 0.3):
                real(*arguments, **options)
            raise error(f"{name} is struck")

        return do

    def change(self) -> None:
        """Other faults, or none."""
        self.now = set(self._dice.sample(list(FAULTS), self._dice.choice((0, 1, 1, 2, 3))))


def storm(context: Context, other: Context, engine: Engine, log: Path, weather: Weather, dice: random.Random) -> int:
    """What a host meets in two seconds of it; the lines that were written."""
    number, end = 0, time.monotonic() + 2.0
    while time.monotonic() < end:
        weather.change()
        with log.open("a") as opened:
            for _ in range(dice.randrange(6)):
                number += 1
                opened.write(failures(context, 1, f"203.0.113.{dice.randrange(12)}").replace(" h ", f" h{number} "))
        ip, what = f"203.0.113.{dice.randrange(12)}", dice.randrange(8)
        if what == 0:
            bans.unban(other, None, [ip])
        elif what == 1:
            bans.ban(other, "mc-exim-1d", [ip], None, force=False, yes=False)
        elif what == 2:
            engine._signals.reload = True
        elif what == 3:
            for entries in list(entries_of(context).values()):
                entries.clear()
        time.sleep(dice.random() * 0.08)
    weather.now = set()
    return number


def entries_of(context: Context) -> dict[str, dict[str, int]]:
    """By jail what the kernel holds."""
    assert isinstance(context.firewall, MemoryFirewall)
    return context.firewall.entries


def amiss(context: Context, other: Context, lines: int) -> list[object]:
    """What is not as it should be."""
    counted = other.database.read(lambda t: t.hits.totals()).get("mc-ssh", 0)
    held = {(ip, jail) for jail, entries in list(entries_of(context).items()) for ip in list(entries)}
    due = {(row.ip, row.jail) for row in other.database.read(lambda t: t.addresses.in_force(other.now))}
    said = look(context.config.state_dir).said
    troubles = [*said["troubles"], *said["not_enforced"], *filter(None, [said["database"]["trouble"]])]
    return [*troubles, *sorted(held ^ due), *([f"{counted} of {lines} lines"] if counted != lines else [])]


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 40))])
def test_whatever_goes_wrong_together_all_is_well_in_the_end(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """SQL and the kernel fail, before or after what was asked of them was done, defects of ours are met, others ban and
    lift, lists are emptied, a reload is asked for: the engine goes on, and when all works again each line has counted
    once, the kernel holds what SQL says, and `status` knows of no trouble."""
    for name in ("FIRST_PAUSE", "COMMIT_EVERY", "LOOK_EVERY", "AGAIN", "BEAT"):
        monkeypatch.setattr(f"mcban.daemon.engine.{name}", 0.1)
    monkeypatch.setattr("mcban.daemon.bridge.LONGEST_PAUSE", 0.2)
    context, log = make_context(poll_interval=0.05, sync_interval=1), tmp_path / "auth.log"
    other = make_context(node="there")
    engine = follow(context, log)
    weather = Weather(monkeypatch, random.Random(seed))

    def attack() -> None:
        try:
            lines = storm(context, other, engine, log, weather, random.Random(seed))
            try:
                until(lambda: not amiss(context, other, lines))
            except AssertionError:
                assert amiss(context, other, lines) == []  # so that it is told
                raise
        finally:
            engine._signals.stop = True
            engine._signals._writer.send(b"x")

    with ThreadPoolExecutor(1) as pool:
        attacker = pool.submit(attack)
        engine.run()
        attacker.result()
    assert weather.struck > 3
