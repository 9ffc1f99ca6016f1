"""Drift between SQL and kernel: found by counting and by looking, and mended in full."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mcban.core.model import FOREVER
from mcban.core.plan import Plan
from mcban.errors import DatabaseError
from mcban.firewall.base import GoneError, Refusal, Turnover
from mcban.service import bans
from mcban.service.context import Context
from mcban.service.drift import CHEAP, READ_ALL_EVERY, DriftWatch
from mcban.service.sync import LOOKS, Outcome, compare, enforce, sync
from mcban.store.addresses import AddressRecord, AddressTable
from tests.conftest import Machine, MakeContext
from tests.service.desk import NOON, execute, fail, fill, firewall_of


def watch_of(context: Context) -> DriftWatch:
    """A watch after a full sync."""
    watch = DriftWatch()
    watch.synced(context, sync(context), 0.0)
    return watch


def _slowly(turnover: Callable[[str], Turnover | None]) -> Callable[[str], Turnover | None]:
    """The same, for more than looking may take where it is cheap."""

    def slow(jail: str) -> Turnover | None:
        end = time.process_time() + 1.2 * CHEAP
        while time.process_time() < end:
            pass
        return turnover(jail)

    return slow


def test_nothing_has_drifted_while_bans_come_and_go_in_order(context: Context, machine: Machine) -> None:
    """Bans that are enforced as they are recorded, and bans that end by their time, are no drift."""
    fill(context, 20)
    watch = watch_of(context)
    assert not watch.drifted(context, 1.0)
    fail(context, 20)
    assert not watch.drifted(context, 1.0)
    machine.now += 86_400 + 60  # the one of 1d is over; a real kernel has dropped it by itself
    firewall_of(context).entries["mc-exim-1d"].clear()
    assert not watch.drifted(context, 1.0)


@pytest.mark.parametrize("what", ["lost", "stray", "by SQL", "set gone"])
def test_a_single_entry_too_few_or_too_many_is_found(context: Context, what: str) -> None:
    """One entry deleted or added by somebody, one ban made by plain SQL, or a whole set gone calls for a full look."""
    [ip, *_] = fill(context, 20)
    watch = watch_of(context)
    entries = firewall_of(context).entries
    if what == "lost":
        del entries["mc-exim-1y"][ip]
    elif what == "stray":
        entries["mc-ssh-1d"]["203.0.113.200"] = FOREVER
    elif what == "by SQL":
        execute(
            context,
            "INSERT INTO fail2ban_ips (ip, count, active, jail, host, until) "
            "VALUES ('203.0.113.9', 1, 1, 'mc-exim-1y', 'x', '2030-01-01 00:00:00')",
        )
    else:
        del entries["mc-exim-1y"]
    assert watch.drifted(context, 1.0)
    watch.synced(context, sync(context), 1.0)
    assert not watch.drifted(context, 1.0)
    assert compare(context).plan.empty


def test_sql_is_not_asked_about_what_was_put_in_by_its_word(context: Context) -> None:
    """A ban that the engine itself put in calls for no question, once; what it took out again does."""
    fill(context, 20)
    watch = watch_of(context)
    assert not watch.drifted(context, 1.0) and watch.look(context, 1.0) == Outcome(Plan())
    held = firewall_of(context).entries["mc-exim-1y"]
    mine, lifted, stray = "203.0.113.200", "203.0.113.201", "203.0.113.202"
    held |= dict.fromkeys((mine, lifted, stray), FOREVER)
    watch.put(Plan(add={"mc-exim-1y": {mine: FOREVER, lifted: FOREVER}}))
    watch.put(Plan(remove={"mc-exim-1y": {lifted}}))
    assert watch.look(context, 10.0) is not None
    assert mine in held and lifted not in held and stray not in held
    del held[mine]
    assert watch.look(context, 20.0) == Outcome(Plan())
    held[mine] = FOREVER
    assert watch.look(context, 30.0) is not None and mine not in held


def test_entries_that_somebody_exchanged_are_set_right(context: Context) -> None:
    """One taken out and another put in keeps the count: a look finds both, says so, and undoes it, once."""
    [ip, *_] = fill(context, 20)
    watch = watch_of(context)
    assert watch.look(context, 1.0) == Outcome(Plan())
    held = firewall_of(context).entries["mc-exim-1y"]
    before = dict(held)
    del held[ip]
    held["203.0.113.200"] = FOREVER
    assert not watch.drifted(context, 2.0)
    done = watch.look(context, 10.0)
    assert done is not None
    assert done.exchanged == (
        f"1 entry gone from mc-exim-1y: {ip}",
        "1 entry without a ban in mc-exim-1y: 203.0.113.200",
    )
    assert firewall_of(context).entries["mc-exim-1y"] == before
    assert watch.look(context, 20.0) == Outcome(Plan())
    assert not watch.drifted(context, 20.0)


def test_what_was_exchanged_before_the_first_look_is_found_too(context: Context) -> None:
    """Between a full sync and the first look nothing can hide."""
    [ip, *_] = fill(context, 20)
    watch = watch_of(context)
    held = firewall_of(context).entries["mc-exim-1y"]
    del held[ip]
    held["203.0.113.200"] = FOREVER
    done = watch.look(context, 1.0)
    assert done is not None and done.exchanged == ("1 entry without a ban in mc-exim-1y: 203.0.113.200",)
    assert watch.drifted(context, 2.0), "by now one is missing, which the count shows"


def test_what_a_full_sync_put_back_is_not_gone_a_second_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turnover may be as old as the last reading, which found the entry gone: it is told once."""
    ips = fill(context, 5)
    watch = watch_of(context)
    assert watch.look(context, 10.0) == Outcome(Plan())
    firewall_of(context).entries["mc-exim-1y"].pop(ips[0])
    mended = sync(context)
    assert mended.exchanged == (f"1 entry gone from mc-exim-1y: {ips[0]}",)
    watch.synced(context, mended, 20.0)
    with monkeypatch.context() as patch:
        patch.setattr(
            firewall_of(context),
            "turnover",
            lambda jail: Turnover(set(), {ips[0]} & set(mended.plan.add.get(jail, ()))),
        )
        outcome = watch.look(context, 30.0)
    assert outcome is not None
    assert outcome.exchanged == ()
    firewall_of(context).turnover("mc-exim-1y")
    firewall_of(context).entries["mc-exim-1y"].pop(ips[0])
    outcome = watch.look(context, 40.0)
    assert outcome is not None
    assert outcome.exchanged == (f"1 entry gone from mc-exim-1y: {ips[0]}",)


