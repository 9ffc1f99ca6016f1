"""While SQL is away, and just after it: who is banned by what is known, who is let in, what is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mcban.core.model import Hit
from mcban.core.plan import Plan
from mcban.daemon.engine import Engine
from mcban.daemon.presence import Presence, look
from mcban.daemon.signals import Signals
from mcban.daemon.vigil import Vigil
from mcban.errors import DatabaseError, FirewallError
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.memory import MemoryFirewall
from mcban.service import bans, upkeep
from mcban.service.context import Context
from mcban.service.local_copy import age_of
from mcban.service.sync import Outcome
from mcban.store.database import Database
from tests.conftest import MakeContext
from tests.daemon.desk import CUSTOM_JAIL, failures, follow, read_until
from tests.netns import Host
from tests.patience import PATIENCE, until
from tests.service.desk import IP, execute, held, in_force, known


def no_answer(*_: object, **__: object) -> None:
    """What the database does while it is away."""
    raise DatabaseError("gone")


def put_out_alone(context: Context, engine: Engine, log: Path) -> None:
    """IP is banned by what is known, while the database is away."""
    engine._bridge.failed("away")
    engine._vigil.look_out()
    log.write_text(failures(context, 3))
    end = time.monotonic() + PATIENCE
    while not held(context):
        assert time.monotonic() < end
        engine._vigil.look_out()


def test_nobody_is_let_in_by_a_full_sync_before_the_logs_are_read_for_sql(context: Context, tmp_path: Path) -> None:
    """A lost connection calls for one at once when the database is back; who is allowed is let in all the same, and
    whom SQL does not know when all is read."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    put_out_alone(context, engine, log)
    assert held(context) == ["mc-ssh-1d"]
    engine._bridge.over()
    assert engine._catching_up(busy=True)
    engine._enforcement.mend()
    assert held(context) == ["mc-ssh-1d"]
    engine._catching_up(busy=False)
    engine._enforcement.mend()
    assert not held(context)


def test_whom_the_look_out_bans_while_a_full_sync_waits_for_sql_stays(context: Context, tmp_path: Path) -> None:
    """The answer is older than the ban, and says nothing about it."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    asked: list[bool] = []

    def late(transaction: Callable[[], object]) -> object:
        asked.append(True)
        if len(asked) == 1:
            put_out_alone(context, engine, log)
        return transaction()

    context.database.conduct = late
    engine._enforcement.mend()
    assert held(context) == ["mc-ssh-1d"]


def test_who_was_allowed_meanwhile_is_let_in_at_once(context: Context, tmp_path: Path) -> None:
    """Also by a full sync that spares others."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    put_out_alone(context, engine, log)
    engine._bridge.over()
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('{IP}', 'mc-ssh-1d', 1)")
    assert engine._catching_up(busy=True) and held(context)
    engine._enforcement.mend()
    assert not held(context)


def test_what_is_not_held_against_anybody_takes_no_memory(context: Context, tmp_path: Path) -> None:
    """However many were banned, one commit each, and let in again."""
    engine = follow(context, tmp_path / "auth.log")
    for number in range(50):
        engine._bridge.counted([Hit(context.now, f"198.51.100.{number}", "mc-ssh")])
    gone = {f"198.51.100.{number}" for number in range(49)}
    engine._bridge.note(Outcome(Plan(remove={"mc-ssh-1d": gone})))
    assert len(engine._bridge._counted) == 1


def test_a_kernel_that_fails_while_the_database_is_away_puts_off_no_try_of_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hits wait to be written, and the kernel takes no ban of who did them: they are written when the database is back,
    whatever the kernel does."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    monkeypatch.setattr(MemoryFirewall, "apply", refuse)
    log.write_text(failures(context, 3))
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", no_answer)
        read_until(engine, lambda: engine._bridge.outage is not None)
        for _ in range(5):
            engine._go_without()
    assert engine._bridge.trouble == "gone"
    end = time.monotonic() + PATIENCE
    while engine._bridge.outage is not None:
        assert time.monotonic() < end
        engine._go_without()
    assert known(context, "mc-ssh-1d").active


