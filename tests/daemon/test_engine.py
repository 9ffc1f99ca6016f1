"""The loop of the engine when something goes wrong that nobody foresaw."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from mcban.core.model import Position
from mcban.core.plan import Actual
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.engine import NEVER, Engine
from mcban.daemon.presence import Presence, look
from mcban.daemon.signals import Signals
from mcban.daemon.statement import Statement
from mcban.errors import DatabaseError, FirewallError, McbanError, NoPermissionError, RefusedError
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.memory import MemoryFirewall
from mcban.logs import Block
from mcban.service import bans
from mcban.service.context import Context
from mcban.service.sources import Source
from mcban.store.database import Database, Transaction, UnsureError
from tests.conftest import MakeContext
from tests.daemon.desk import CUSTOM_JAIL, failures, follow, read_until
from tests.netns import Host
from tests.patience import PATIENCE, until
from tests.service.desk import IP, execute, held, known


def test_a_defect_is_said_once_and_does_not_end_the_engine(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """An error that is none of ours is one line with its place, said once however often it comes, and once that it is
    over; nothing is raised."""
    engine = Engine(context, Presence(context.config.state_dir), Signals())
    broken = [True]

    def activity() -> str:
        if broken[0]:
            raise ZeroDivisionError("odd\x1b[31m")
        return "done"

    with caplog.at_level(logging.INFO, logger="mcban"):
        for _ in range(3):
            assert engine._guarded(activity) is None
        broken[0] = False
        assert engine._guarded(activity) == "done"
    first, second = (record.getMessage() for record in caplog.records)
    assert "ZeroDivisionError" in first and "test_engine.py" in first and "\x1b" not in first and "\n" not in first
    assert second.startswith("over: ")


def test_a_defect_in_the_question_whether_the_database_is_there_does_not_end_the_engine(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something failed for its sake, and what finds out whether it is away breaks: both are told, once."""
    engine = Engine(context, Presence(context.config.state_dir), Signals())

    def activity() -> None:
        raise DatabaseError("odd answer")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Database, "look_at_clock", broken)
    for _ in range(3):
        assert engine._guarded(activity) is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "ZeroDivisionError" in told[0] and told[1] == "odd answer"
    assert engine._bridge.outage is None


@pytest.mark.parametrize("error", [FirewallError, NoPermissionError])
def test_a_ban_that_the_kernel_did_not_take_is_told_and_put_there_next(
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[McbanError],
) -> None:
    """Whatever the firewall's fault was, and although the kernel's counts are what they were."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)

    def refuse(*_: object) -> None:
        raise error("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFirewall, "apply", refuse)
        log.write_text(failures(context, 3))
        read_until(engine, lambda: "out of order" in caplog.text)
    assert f"ban {IP} in mc-ssh-1d" in caplog.text
    assert known(context, "mc-ssh-1d").active and not held(context)
    assert engine._due["sync"] == 0.0
    engine._tend()
    assert held(context) == ["mc-ssh-1d"]


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


def test_changes_that_could_not_be_acted_on_are_taken_up_again(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database, or the kernel, may go between the question what changed and what follows from the answer."""
    context, other = make_context(), make_context(node="there")
    engine = follow(context, tmp_path / "auth.log")

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    def end(*_: object) -> None:
        raise DatabaseError("gone")

    for place, name, fault in ((MemoryFirewall, "apply", refuse), (Database, "read", end)):
        bans.ban(other, "mc-exim-1d", [IP], None, force=False, yes=False)
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fault)
            with pytest.raises(McbanError):
                engine._poll()
        assert not held(context)
        # The database is asked again at once; what the kernel did not take is part of the full sync that is next.
        assert fault is end or engine._due["sync"] == 0.0
        engine._poll()
        engine._tend()
        assert held(context) == ["mc-exim-1d"]
        bans.unban(other, None, [IP])
        engine._poll()
        assert not held(context)