def test_a_look_finds_nothing_in_what_is_in_order(context: Context, machine: Machine) -> None:
    """Bans recorded, made and lifted by hand, and those that end: none is taken for somebody's doing."""
    fill(context, 20)
    watch = watch_of(context)
    at = 0.0

    def look() -> Outcome | None:
        nonlocal at
        at += 10.0
        return watch.look(context, at)

    assert look() == Outcome(Plan())
    fail(context, 20)
    assert look() == Outcome(Plan())
    bans.ban(context, "mc-ssh-1d", ["203.0.113.77", "203.0.112.0/24"], None, force=False, yes=False)
    assert look() == Outcome(Plan())
    bans.unban(context, None, ["203.0.113.77"])
    assert look() == Outcome(Plan())
    [entry] = firewall_of(context).entries["mc-exim-1d"]
    [row] = context.database.read(lambda t: t.addresses.get([entry], ["mc-exim-1d"]))
    end = row.until or 0
    for early in (1, -1):  # the kernel's clock may be a little before ours, or behind
        machine.now = end - early
        firewall_of(context).entries["mc-exim-1d"].clear()
        assert look() == Outcome(Plan())
        firewall_of(context).entries["mc-exim-1d"][entry] = end
        assert look() == Outcome(Plan())


@pytest.mark.parametrize("spelling", ["2001:DB8::1", " 203.0.113.200 ", "203.0.113.200/32", "::ffff:203.0.113.200"])
def test_a_ban_that_sql_spells_otherwise_is_no_stray(context: Context, spelling: str) -> None:
    """Plain SQL may bring a whole row, with an address in any spelling: a look leaves its entry in the kernel."""
    fill(context, 5)
    watch = watch_of(context)
    watch.look(context, 1.0)
    row = AddressRecord(spelling, "mc-exim-1y", 1, True, since=NOON, until=FOREVER)
    context.database.write(lambda t: t.addresses.save([row]))
    enforce(context, compare(context).world, [row])
    before = set(firewall_of(context).entries["mc-exim-1y"])
    assert len(before) == 6
    firewall_of(context).entries["mc-exim-1y"]["203.0.113.201"] = FOREVER
    done = watch.look(context, 10.0)
    assert done is not None and done.exchanged == ("1 entry without a ban in mc-exim-1y: 203.0.113.201",)
    assert set(firewall_of(context).entries["mc-exim-1y"]) == before


def test_a_large_list_that_is_gone_costs_the_others_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a jail's list took to look at: once the jail is removed, the others have their turn as before."""
    ips = fill(context, 3)
    watch = watch_of(context)
    watch.look(context, 1.0)
    watch._costs["mc-ssh-1d"] = 60.0
    execute(context, "DELETE FROM fail2ban_jail WHERE name LIKE 'mc-ssh%'")
    watch.synced(context, sync(context), 5.0)
    monkeypatch.setattr(firewall_of(context), "turnover", _slowly(firewall_of(context).turnover))
    assert watch.look(context, 10.0) == Outcome(Plan())
    firewall_of(context).entries["mc-exim-1y"].pop(ips[0])
    done = watch.look(context, 1_000.0)
    assert done is not None and done.exchanged == (f"1 entry gone from mc-exim-1y: {ips[0]}",)


