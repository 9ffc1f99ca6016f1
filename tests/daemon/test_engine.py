"""The loop of the engine: what goes wrong in it is said, and made up for."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from mcban.daemon.enforcement import Enforcement
from mcban.daemon.engine import NEVER, Engine
from mcban.daemon.presence import Presence, look
from mcban.daemon.signals import Signals
from mcban.daemon.statement import Statement
from mcban.errors import DatabaseError, FirewallError, McbanError, RefusedError
from mcban.firewall.memory import MemoryFirewall
from mcban.service import bans
from mcban.service.context import Context
from mcban.service.sources import Intake, Source
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database
from tests.conftest import MakeContext
from tests.daemon.desk import failures, follow
from tests.patience import PATIENCE
from tests.service.desk import IP, execute, held


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


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_defect_in_a_filter_does_not_keep_the_engine_from_starting(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and met again with a line that matters; all else goes on."""
    engine, tend = follow(context, tmp_path / "auth.log"), Enforcement.tend

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    def tended(self: Enforcement) -> None:
        tend(self)
        engine._signals.stop = True

    monkeypatch.setattr(Intake, "hits", broken)
    monkeypatch.setattr(Enforcement, "tend", tended)
    engine.run()
    assert "a defect of mcban, please report it: ZeroDivisionError" in caplog.text
    assert engine._troubles.status()["troubles"] == []


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


def test_what_a_command_has_just_written_is_nobodys_meddling(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine counts between a command's commit and its own poll: the ban and the lifting are done, and the log does
    not say that somebody took entries out of the kernel, or put some there."""
    engine = follow(context, tmp_path / "auth.log")
    bans.ban(context, "mc-exim-1d", [IP], None, force=False, yes=False)
    engine._tend()
    caplog.clear()
    other = "198.51.100.7"
    record = AddressRecord(other, "mc-exim-1d", 1, True, since=context.now, until=context.now + 1000)
    lifted = AddressRecord(IP, "mc-exim-1d", 1, since=context.now, until=context.now, lifted_after=0)
    for rows, there in (([record], [IP, other]), ([lifted], [other])):
        context.database.write(lambda t, rows=rows: t.addresses.save(rows))  # type: ignore[misc]
        engine._enforcement._drift._count_at = 0.0  # as after half a minute
        engine._tend()
        assert [ip for ip in (IP, other) if held(context, ip)] == there
    assert "mended" not in caplog.text