class Watched(IpsetFirewall):
    """Counts how often everything is read."""

    reads = 0

    def read(self, jails: Collection[str]) -> Actual:
        """See `Firewall.read`."""
        self.reads += 1
        return super().read(jails)


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_what_the_kernel_keeps_refusing_is_tried_less_and_less_often(
    make_context: MakeContext, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new jail has the name of a set of somebody else's: one line says so, `status` for as long as it lasts, all
    other jails go on, and not every look for changes reads the whole kernel; one line says when it is over."""
    firewall = Watched()
    context, another = make_context(), make_context(node="there")
    engine = follow(replace(context, firewall=firewall), tmp_path / "auth.log")
    host.run("ipset", "create", "my-jail", "hash:ip,port")
    execute(context, CUSTOM_JAIL, "DELETE FROM mcban_change")
    caplog.set_level(logging.INFO, logger="mcban")
    pauses = []
    firewall.reads = 0
    engine._guarded(engine._poll)
    for number in range(7):
        engine._guarded(engine._tend)
        pauses.append(engine._pause)
        for last in range(8):
            bans.ban(another, "mc-exim-1d", [f"203.0.113.{8 * number + last + 1}"], None, force=False, yes=False)
            engine._guarded(engine._poll)
    assert 1 + 7 <= firewall.reads <= 1 + 7 + 2  # these are for what was found missing, and could not be mended
    assert all(after > before for before, after in pairwise(pauses[:4])) and pauses[-1] >= 5
    assert {f"203.0.113.{n}" for n in range(1, 57)} <= set(host.run("ipset", "list", "mc-exim-1d").split())
    engine._statement.publish()
    said = look(context.config.state_dir).said
    assert [("set my-jail is there, but not as mcban makes it" in trouble) for trouble in said["troubles"]] == [True]
    host.run("ipset", "destroy", "my-jail")
    for action in (engine._tend, engine._poll, engine._tend):
        engine._guarded(action)
    engine._statement.publish()
    assert look(context.config.state_dir).said["troubles"] == []
    told = [record.getMessage() for record in caplog.records if "set my-jail is there" in record.getMessage()]
    assert [line.startswith("over: ") for line in told] == [False, True]
    assert "my-jail" in host.run("ipset", "list", "-n").split()


def test_a_kernel_that_takes_again_what_it_is_given_is_mended_at_once_although_somebody_must_decide(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refused all for a while; then it has more bans than SQL knows of. That is no reason to put off what a
    single fault calls for."""
    engine = follow(context, tmp_path / "auth.log")

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFirewall, "glance", refuse)
        patch.setattr(MemoryFirewall, "read", refuse)
        engine._guarded(engine._tend)
        engine._mend_soon()
        assert engine._due["sync"] > 0.0
    firewall = context.firewall
    assert isinstance(firewall, MemoryFirewall)
    firewall.entries["mc-ssh-1d"] = {f"198.51.100.{n}": 1 << 40 for n in range(200)}
    engine._enforcement.doubt()
    with pytest.raises(RefusedError, match="SQL knows nothing"):
        engine._tend()
    engine._mend_soon()
    assert engine._due["sync"] == 0.0


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_jail_that_the_kernel_does_not_take_keeps_no_other_from_being_in_force(
    context: Context, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is that of a set of somebody else's when the engine starts: that is said, once, and the others go on."""
    host.run("ipset", "create", "mc-ssh-1d", "hash:ip,port")
    bans.ban(context, "mc-exim-1d", [IP], None, force=False, yes=False)
    engine = Engine(replace(context, firewall=IpsetFirewall()), Presence(context.config.state_dir), Signals())
    engine.start()
    engine._guarded(engine._tend)
    assert IP in host.run("ipset", "list", "mc-exim-1d").split()
    assert "-j mcban" in host.run("iptables", "-S", "INPUT")
    assert caplog.text.count("set mc-ssh-1d is there, but not as mcban makes it") == 1
    assert len(look(context.config.state_dir).said["troubles"]) == 1


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_what_was_mended_is_told_also_while_the_kernel_refuses_a_jail(
    context: Context, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody takes a ban and the rules away: one line for each that is there again, with and without SQL; none for
    what belongs to the jail whose list is somebody else's."""
    host.run("ipset", "create", "mc-exim-1d", "hash:ip,port")
    bans.ban(context, "mc-webauth-1d", [IP], None, force=False, yes=False)
    engine = Engine(replace(context, firewall=IpsetFirewall()), Presence(context.config.state_dir), Signals())
    engine.start()

    def told(action: Callable[[], object], *, asks: bool = True) -> list[str]:
        for _ in range(3):
            engine._guarded(action, asks=asks)
        lines = [line for line in caplog.messages if line.startswith("mended")]
        caplog.clear()
        return lines

    def damage() -> None:
        host.run("ipset", "del", "mc-webauth-1d", IP)
        host.run("iptables", "-F", "mcban")

    mended = [
        "IPv4: the rule of mc-exim is gone",
        "IPv4: the rule of mc-ssh is gone",
        "IPv4: the rule of mc-webauth is gone",
        f"1 entry gone from mc-webauth-1d: {IP}",
    ]
    assert told(engine._tend) == []
    damage()
    assert told(engine._tend) == [f"mended: {line}" for line in mended]
    engine._bridge.failed("away")
    damage()
    restored = told(engine._vigil._restore, asks=False)
    assert restored == [f"mended while the database is away: {line}" for line in mended]
    assert IP in host.run("ipset", "list", "mc-webauth-1d").split()


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_what_the_kernel_does_not_take_is_told_once_and_no_longer_than_it_lasts(
    context: Context, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bans that found their list full, and one whose list is somebody else's: a line for each list, however often they
    are tried again; `status` has them until they are in force, or over."""
    host.run("ipset", "create", "my-jail", "hash:ip,port")
    engine = follow(replace(context, firewall=IpsetFirewall(maxelem=2, most=2)), tmp_path / "auth.log")
    execute(context, CUSTOM_JAIL)
    ips = [f"198.51.100.{n}" for n in range(4)]
    bans.ban(context, "mc-ssh-1d", ips, None, force=False, yes=False)
    bans.ban(context, "my-jail", [IP], None, force=False, yes=False)
    engine._enforcement.doubt()

    def tried() -> list[str]:
        for _ in range(3):
            engine._guarded(engine._tend)
        engine._statement.publish()
        return sorted(one["entry"] for one in look(context.config.state_dir).said["not_enforced"])

    refused = tried()
    assert len(refused) == 3 and IP in refused
    bans.unban(context, "my-jail", [IP])
    assert tried() == [ip for ip in refused if ip != IP]
    bans.unban(context, None, [ip for ip in ips if ip not in refused])
    assert tried() == []
    assert caplog.text.count("not enforced: ") == 2
    host.run("ipset", "destroy", "my-jail")
    bans.ban(context, "mc-ssh-1d", ["198.51.100.7"], None, force=False, yes=False)
    assert tried() == tried() == ["198.51.100.7"]
    assert caplog.text.count("not enforced: ") == 3


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_database_that_lost_its_bans_is_told_also_while_the_kernel_refuses_a_jail(
    context: Context, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They stay in force, and are what is known, and enforced, should the database go."""
    engine = follow(replace(context, firewall=IpsetFirewall()), tmp_path / "auth.log")
    ips = [f"198.51.100.{n}" for n in range(120)]
    bans.ban(context, "mc-ssh-1d", ips, None, force=False, yes=False)
    engine._guarded(engine._poll)
    engine._guarded(engine._tend)
    host.run("ipset", "create", "my-jail", "hash:ip,port")
    execute(context, "DELETE FROM fail2ban_ips", CUSTOM_JAIL)
    engine._enforcement.doubt()
    engine._guarded(engine._tend)
    assert "set my-jail is there" in caplog.text and "SQL knows nothing of 120 of the 120 bans" in caplog.text
    assert set(ips) <= set(host.run("ipset", "list", "mc-ssh-1d").split())
    assert engine._bridge.known is not None and engine._bridge.known.ends()["mc-ssh-1d"].keys() == set(ips)


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_reload_is_done_when_jails_and_filters_are_read_whatever_the_kernel_refuses(
    context: Context, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and not made anew for as long as the list of one jail is somebody else's; that is told until it is
    mended."""
    host.run("ipset", "create", "my-jail", "hash:ip,port")
    engine = follow(replace(context, firewall=IpsetFirewall()), tmp_path / "auth.log")
    execute(context, CUSTOM_JAIL)
    caplog.set_level(logging.INFO, logger="mcban")
    engine._due["reload"] = 0.0
    engine._guarded(engine._reload)
    assert engine._due["reload"] == NEVER and "reloaded" in caplog.text
    engine._statement.publish()
    assert len(look(context.config.state_dir).said["troubles"]) == 1
    host.run("ipset", "destroy", "my-jail")
    engine._guarded(engine._tend)
    engine._statement.publish()
    assert look(context.config.state_dir).said["troubles"] == []


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("reload", [False, True])
def test_status_says_at_once_what_is_wrong(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reload: bool
) -> None:
    """The kernel failed: so says the first word after it, and no word says otherwise meanwhile, also in a reload."""
    context = make_context(sync_interval=int(10 * PATIENCE))
    engine, publish = follow(context, tmp_path / "auth.log"), Statement.publish
    said: list[list[str]] = []

    def refuse(*_: object) -> None:
        raise FirewallError("out of order")

    def published(self: Statement) -> None:
        publish(self)
        said.append(look(context.config.state_dir).said["troubles"])
        engine._signals.stop = not reload or engine._due["reload"] == NEVER

    monkeypatch.setattr(Enforcement, "tend", refuse)
    monkeypatch.setattr(Statement, "publish", published)
    engine._signals.reload = reload
    engine.run()
    assert said in ([["out of order"]], [["out of order"]] * (1 + reload))


def test_a_reload_that_failed_is_made_up_for(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sent SIGHUP while the database was away need not send it again."""
    engine, before = follow(context, tmp_path / "auth.log"), Engine._reload
    tries: list[float] = []
    signals = engine._signals
    signals.reload = True

    def reload(self: Engine) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise DatabaseError("away")
        before(self)
        signals.stop = True

    monkeypatch.setattr(Engine, "_reload", reload)
    monkeypatch.setattr("mcban.daemon.engine.AGAIN", 0.1)
    with caplog.at_level(logging.INFO, logger="mcban"):
        engine.run()
    assert len(tries) == 2 and "reloaded" in caplog.text


def test_a_sync_that_somebody_must_decide_about_is_not_made_again_with_each_poll(
    context: Context, tmp_path: Path
) -> None:
    """The database came back empty: that is found at once, and from then on looked at now and then."""
    engine = follow(context, tmp_path / "auth.log")
    bans.ban(context, "mc-exim-1d", [f"198.51.100.{n}" for n in range(120)], None, force=False, yes=True)
    engine._poll()
    execute(context, "DELETE FROM fail2ban_ips")
    execute(context, "DELETE FROM mcban_change")
    with pytest.raises(RefusedError):
        engine._poll()
    assert engine._due["sync"] == 0.0
    engine._poll()
    with pytest.raises(RefusedError):
        engine._tend()


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_what_may_be_wrong_with_a_filter_is_told_once(
    make_context: MakeContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that it includes is not there: one line at start, none with each change of jails."""
    folder = tmp_path / "filters"
    folder.mkdir()
    (folder / "mc-sshd-filter.conf").write_text(
        "[INCLUDES]\nbefore = gone.conf\n[Definition]\nfailregex = Failed .* from <HOST>\n"
    )
    context = make_context(filter_path=(folder,))
    engine = follow(context, tmp_path / "auth.log")
    for _ in range(2):
        engine._commit_positions()
        engine._follow_sources()
    assert caplog.text.count("gone.conf, which does not exist") == 1


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


def test_logs_that_could_not_be_followed_are_followed_later(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something went wrong when a jail was given another log: that is tried again, without another change."""
    monkeypatch.setattr("mcban.daemon.engine.AGAIN", 0.1)
    engine, log = follow(context, tmp_path / "auth.log"), tmp_path / "other.log"
    log.write_text(failures(context, 1))
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    sources, tries = Enforcement.sources, []

    def broken_at_first(self: Enforcement) -> list[Source]:
        tries.append(self)
        if len(tries) == 1:
            raise ZeroDivisionError
        engine._signals.stop = True
        return sources(self)

    monkeypatch.setattr(Enforcement, "sources", broken_at_first)
    engine.run()
    assert len(tries) == 2 and engine._reading.opened == {str(log)}