def test_a_look_that_fails_has_everything_read(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came and went is told once: when SQL cannot be asked about it, a full sync is due."""
    [ip, *_] = fill(context, 20)
    watch = watch_of(context)
    watch.look(context, 1.0)
    held = firewall_of(context).entries["mc-exim-1y"]
    held["203.0.113.200"] = held.pop(ip)

    def away(*_: object) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(AddressTable, "get", away)
        with pytest.raises(DatabaseError):
            watch.look(context, 10.0)
    assert watch.drifted(context, 11.0)


def test_a_full_sync_says_what_was_gone_and_what_was_too_much(context: Context) -> None:
    """Named by jail, three of them at the most; what a list that is made anew gets was not taken out of it."""
    ips = fill(context, 20)
    held = firewall_of(context).entries
    for ip in ips[:4]:
        del held["mc-exim-1y"][ip]
    held["mc-ssh-1d"]["203.0.113.200"] = FOREVER
    assert sync(context).exchanged == (
        "4 entries gone from mc-exim-1y: 198.51.0.1, 198.51.0.2, 198.51.0.3, …",
        "1 entry without a ban in mc-ssh-1d: 203.0.113.200",
    )
    del held["mc-exim-1y"]
    assert sync(context).exchanged == ()


def test_bans_that_stay_out_of_the_kernel_are_no_drift(make_context: MakeContext) -> None:
    """What an allowance holds back is counted apart, and so are odd spellings."""
    context = make_context(ignoreip=("198.51.0.0/28",))
    fill(context, 40)
    execute(context, "UPDATE fail2ban_ips SET ip = ' 198.51.0.30 ' WHERE ip = '198.51.0.30'")
    watch = watch_of(context)
    assert not watch.drifted(context, 1.0)
    assert len(firewall_of(context).entries["mc-exim-1y"]) == 40 - 15


def test_everything_is_read_once_in_a_while_and_when_the_host_changes(context: Context, machine: Machine) -> None:
    """After ten minutes, or when this host has another address, a full look is due."""
    watch = watch_of(context)
    assert not watch.drifted(context, READ_ALL_EVERY - 1)
    assert watch.drifted(context, READ_ALL_EVERY)
    machine.protected["203.0.113.1"] = "an address of this host"
    assert watch.drifted(context, 1.0)


def test_single_changes_are_enforced_without_a_full_look(context: Context) -> None:
    """`enforce` puts in what runs, and takes out what does not, whether it was there or not."""
    fill(context, 3)
    assert sync(context).aim is not None
    gone = [("198.51.0.1", "mc-exim-1y"), ("198.51.0.200", "mc-exim-1y")]
    enforce(context, compare(context).world, [AddressRecord("203.0.113.5", "mc-ssh-1d", 1, True, until=FOREVER)], gone)
    assert set(firewall_of(context).entries["mc-exim-1y"]) == {"198.51.0.2", "198.51.0.3"}
    assert set(firewall_of(context).entries["mc-ssh-1d"]) == {"203.0.113.5"}


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_what_comes_while_all_is_to_be_read_anyway_takes_no_memory(context: Context) -> None:
    """However long no full sync succeeds, since the kernel refuses one jail; afterwards the lists are watched again."""
    [ip, *_] = fill(context, 3)
    watch = watch_of(context)
    watch.doubt()
    for number in range(1_000):
        watch.put(Plan(add={"mc-exim-1y": {f"203.0.113.{number}": FOREVER}}))
    assert sum(len(given.unpack()) for given in watch._given.values()) == 3
    watch.synced(context, sync(context), 0.0)
    assert not watch.drifted(context, 1.0)
    del firewall_of(context).entries["mc-exim-1y"][ip]
    assert watch.drifted(context, 2.0)


def test_who_meets_what_another_process_took_away_looks_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command and the engine carry the same change out at once: neither fails for that. What stays so is told."""
    [ip] = fill(context, 1)
    firewall = firewall_of(context)
    firewall.entries["mc-exim-1y"].clear()
    apply, tries = firewall.apply, []

    def meet(plan: Plan, now: int) -> list[Refusal]:
        tries.append(plan)
        if len(tries) < LOOKS:
            raise GoneError("a set vanished meanwhile")
        return apply(plan, now)

    monkeypatch.setattr(firewall, "apply", meet)
    assert sync(context).refusals == ()
    assert set(firewall.entries["mc-exim-1y"]) == {ip}
    firewall.entries["mc-exim-1y"].clear()
    tries.clear()
    monkeypatch.setattr("mcban.service.sync.LOOKS", LOOKS - 1)
    with pytest.raises(GoneError, match="vanished"):
        sync(context)
