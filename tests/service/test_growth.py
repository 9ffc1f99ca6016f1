"""What a year of attacks leaves in the database: as much as there are addresses, however much they attack."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from mcban.core.model import Hit, Position
from mcban.service import upkeep
from mcban.service.context import Context
from mcban.service.memory import Memory
from mcban.service.record import record
from mcban.service.report import show
from mcban.store import addresses, changes, events
from mcban.store.addresses import AddressRecord
from mcban.store.events import Event
from mcban.store.nodes import Claim
from mcban.store.tables import METADATA
from tests.conftest import NOON, Machine, MakeContext
from tests.service.desk import IP, dump, execute, known, row, sql_time

DAY = 86_400
TWO_MONTHS = 60 * DAY
BATCH = 10_000
TIERS, MOST_HITS, MAX_COUNT = 4, 20, 3


@dataclass(frozen=True)
class Attack:
    """Each day `fresh` new addresses begin; each attacks on `life` days, `force` times within half an hour."""

    fresh: int
    life: int
    force: int

    def addresses(self, first: int, last: int) -> int:
        """How many addresses attack on some day from `first` to `last`."""
        return (last - max(first - self.life + 1, 1 - self.life) + 1) * self.fresh

    def day(self, day: int, rng: random.Random) -> Iterator[list[Hit]]:
        """The hits of a day, in their order, in batches."""
        midnight, hits = NOON + day * DAY, []
        for number in range((day - self.life + 1) * self.fresh, (day + 1) * self.fresh):
            n = number + self.life * self.fresh
            ip, begin = f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", midnight + rng.randrange(DAY - 1_800)
            hits += [Hit(begin + rng.randrange(1_800), ip, "mc-exim", "info") for _ in range(self.force)]
        hits.sort()
        for start in range(0, len(hits), BATCH):
            yield hits[start : start + BATCH]


def sizes(context: Context) -> Counter[str]:
    """Rows by table, and the bytes of an embedded database's file."""
    with context.database.engine.connect() as connection:
        found = Counter(
            {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in METADATA.sorted_tables
            }
        )
        if context.database.sqlite_file:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            found["bytes"] = pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return found


