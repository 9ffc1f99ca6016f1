"""What the kernel does not take: told, tried again, and nobody else's harm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mcban.core.plan import Actual
from mcban.daemon.engine import NEVER, Engine
from mcban.daemon.presence import Presence, look
from mcban.daemon.signals import Signals
from mcban.errors import FirewallError, McbanError, NoPermissionError, RefusedError
from mcban.firewall.ipset import IpsetFirewall
from mcban.firewall.memory import MemoryFirewall
from mcban.service import bans
from mcban.service.context import Context
from tests.conftest import MakeContext
from tests.daemon.desk import CUSTOM_JAIL, failures, follow, read_until
from tests.netns import Host
from tests.service.desk import IP, execute, held, known


@pytest.mark.parametrize("error", [FirewallError, NoPermissionError])
def test_a_ban_that_the_kernel_did_not_take_is_told_and_put_there_next(
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[McbanError],
) -> None:
    """Whatever the firewall's fault was, and although the kernel's counts are what they were. It is told once."""
    log = tmp_path / "auth.log"
    engine = follow(context, log)

    def refuse(*_: object) -> None:
        raise error("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFirewall, "apply", refuse)
        log.write_text(failures(context, 3))
        read_until(engine, lambda: "out of order" in caplog.text)
        with log.open("a") as more:
            more.write(failures(context, 3, "192.0.2.77"))
        read_until(engine, lambda: "ban 192.0.2.77" in caplog.text)
    assert caplog.text.count("out of order") == 1
    assert f"ban {IP} in mc-ssh-1d" in caplog.text
    assert known(context, "mc-ssh-1d").active and not held(context)
    assert engine._due["sync"] == 0.0
    engine._tend()
    assert held(context) == ["mc-ssh-1d"]


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
