"""The loop of the engine when something goes wrong that nobody foresaw."""

from __future__ import annotations

import gzip
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from mcban.core.model import Hit, Position
from mcban.core.plan import Actual, Plan
from mcban.daemon.bridge import Bridge
from mcban.daemon.enforcement import Enforcement
from mcban.daemon.engine import Engine
from mcban.daemon.one_pass import OnePass
from mcban.daemon.presence import Presence, look
from mcban.daemon.signals import Signals
from mcban.errors import DatabaseError, FirewallError, McbanError, NoPermissionError, RefusedError
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.memory import MemoryFirewall
from mcban.logs import Block
from mcban.service import bans
from mcban.service.context import Context
from mcban.service.sources import Source
from mcban.service.sync import Outcome
from mcban.store.database import Database, Transaction, UnsureError
from tests.conftest import MakeContext
from tests.netns import Host, one_host, require_netns
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


def follow(context: Context, log: Path) -> Engine:
    """An engine that follows `log` for mc-ssh, and has looked around once."""
    log.write_text("")
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    engine = Engine(context, Presence(context.config.state_dir), Signals())
    engine.start()
    engine._tend()
    return engine


def failures(context: Context, number: int) -> str:
    """Lines of sshd, a login of IP that failed in each."""
    date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(context.now))
    return "".join(f"{date} h sshd[{n}]: Failed password for root from {IP} port 22 ssh2\n" for n in range(number))


def read_until(engine: Engine, done: Callable[[], bool]) -> None:
    """Read as the loop does."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        engine._guarded(engine._read_some)


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


CUSTOM_JAIL = (
    "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
    " max_count) VALUES (1, 'my-jail', 3, 3600, 86400, '25', 'mc-exim-filter', 'mc-custom', '/dev/null', 0)"
)


class Watched(IpsetFirewall):
    """Counts how often everything is read."""

    reads = 0

    def read(self, jails: Collection[str]) -> Actual:
        """See `Firewall.read`."""
        self.reads += 1
        return super().read(jails)


@pytest.fixture
def host() -> Iterator[Host]:
    """A network namespace in which this thread is."""
    require_netns()
    with one_host() as host, host.entered():
        yield host


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
    assert firewall.reads == 1 + 7
    assert all(after > before for before, after in pairwise(pauses[:4])) and pauses[-1] >= 5
    assert {f"203.0.113.{n}" for n in range(1, 57)} <= set(host.run("ipset", "list", "mc-exim-1d").split())
    said = look(context.config.state_dir).said
    assert [("set my-jail is there, but not as mcban makes it" in trouble) for trouble in said["troubles"]] == [True]
    host.run("ipset", "destroy", "my-jail")
    for action in (engine._tend, engine._poll, engine._tend):
        engine._guarded(action)
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


def test_what_is_not_held_against_anybody_takes_no_memory(context: Context, tmp_path: Path) -> None:
    """However many were banned, one commit each, and let in again."""
    engine = follow(context, tmp_path / "auth.log")
    for number in range(50):
        engine._bridge.counted([Hit(context.now, f"198.51.100.{number}", "mc-ssh")])
    gone = {f"198.51.100.{number}" for number in range(49)}
    engine._bridge.note(Outcome(Plan(remove={"mc-ssh-1d": gone})))
    assert len(engine._bridge._counted) == 1


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


def no_answer(*_: object, **__: object) -> None:
    """What the database does while it is away."""
    raise DatabaseError("gone")


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
            engine._bridge_over()
    assert engine._bridge.trouble == "gone"
    end = time.monotonic() + PATIENCE
    while engine._bridge.outage is not None:
        assert time.monotonic() < end
        engine._bridge_over()
    assert known(context, "mc-ssh-1d").active


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

    def turn() -> None:
        if engine._bridge.outage is not None:
            engine._bridge_over()
        else:
            engine._guarded(engine._read_some)

    def all_read() -> bool:
        return any(position.offset == log.stat().st_size for position in engine._reading.positions)

    log.write_text(failures(context, 1))
    read_until(engine, lambda: bool(engine._reading.written))
    with log.open("a") as opened, monkeypatch.context() as patch:
        patch.setattr(Database, "write", led_astray)
        opened.write(failures(context, 2))
        opened.flush()
        until(lambda: turn() or asked)
        opened.write(failures(context, 3))
        opened.flush()
        until(lambda: turn() or (len(asked) > 5 and not engine._reading.pending and all_read()))
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


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_one_pass_over_the_logs_ends_when_the_database_lost_what_it_had_confirmed(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives are read but once in it: it says so, with what to do, and the next pass reads what is missing."""
    context, other = make_context(), make_context()
    archives = [tmp_path / f"auth-{n}.log.gz" for n in range(3)]
    for number, archive in enumerate(archives, 1):
        lines = failures(context, number).replace(" h ", f" h{number} ")
        archive.write_bytes(gzip.compress(lines.encode()))
    named = " ".join(map(str, archives))
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{named}' WHERE name LIKE 'mc-ssh-%'")

    def lose(self: Engine, hits: object) -> None:
        execute(other, "UPDATE mcban_position SET batch = 'another'")
        context.database.dispose()
        monkeypatch.undo()
        monkeypatch.setattr("mcban.daemon.one_pass.AT_ONCE", 1)

    monkeypatch.setattr("mcban.daemon.one_pass.AT_ONCE", 1)
    monkeypatch.setattr(Bridge, "counted", lose)
    passes = []
    for _ in range(2):
        one_pass = OnePass(context, Presence(context.config.state_dir), Signals())
        one_pass.start()
        try:
            passes.append(one_pass.run())
        except DatabaseError as error:
            passes.append(str(error))
    assert "run this again" in passes[0] and passes[1] is True
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-ssh": 6}