def live(context: Context, machine: Machine, attack: Attack, days: int) -> Counter[str]:
    """What an engine does in so many days, its clock put forward; the largest that each table ever was."""
    rng, memory, purge, largest = random.Random(1), Memory(), upkeep.Purge(), Counter[str]()
    for day in range(days):
        for batch in attack.day(day, rng):
            machine.now = batch[-1].at
            record(context, batch, memory=memory)
        machine.now = NOON + (day + 1) * DAY
        world, _ = upkeep.take_over(context)
        while upkeep.expire(context):
            pass
        # The engine makes 1440 steps in a day: here as many as it takes to come round.
        for _ in range(1 + max(largest["fail2ban_ips"], largest["mcban_event"]) // addresses.PURGE_STEP):
            purge.step(context, world)
        if day % 10 == 9 or day == days - 1:
            now = sizes(context)
            largest |= now
            if day % 30 == 29:
                print(f"day {day + 1}: {dict(now)}")
    return largest


@pytest.mark.parametrize(
    ("attack", "days"),
    [
        pytest.param(Attack(4, 3, 6), 66, id="a few hits of each"),
        pytest.param(Attack(4, 3, 60), 66, id="ten times as many"),
        pytest.param(
            Attack(200, 10, 14), 365, marks=[pytest.mark.soak, pytest.mark.timeout(7_200)], id="ten million in a year"
        ),
    ],
)
def test_the_database_grows_with_addresses_and_not_with_attacks(
    make_context: MakeContext, machine: Machine, attack: Attack, days: int
) -> None:
    """Every table stays below what the addresses that came in its time account for, whatever they do; space that is
    freed is used again."""
    context = make_context(keep_bans=TWO_MONTHS)
    found = live(context, machine, attack, days)
    everybody = attack.addresses(0, days - 1)
    two_months = attack.addresses(days - 62, days - 1)
    assert 0 < found["mcban_hit"] <= MOST_HITS * two_months
    assert 0 < found["fail2ban_ips"] <= (TIERS + 1) * everybody
    assert 0 < found["mcban_event"] <= (TIERS * MAX_COUNT + 1) * everybody
    assert found["mcban_change"] <= changes.KEPT + attack.fresh * attack.life * (TIERS + 1) * 2
    assert found["mcban_total"] + found["mcban_position"] + found["mcban_node"] < 10
    assert found["bytes"] <= 2_000_000 + 3_000 * everybody
    # The lower tiers' bans of the beginning are forgotten: nothing is held of whoever left it at that.
    with context.database.engine.connect() as connection:
        query = "SELECT COUNT(*) FROM fail2ban_ips WHERE jail = 'mc-exim-1d'"
        assert connection.exec_driver_sql(query).scalar_one() <= attack.addresses(days - 63, days - 1)
    total = context.database.read(lambda t: t.hits.totals())["mc-exim"]
    assert total > attack.addresses(0, days - 1) * 4
    print(f"{attack.force * attack.life * attack.fresh * days} hits offered, {total} counted, {everybody} addresses: "
          f"{dict(found)}")  # fmt: skip


def test_a_finished_ban_is_forgotten_when_it_is_time_and_not_before(context: Context, machine: Machine) -> None:
    """keep_bans after its end; what allows, holds, or holds for ever, stays."""
    ended = [AddressRecord(f"192.0.2.{n}", "mc-exim-1d", 2, since=1, until=NOON - 10 + n) for n in range(10)]
    stay = [
        AddressRecord("198.51.100.1", "mc-exim-1d", whitelisted=True, last_hit=NOON),
        AddressRecord("198.51.100.2", "mc-exim-1y", 1, active=True, since=NOON, until=NOON + 3 * 365 * DAY),
        AddressRecord("198.51.100.3", "mc-exim-bl", 1, active=True, blacklisted=True, until=253_402_214_400),
    ]
    context.database.write(lambda t: t.addresses.save([*ended, *stay]))
    execute(  # as the original left them: without an end
        context,
        "INSERT INTO fail2ban_ips (ip, jail, active, count, last_hit)"
        f" VALUES ('203.0.113.1', 'mc-exim-1d', 0, 1, '{sql_time(NOON - 10)}')",
    )
    world, _ = upkeep.take_over(context)
    machine.now = NOON - 10 + context.config.keep_bans + 5
    upkeep.Purge().step(context, world)
    left = {r["ip"] for r in dump(context)["fail2ban_ips"]}
    assert left == {f"192.0.2.{n}" for n in range(5, 10)} | {record.ip for record in stay}


def test_a_ban_is_remembered_while_hits_from_before_its_end_are_kept(context: Context, machine: Machine) -> None:
    """However short keep_bans is: else they would count a second time."""
    execute(context, f"UPDATE fail2ban_jail SET findtime = {400 * DAY} WHERE name = 'mc-exim-1y'")
    done = record(context, [Hit(NOON, IP, "mc-exim")] * 5)
    assert len(done.bans) == 1
    world, _ = upkeep.take_over(context)
    machine.now = NOON + 390 * DAY
    upkeep.expire(context)
    upkeep.Purge().step(context, world)
    assert known(context, "mc-exim-1d").count == 1
    machine.now = NOON + 403 * DAY
    upkeep.Purge().step(context, world)
    assert row(context, "mc-exim-1d") is None
    assert dump(context)["mcban_hit"] == []


def test_the_newest_decisions_about_an_address_are_kept(context: Context) -> None:
    """Who is banned for a minute, every minute, fills no disk, and crowds nobody else out."""
    many = [Event(NOON - 500 + n, "ban", IP, "my-jail", NOON, str(n), "here") for n in range(350)]
    other = [Event(NOON - 400_000, "ban", f"192.0.2.{n}", "my-jail", NOON, "x", "here") for n in range(50)]
    context.database.write(lambda t: t.events.add([*other, *many]))
    world, _ = upkeep.take_over(context)
    upkeep.Purge().step(context, world)
    kept = context.database.read(lambda t: t.events.of(IP, 1_000))
    assert [event.reason for event in kept] == [str(n) for n in range(350 - events.KEPT, 350)]
    assert len(dump(context)["mcban_event"]) == events.KEPT + 50
    assert show(context, IP).events[-1].reason == "349"


def test_a_million_of_anything_is_dropped_in_small_steps(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction takes more than its part, and in the end nothing is left over: bans that end, bans to forget,
    decisions, notes of changes."""
    monkeypatch.setattr(changes, "KEPT", 50)
    monkeypatch.setattr(changes, "PURGE_STEP", 20)
    rows = [AddressRecord(f"192.0.2.{n}", "j", 1, active=n < 60, since=1, until=NOON - 1) for n in range(100)]
    context.database.write(lambda t: t.addresses.save(rows))
    assert [len(context.database.write(lambda t: t.addresses.expire(NOON, 25))) for _ in range(4)] == [25, 25, 10, 0]
    steps = [context.database.write(lambda t: t.changes.purge()) for _ in range(10)]
    assert steps[:5] == [20] * 5 and steps[-1] == 0 and len(dump(context)["mcban_change"]) == 50
    reached, left = 0, []
    for _ in range(4):
        reached = context.database.write(lambda t: t.addresses.purge(NOON, reached, 30))  # noqa: B023  # called at once
        left.append(len(dump(context)["fail2ban_ips"]))
    assert (left, reached) == ([70, 40, 10, 0], 0)
    event = [Event(NOON - n, "ban", f"192.0.2.{n}", "j", NOON, "x", "here") for n in range(100)]
    context.database.write(lambda t: t.events.add(event))
    for expected in (70, 40, 10, 0):
        reached = context.database.write(lambda t: t.events.purge(NOON + 1, reached, 30))  # noqa: B023  # called at once
        assert len(dump(context)["mcban_event"]) == expected
    assert reached == 0


def test_a_node_that_is_gone_is_forgotten_with_its_logs(context: Context, machine: Machine, tmp_path: Path) -> None:
    """A year after it was seen: its addresses are somebody else's by then. This one never is."""
    position = Position(str(tmp_path), 1, 2, 0, "", 7)
    for host, seen in (("gone", NOON), (context.config.node, NOON), ("away", NOON + 300 * DAY)):
        claim = Claim("x", "", ("192.0.2.7",), seen)
        context.database.write(lambda t: t.nodes.claim(host, claim))  # noqa: B023  # called at once
        context.database.write(lambda t: t.positions.save(host, [position]))  # noqa: B023
    machine.now = NOON + 366 * DAY
    context.database.write(lambda t: t.nodes.claim(context.config.node, Claim("x", "y", (), context.now)))
    upkeep.Purge().step(context, upkeep.take_over(context)[0])
    assert {r["host"] for r in dump(context)["mcban_node"]} == {"away", context.config.node}
    assert {r["host"] for r in dump(context)["mcban_position"]} == {"away", context.config.node}
