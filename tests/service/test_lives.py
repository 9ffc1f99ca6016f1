"""Whole lives of an address, through SQL and back at every step, against the model that keeps every hit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mcban.config import Config
from mcban.core.model import Group, Hit
from mcban.firewall.memory import MemoryFirewall
from mcban.service import upkeep
from mcban.service.allow import allow, disallow
from mcban.service.bans import blacklist_remove, unban
from mcban.service.context import Context
from mcban.service.memory import Memory
from mcban.service.record import record
from mcban.service.report import show
from mcban.service.sync import compare, enforce
from mcban.store.database import Database
from tests.conftest import Machine
from tests.core.model import Model, blacklist, jail
from tests.service.desk import IP, execute, held, in_force

SMALL = Group("g", (jail("g-1d", 2, 5, 8, max_count=1), jail("g-1w", 4, 10, 20, max_count=1)), blacklist())
JAILS = [member.name for member in SMALL.jails]

steps = st.lists(
    st.one_of(
        st.just(("hits", [0, 0])),
        st.tuples(st.just("hits"), st.lists(st.integers(0, 3), min_size=1, max_size=5)),
        st.tuples(st.just("hits"), st.lists(st.integers(0, 12), min_size=1, max_size=3)),
        st.tuples(st.just("wait"), st.integers(0, 25)),
        st.tuples(st.just("unban"), st.sampled_from(["g", *JAILS])),
        st.tuples(st.just("plain unban"), st.sampled_from(JAILS[:-1])),
        st.tuples(st.just("blacklist remove"), st.just("g")),
        st.tuples(st.just("allow"), st.sampled_from(["g", "g-1d"])),
        st.tuples(st.just("upkeep"), st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


@contextmanager
def desk(template: Path) -> Iterator[tuple[Context, Machine]]:
    """A database of its own, with the small group and nothing else."""
    with tempfile.TemporaryDirectory(prefix="mcban-") as folder:
        shutil.copy(template, Path(folder, "x.sqlite"))
        machine = Machine()
        database = Database(f"sqlite:///{folder}/x.sqlite")
        context = Context(Config(node="here"), database, MemoryFirewall(), machine.host())
        execute(context, "DELETE FROM fail2ban_jail")
        for member in SMALL.jails:
            numbers = f"{member.maxretry}, {member.findtime}, {member.bantime}"
            columns = "name, maxretry, findtime, bantime, port, filter, logpath, max_count"
            values = f"'{member.name}', {numbers}, 'all', 'f', '/l', 1"
            execute(context, f"INSERT INTO fail2ban_jail ({columns}) VALUES ({values})")
        yield context, machine
        database.dispose()


class Life:
    """The service and the model, doing the same."""

    def __init__(self, context: Context, machine: Machine) -> None:
        self.context, self.machine = context, machine
        self.model, self.number = Model(), 0
        self.memory = Memory()

    def hits(self, gaps: list[int]) -> None:
        """A batch: the same bans at the same times with the same counts."""
        times = []
        for gap in gaps:
            self.machine.now += gap
            times.append(int(self.machine.now))
        both = [hit for at in times for hit in (Hit(at, IP, "g"), Hit(at, "192.0.2.1", "g"))]
        done = record(self.context, both, memory=self.memory)
        enforce(self.context, done.world, done.records)
        expected = []
        for at in times:
            self.number += 1
            expected += self.model.hit(SMALL, at, self.number, frozenset())
        assert [(b.jail, b.since, b.until, b.count) for b in done.bans if b.ip == IP] == expected

    def unban(self, name: str) -> None:
        """By hand: the jails begin at nothing; out of the blacklist, the tiers too."""
        unban(self.context, name, [IP])
        self._lift(JAILS if name == "g" else [name])

    def plain_unban(self, name: str) -> None:
        """By plain SQL, as the original did it: only what is held is lifted."""
        if self.model.of(name).until > self.context.now:
            execute(self.context, f"UPDATE fail2ban_ips SET active = 0 WHERE ip = '{IP}' AND jail = '{name}'")
            upkeep.take_over(self.context)
            self._lift([name])

    def _lift(self, names: list[str]) -> None:
        from_blacklist = "g-bl" in names and self.model.of("g-bl").until > self.context.now
        for name in names:
            self.model.lift(name, self.number)
        if from_blacklist:
            self._forget()

    def _forget(self) -> None:
        for tier in SMALL.tiers:
            self.model.of(tier.name).forgotten = self.number

    def remove(self) -> None:
        """Out of the blacklist, every count 0, every hit forgotten."""
        blacklist_remove(self.context, "g", [IP])
        self._lift(["g-bl"])
        self._forget()
        for name in JAILS:
            self.model.of(name).count = 0

    def allow(self, scope: str) -> None:
        """Allowed and not allowed any more: bans there are lifted, and nothing else is forgotten."""
        for name in JAILS if scope == "g" else [scope]:
            if self.model.of(name).until > self.context.now:
                self._lift([name])
        allow(self.context, scope, [IP])
        assert not set(held(self.context)) & set(JAILS if scope == "g" else [scope])
        disallow(self.context, scope, [IP])
        if scope != "g":
            self.model.of(scope).forgotten = self.number  # its row says from which hit on it counts

    def check(self) -> None:
        """SQL, kernel and `show` say what the model says."""
        now = self.context.now
        running = sorted(name for name in JAILS if self.model.of(name).until > now)
        assert in_force(self.context) == running
        upkeep.expire(self.context)
        assert not compare(self.context).plan.add
        views = {view.jail: view for view in show(self.context, IP).jails}
        for tier in SMALL.tiers:
            if tier.name in views and self.model.of("g-bl").until <= now:
                shown, true = views[tier.name].hits, self.model.counted(tier, now)
                assert shown == min(true, 4) if tier.name not in running else shown == 0
                assert views[tier.name].count == self.model.of(tier.name).count


# Without shrinking: each example is a database, and what failed is told step by step all the same.
@settings(
    max_examples=25,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(steps, st.booleans())
def test_an_address_fares_as_the_specification_says_whatever_happens_to_it(
    sqlite_template: Path, life: list[tuple[str, Any]], banned_before: bool
) -> None:
    """Hits in batches, waiting, liftings by hand and by plain SQL, allowances: every ban and count is the model's."""
    with desk(sqlite_template) as (context, machine):
        one = Life(context, machine)
        if banned_before:  # the next ban of each tier leads to the blacklist
            for tier in SMALL.tiers:
                one.model.of(tier.name).count = 1
                values = f"'{IP}', '{tier.name}', 0, 1"
                execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ({values})")
        for what, how in life:
            if what == "wait":
                machine.now += how
            elif what == "upkeep":
                upkeep.Purge().step(context, upkeep.take_over(context)[0])
            else:
                does: dict[str, Callable[[Any], None]] = {
                    "hits": one.hits,
                    "unban": one.unban,
                    "plain unban": one.plain_unban,
                    "blacklist remove": lambda _: one.remove(),
                    "allow": one.allow,
                }
                does[what](how)
            one.check()