def test_a_fault_of_the_kernel_while_an_answer_was_awaited_is_over_with_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` says what is wrong now: whoever looked out does so no more."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)
    engine._vigil.keep()
    log.write_text(failures(context, 3))

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFirewall, "apply", refuse)
        until(lambda: engine._vigil.keep() or engine._troubles.status()["troubles"])
    engine._catching_up(busy=False)
    engine._guarded(engine._tend)
    engine._statement.publish()
    assert look(context.config.state_dir).said["troubles"] == []


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_jail_that_the_kernel_does_not_take_keeps_nobody_from_looking_out(
    context: Context, host: Host, tmp_path: Path
) -> None:
    """The kernel refused one jail since the start: attackers are put out in the others all the same while the database
    is away, also in one that was added since."""
    host.run("ipset", "create", "mc-exim-1d", "hash:ip,port")
    log = tmp_path / "auth.log"
    log.write_text("")
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    engine = Engine(replace(context, firewall=IpsetFirewall()), Presence(context.config.state_dir), Signals())
    engine.start()
    execute(context, CUSTOM_JAIL)
    engine._guarded(engine._poll)
    engine._guarded(engine._tend)
    engine._bridge.failed("away")
    engine._vigil.look_out()
    log.write_text(failures(context, 3))
    until(lambda: engine._vigil.keep() is not None and IP in host.run("ipset", "list", "mc-ssh-1d").split())
    assert engine._bridge.known is not None and "my-jail" in engine._bridge.known.bans


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_jail_that_the_kernel_does_not_take_keeps_no_engine_from_starting_without_sql(
    context: Context, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bans of all other jails are in force then, attackers are put out, and `status` says which one is not."""
    log = tmp_path / "auth.log"
    log.write_text("")
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    bans.ban(context, "mc-webauth-1d", [IP], None, force=False, yes=False)
    host.run("ipset", "create", "mc-exim-1d", "hash:ip,port")
    monkeypatch.setattr(Database, "write", no_answer)
    engine = Engine(replace(context, firewall=IpsetFirewall()), Presence(context.config.state_dir), Signals())
    engine.start()
    assert IP in host.run("ipset", "list", "mc-webauth-1d").split()
    engine._go_without()
    log.write_text(failures(context, 3))

    def banned() -> bool:
        engine._go_without()
        return IP in host.run("ipset", "list", "mc-ssh-1d").split()

    until(banned)
    engine._statement.publish()
    (trouble,) = look(context.config.state_dir).said["troubles"]
    assert "set mc-exim-1d is there, but not as mcban makes it" in trouble


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("refusing", [False, True])
def test_an_engine_that_met_a_database_without_its_bans_looks_out_when_that_goes(
    context: Context, host: Host, tmp_path: Path, refusing: bool
) -> None:
    """It has more in the kernel than SQL knows of since it started, which somebody must decide about, and perhaps a
    jail that the kernel refuses beside: attackers are put out all the same."""
    log = tmp_path / "auth.log"
    log.write_text("")
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    strays = {f"198.51.100.{n}": context.now + 3_000 for n in range(120)}
    IpsetFirewall().apply(Plan(create=("mc-webauth-1d",), add={"mc-webauth-1d": strays}), context.now)
    if refusing:
        host.run("ipset", "create", "mc-exim-1d", "hash:ip,port")
    engine = Engine(replace(context, firewall=IpsetFirewall()), Presence(context.config.state_dir), Signals())
    engine.start()
    (trouble,) = look(context.config.state_dir).said["troubles"]
    assert "SQL knows nothing of 120" in trouble and refusing == ("set mc-exim-1d is there" in trouble)
    engine._bridge.failed("away")
    engine._vigil.look_out()
    log.write_text(failures(context, 3))
    until(lambda: engine._vigil.keep() is not None and IP in host.run("ipset", "list", "mc-ssh-1d").split())
    assert strays.keys() <= set(host.run("ipset", "list", "mc-webauth-1d").split())


@pytest.mark.parametrize("any_database", ["mariadb"], indirect=True)
def test_no_copy_is_made_of_a_database_that_lost_its_bans(context: Context) -> None:
    """The last one that knew them stays, until somebody has decided."""
    firewall = context.firewall
    assert isinstance(firewall, MemoryFirewall)
    firewall.entries["mc-ssh-1d"] = {f"198.51.100.{n}": 1 << 40 for n in range(120)}
    engine = Engine(context, Presence(context.config.state_dir), Signals())

    def is_copied() -> bool:
        engine._commit_positions()
        return age_of(context.config.state_dir, context.now) is not None

    engine.start()
    assert engine._bridge.known is not None and not is_copied()
    firewall.entries["mc-ssh-1d"] = {}
    engine._tend()
    assert is_copied()


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_who_was_let_in_since_the_last_time_that_sql_was_away_is_not_put_out_by_the_next(
    make_context: MakeContext, host: Host, tmp_path: Path
) -> None:
    """Also while the kernel refuses a jail, so that no full sync is ever whole."""
    context, other, log = make_context(), make_context(node="there"), tmp_path / "auth.log"
    engine = follow(replace(context, firewall=IpsetFirewall()), log)
    host.run("ipset", "create", "my-jail", "hash:ip,port")
    execute(context, CUSTOM_JAIL)
    engine._guarded(engine._poll)

    def banned() -> bool:
        return IP in host.run("ipset", "list", "mc-ssh-1d").split()

    engine._bridge.failed("away")
    engine._vigil.look_out()
    log.write_text(failures(context, 3))
    until(lambda: engine._vigil.keep() is not None and banned())
    engine._over()
    read_until(
        engine, lambda: engine._bridge.outage is None and not engine._catching_up(busy=False) and in_force(other) != []
    )
    engine._guarded(engine._tend)
    bans.unban(other, None, [IP])
    engine._guarded(engine._poll)
    assert not banned()
    engine._bridge.failed("away again")
    for action in (engine._vigil.look_out, engine._vigil._restore):
        engine._guarded(action, asks=False)
    assert not banned()


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_list_that_is_gone_keeps_nobody_from_looking_out(
    make_context: MakeContext, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody destroyed one while the database is away: who is to be in it is told and waits for it to be put back,
    and the logs are read on, for the sake of all others."""
    log = tmp_path / "auth.log"
    engine = follow(replace(make_context(sync_interval=1), firewall=IpsetFirewall()), log)
    context, vigil = engine._context, engine._vigil
    engine._bridge.failed("away")
    vigil.look_out()
    host.run("ipset", "del", "mc-ssh-all", "mc-ssh-1d")
    host.run("ipset", "destroy", "mc-ssh-1d")

    def attack_until(done: Callable[[], bool]) -> None:
        with log.open("a") as opened:
            opened.write(failures(context, 3))
        until(lambda: engine._guarded(vigil.look_out, asks=False) is None and done())

    def holds(jail: str) -> bool:
        return IP in host.run("ipset", "list", jail).split()

    attack_until(lambda: f"ban {IP} in mc-ssh-1d" in caplog.text)
    attack_until(lambda: holds("mc-ssh-1w"))
    assert "mc-ssh-1d" not in host.run("ipset", "list", "-n").split()
    until(lambda: vigil.keep() is not None and "mc-ssh-1d" in host.run("ipset", "list", "-n").split())
    vigil.look_out()
    assert holds("mc-ssh-1d")
    assert caplog.text.count(f"ban {IP} in mc-ssh-1d") == 1


def test_who_is_let_in_while_the_engine_catches_up_is_not_put_out_by_an_outage_within_that_minute(
    make_context: MakeContext, tmp_path: Path
) -> None:
    """SQL was back, had the ban, and somebody lifted it; that it is away again brings nothing of it back."""
    context, other, log = make_context(), make_context(node="there"), tmp_path / "auth.log"
    engine = follow(context, log)
    put_out_alone(context, engine, log)
    engine._over()
    read_until(engine, lambda: engine._catching_up(busy=True) == {"sync", "look", "purge"} and bool(in_force(other)))
    engine._guarded(engine._poll)
    bans.unban(other, None, [IP])
    engine._guarded(engine._poll)
    assert engine._catching_up(busy=True) and not held(context)
    engine._bridge.failed("away again")
    for action in (engine._vigil.look_out, engine._vigil._restore):
        engine._guarded(action, asks=False)
    assert not held(context)


def test_a_ban_that_ended_before_the_outage_lets_nobody_in_who_was_banned_anew_in_it(
    make_context: MakeContext, tmp_path: Path
) -> None:
    """Another node marks the old one as over while this one catches up: that says nothing about the new one."""
    context, other, log = make_context(), make_context(node="there"), tmp_path / "auth.log"
    engine = follow(context, log)
    bans.ban(other, "mc-ssh-1d", [IP], None, force=False, yes=False)
    past = "since = '2020-01-01 00:00:00', last_hit = '2020-01-01 00:00:00', until = '2020-01-02 00:00:00'"
    execute(other, f"UPDATE fail2ban_ips SET {past}")
    engine._guarded(engine._poll)
    assert not held(context)
    put_out_alone(context, engine, log)
    engine._over()
    assert engine._catching_up(busy=True)
    assert upkeep.expire(other) == 1
    engine._guarded(engine._poll)
    assert held(context) == ["mc-ssh-1d"]
    read_until(engine, lambda: not engine._catching_up(busy=False) and bool(in_force(other)))
    engine._guarded(engine._tend)
    assert held(context) == ["mc-ssh-1d"]


def test_who_is_let_in_by_an_answer_that_took_long_is_not_put_out_while_the_next_one_does(
    make_context: MakeContext, tmp_path: Path
) -> None:
    """Somebody is on the lookout as long as an answer is waited for, and hears who was lifted."""
    context, other, log = make_context(), make_context(node="there"), tmp_path / "auth.log"
    engine = follow(context, log)
    bans.ban(other, "mc-ssh-1d", [IP], None, force=False, yes=False)
    engine._guarded(engine._poll)
    engine._vigil.keep()
    assert held(context) and engine._bridge.watching
    bans.unban(other, None, [IP])
    engine._guarded(engine._poll)
    assert not held(context) and engine._bridge.watching
    engine._guarded(engine._vigil._restore, asks=False)
    assert not held(context)


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_single_ban_that_somebody_takes_out_meanwhile_is_put_back(
    context: Context, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It need not be the last of its list; nothing is read, and nothing said, while nobody takes anything."""
    engine = follow(replace(context, firewall=IpsetFirewall()), tmp_path / "auth.log")
    bans.ban(context, "mc-ssh-1d", [IP, "198.51.100.1"], None, force=False, yes=False)
    engine._guarded(engine._poll)
    engine._bridge.failed("away")
    restore = engine._vigil._restore
    engine._guarded(restore, asks=False)
    host.run("ipset", "del", "mc-ssh-1d", IP)
    for _ in range(3):
        engine._guarded(restore, asks=False)
    assert IP in host.run("ipset", "list", "mc-ssh-1d").split()
    assert [line for line in caplog.messages if "mended" in line] == [
        f"mended while the database is away: 1 entry gone from mc-ssh-1d: {IP}"
    ]


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_reload_that_is_asked_for_meanwhile_waits(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so at once, and it is made when SQL is back."""
    caplog.set_level(logging.INFO, logger="mcban")
    engine, turn = follow(context, tmp_path / "auth.log"), Vigil.turn

    def turned(self: Vigil) -> bool:
        assert caplog.messages[-1] == "jails and filters are read again when the database is back"
        monkeypatch.undo()
        return turn(self)

    def reloaded() -> None:
        assert engine._bridge.outage is None
        engine._signals.stop = True

    monkeypatch.setattr(Vigil, "turn", turned)
    engine._bridge.failed("away")
    engine._signals.reload = True
    engine._reload = reloaded  # type: ignore[method-assign]
    engine.run()
    assert engine._signals.stop
