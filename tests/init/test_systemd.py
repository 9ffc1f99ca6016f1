"""The systemd unit: what it promises the service manager, and that the engine works inside what it allows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcban.daemon.signals import KEEP
from mcban.errors import ConfigError, NoPermissionError
from tests.init.conftest import require
from tests.init.service import BANNED, MCBAN, UNIT, Service
from tests.patience import PATIENCE, until

CAPABILITIES = ("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_DAC_READ_SEARCH")


def settings(key: str) -> list[str]:
    """Every value that the unit gives a key."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, with the path of the program of this checkout."""
    unit = tmp_path / "mcban.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/mcban", f'"{MCBAN}"'))
    return unit


def test_systemd_accepts_the_unit(installed: Path) -> None:
    """systemd-analyze verify finds every setting known and every program there."""
    require("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exposure_stays_low(installed: Path) -> None:
    """systemd-analyze security gives it 2.5 of 10 at the most; what is left is what a firewall's root must have."""
    require("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(installed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:]


def test_statuses_and_signals_are_the_engines() -> None:
    """What trying again cannot help is not tried again, and a restart sends what leaves the bans in force."""
    fatal = {str(error.exit_status) for error in (NoPermissionError, ConfigError)}
    assert set(settings("RestartPreventExitStatus")[0].split()) == fatal
    assert settings("RestartKillSignal") == [KEEP.name]
    assert settings("KillSignal") == [signal.SIGTERM.name]
    assert set(settings("CapabilityBoundingSet")[0].split()) == set(CAPABILITIES)


def first_start(service: Service, **env: str) -> None:
    """Run what the unit runs to make the database, with the paths of this service."""
    line = settings("ExecStartPre")[0].replace("%S/mcban", str(service.state))
    line = line.replace("/usr/local/bin/mcban", f'"{MCBAN}"')
    done = service.command(*shlex.split(line), **env)
    assert done.returncode == 0, done


def test_first_start_makes_the_embedded_database(tmp_path: Path) -> None:
    """A first start makes the embedded database, and only that: a server's schema is the administrator's to change. A
    blank in its path does no harm."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    service = Service(folder)
    first_start(service, MCBAN_DATABASE_URL="mysql+pymysql://mcban@127.0.0.1:9/mcban")
    assert not service.state.exists()
    first_start(service)
    assert service.mcban("db", "check").returncode == 0
    service.database.write_bytes(b"")
    first_start(service)
    assert service.database.stat().st_size == 0


@contextmanager
def engine(service: Service, *before: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The engine as the service manager starts it, behind the command `before`."""
    assert service.host
    with service.log.open("a") as log:
        process = service.host.popen(*before, MCBAN, "run", env=service.env | env, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_means_in_force(gateway: Service, abstract: bool) -> None:
    """READY=1 reaches the service manager when the bans are in the kernel and not before, STOPPING=1 before they
    leave it."""
    assert gateway.host
    gateway.mcban("ban", "-j", "mc-exim", "-i", BANNED, MCBAN_FIREWALL="memory")
    assert not gateway.holds()
    name = str(gateway.folder / "notify")
    with gateway.host.entered():  # abstract names belong to a network namespace
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(PATIENCE)
        with engine(gateway, NOTIFY_SOCKET="@" + name if abstract else name) as process:
            assert manager.recv(100) == b"READY=1"
            assert gateway.holds()
            assert gateway.mcban("status").returncode == 0
            process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert process.wait(PATIENCE) == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    assert not gateway.holds()


def test_no_word_of_readiness_when_it_fails(gateway: Service) -> None:
    """An engine that cannot start says nothing to the service manager, and ends with a status that tells why."""
    gateway.settings.write_text("this is no TOML")
    name = str(gateway.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.setblocking(False)
        with engine(gateway, NOTIFY_SOCKET=name) as process:
            assert process.wait(PATIENCE) == ConfigError.exit_status
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def sandbox(service: Service, capabilities: tuple[str, ...]) -> list[str]:
    """A command before the engine's that gives it these capabilities and, as the unit does, a read-only system."""
    keep = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
    state = shlex.quote(str(service.state))
    mounts = [
        f"mount --bind {state} {state}",
        "if [ -e /run/xtables.lock ]; then mount --bind /run/xtables.lock /run/xtables.lock; fi",
        "for m in / /run /tmp /var; do if mountpoint -q $m; then mount -o remount,bind,ro $m; fi; done",
        f"if touch {shlex.quote(str(service.folder))}/x 2>/dev/null; then exit 99; fi",
    ]
    allow = ["setpriv", "--no-new-privs", f"--bounding-set={keep}", "--inh-caps=-all", '"$@"']
    return ["unshare", "-m", "/bin/sh", "-ec", "\n".join([*mounts, "exec " + " ".join(allow)]), "sandbox"]


def write_as_somebody_else(service: Service) -> None:
    """A log of failed logins that belongs to another user, who lets nobody else read it."""
    service.fail_to_log_in()
    os.chown(service.mail_log, 65534, 65534)
    service.mail_log.chmod(0o600)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_capabilities_and_file_system_of_the_unit_suffice(gateway: Service, variant: str) -> None:
    """With the unit's three capabilities, on a read-only system, another user's log line becomes a ban in ipset and
    a rule, by either iptables, and all of it is taken down at the end."""
    programs = gateway.folder / "bin"
    programs.mkdir()
    for program in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            (programs / f"{program}{verb}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")
    gateway.env["PATH"] = f"{programs}:{gateway.env['PATH']}:/usr/sbin:/sbin"
    write_as_somebody_else(gateway)
    with engine(gateway, *sandbox(gateway, CAPABILITIES)) as process:
        until(lambda: gateway.holds(jail="mc-exim-1y") or process.poll() is not None, "the highest tier")
        assert gateway.holds() and gateway.holds(jail="mc-exim-1y"), gateway.said()
        assert any("-j mcban" in line for line in gateway.kernel())
        process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded" in gateway.said(), "the reload")
        process.terminate()
        assert process.wait(PATIENCE) == 0, gateway.said()
    assert "ERROR" not in gateway.said()
    assert not [line for line in gateway.kernel() if "mc" in line]


@pytest.mark.parametrize("lacking", CAPABILITIES)
def test_each_capability_of_the_unit_is_needed(gateway: Service, lacking: str) -> None:
    """Without any one of the three the engine cannot do its work, and says what it lacks."""
    write_as_somebody_else(gateway)
    rest = tuple(name for name in CAPABILITIES if name != lacking)
    with engine(gateway, *sandbox(gateway, rest)) as process:
        if lacking == "CAP_DAC_READ_SEARCH":
            until(lambda: f"{gateway.mail_log}: unreadable" in gateway.said(), "a word about the log")
            assert not gateway.holds()
        else:
            assert process.wait(PATIENCE) == NoPermissionError.exit_status
            assert lacking in gateway.said()
