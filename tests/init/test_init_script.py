"""The init script, run for real: what it does, says and answers."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.init.conftest import require
from tests.init.service import MCBAN, SCRIPT, Service, gone, stranger
from tests.missing import skip_or_fail
from tests.netns import require_netns
from tests.patience import PATIENCE, until


def test_script_is_clean() -> None:
    """dash can read it, and shellcheck has nothing to say."""
    require("dash", "shellcheck")
    subprocess.run(["dash", "-n", str(SCRIPT)], check=True)
    subprocess.run(["shellcheck", "-s", "dash", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_header_tells_insserv_when_to_start() -> None:
    """The LSB header has what update-rc.d asks for."""
    header = SCRIPT.read_text().partition("### BEGIN INIT INFO\n")[2].partition("### END INIT INFO")[0]
    keys = [line[2:].partition(":")[0] for line in header.splitlines() if not line.startswith("#  ")]
    assert keys == [
        "Provides",
        "Required-Start",
        "Required-Stop",
        "Should-Start",
        "Should-Stop",
        "Default-Start",
        "Default-Stop",
        "Short-Description",
        "Description",
    ]


def test_life_of_a_service(tmp_path: Path) -> None:
    """Status, start, start again, stop, stop again answer as the LSB says; a first start makes the database. Blanks in
    the paths do no harm."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    service = Service(folder)
    try:
        assert service.script("status").returncode == 3
        done = service.script("start")
        assert done.returncode == 0, done
        pid = service.pid
        assert done.stdout == f"mcban: started (process {pid}), bans are in force\n"
        assert service.database.exists()
        done = service.script("status")
        assert (done.returncode, done.stdout) == (0, f"mcban: runs (process {pid})\n")
        done = service.script("start")
        assert (done.returncode, done.stdout) == (0, f"mcban: runs already (process {pid})\n")
        done = service.script("stop")
        assert (done.returncode, done.stdout) == (0, "mcban: stopped; lists and rules are taken down\n")
        assert gone(pid)
        assert not service.pid_file.exists()
        done = service.script("stop")
        assert (done.returncode, done.stdout) == (0, "mcban: does not run\n")
        assert service.script("status").returncode == 3
    finally:
        service.end()


def test_restart_and_reload(service: Service) -> None:
    """Restart gives a new process and keeps the log; reload keeps the process, which reads jails and filters again."""
    assert service.script("try-restart").returncode == 0
    assert service.script("reload").returncode == 7
    assert service.script("force-reload").returncode == 7
    assert service.script("status").returncode == 3
    first = service.start()

    def reloaded(times: int) -> bool:
        return service.said().count("reloaded") == times

    for action in ("reload", "force-reload"):
        before = service.said().count("reloaded")
        assert service.script(action).returncode == 0
        until(partial(reloaded, before + 1), action)
    assert service.pid == first
    for action in ("restart", "try-restart"):
        before_pid = service.pid
        assert service.script(action).returncode == 0
        assert gone(before_pid)
        assert service.pid != before_pid
        assert service.script("status").returncode == 0
    assert service.said().count("ready") == 3
    assert service.said().count("lists and rules stay in the kernel") == 2
    service.script("stop")
    assert service.script("restart").returncode == 0
    assert service.script("status").returncode == 0


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("",)])
def test_wrong_usage(service: Service, arguments: tuple[str, ...]) -> None:
    """Without an action, or with an unknown one, the script says which there are."""
    done = service.script(*arguments)
    assert done.returncode == 2
    assert "start|stop|restart|try-restart|reload|force-reload|status" in done.stderr


def test_broken_settings(service: Service) -> None:
    """Settings that cannot be used are named in one line, and nothing is left behind."""
    service.settings.write_text('[firewall]\nbackend = "wishes"\n')
    done = service.script("start", MCBAN_FIREWALL="")
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{service.settings}: firewall.backend" in done.stderr
    assert service.script("status").returncode == 3


def test_restart_with_broken_settings_leaves_the_old_engine(service: Service) -> None:
    """Nobody loses a running engine to a typing error."""
    pid = service.start()
    service.settings.write_text("this is no TOML")
    done = service.script("restart")
    assert done.returncode == 6
    assert f"not restarted, process {pid} goes on: {service.settings}" in done.stderr
    assert not gone(pid)
    assert service.script("status").returncode == 0


def test_a_start_never_changes_a_schema(service: Service) -> None:
    """A database that another version made is left alone, with a word on what to do."""
    with sqlite3.connect(service.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE mcban_turn SET oldest_schema = '9999'")
    connection.close()
    done = service.script("start")
    assert done.returncode == 6
    assert "the schema of" in done.stderr
    service.database.write_bytes(b"")
    done = service.script("start")
    assert done.returncode == 6
    assert "run `mcban db upgrade`" in done.stderr
    assert b"fail2ban_jail" not in service.database.read_bytes()


@pytest.mark.parametrize("comes", [True, False])
def test_database_that_is_not_there_yet(service: Service, tmp_path: Path, comes: bool) -> None:
    """A start waits for a database that cannot be reached, says so, and gives up in time."""
    away = tmp_path / "away"
    away.touch()
    program = tmp_path / "program"
    fail = f'{"rm" if comes else ":"} "{away}"; echo "mcban: no database" >&2; exit 69'
    program.write_text(f'#!/bin/sh\nif [ -e "{away}" ]; then {fail}; fi\nexec "{MCBAN}" "$@"\n')
    program.chmod(0o755)
    done = service.script("start", MCBAN_DAEMON=str(program), **({} if comes else {"MCBAN_START_TIMEOUT": "2"}))
    assert done.returncode == (0 if comes else 1), done
    waiting, *failed = done.stderr.splitlines()
    assert waiting == f"mcban: waiting up to {60 if comes else 2} s: no database"
    assert failed == ([] if comes else [f"mcban: not started: no database (exit status 69, log {service.log})"])
    assert service.script("status").returncode == (0 if comes else 3)


def test_not_installed(service: Service) -> None:
    """Without the program a start says what is missing."""
    done = service.script("start", MCBAN_DAEMON="/nonexistent/mcban")
    assert done.returncode == 5
    assert "/nonexistent/mcban is not installed" in done.stderr


def test_without_permission() -> None:
    """Who may not start it is told to be root."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become someone else")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        script = shutil.copy(SCRIPT, folder)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", script, "start"],
            env={"PATH": os.environ["PATH"], "MCBAN_DEFAULTS": "/dev/null", "MCBAN_DAEMON": "/bin/true"}
            | {"MCBAN_PIDFILE": f"{folder}/pid", "MCBAN_LOG": f"{folder}/log", "MCBAN_STATE_DIR": f"{folder}/state"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 4
        assert "run as root" in done.stderr
    finally:
        shutil.rmtree(folder)


def test_someone_else_cannot_tell(service: Service) -> None:
    """Status answers 4 to who may not look, and never that nothing runs."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become someone else")
    pid = service.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = shutil.copy(SCRIPT, folder)
        (folder / "pid").write_text(f"{pid}\n")
        for action in ("status", "stop", "reload"):
            done = subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", script, action],
                env=service.env | {"MCBAN_PIDFILE": str(folder / "pid")},
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 4, done
            assert "run as root" in done.stderr
    assert not gone(pid)


def test_a_pid_file_that_may_not_be_read_tells_nothing() -> None:
    """Where the state directory is open to all and the pid file is not, nobody is told that the engine died."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become someone else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = shutil.copy(SCRIPT, folder)
        (folder / "pid").write_text("1\n")
        (folder / "pid").chmod(0o600)
        for action in ("status", "stop", "reload", "start"):
            done = subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", script, action],
                env={"PATH": os.environ["PATH"], "MCBAN_DEFAULTS": "/dev/null", "MCBAN_DAEMON": "/bin/true"}
                | {"MCBAN_PIDFILE": f"{folder}/pid", "MCBAN_LOG": f"{folder}/log", "MCBAN_STATE_DIR": name},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (4, ""), action
            assert "run as root" in done.stderr


def test_who_was_killed_this_instant_does_not_run(service: Service) -> None:
    """`kill -9` and `start` in one line: a process that is about to be gone is no reason not to start."""
    service.start()
    for _ in range(3):
        killed = service.pid
        os.kill(killed, signal.SIGKILL)
        assert service.script("start").returncode == 0
        assert service.pid != killed
        assert service.script("status").returncode == 0


@pytest.mark.parametrize("action", ["start", "stop", "restart", "reload"])
def test_a_stranger_is_never_signalled(service: Service, action: str) -> None:
    """A pid file that is left over may name anybody by now: status says so, and whatever is done, he lives on."""
    with stranger() as process:
        service.pid_file.write_text(f"{process.pid}\n")
        done = service.script("status")
        assert done.returncode == 1
        assert "it died" in done.stdout
        assert service.script(action).returncode == (7 if action == "reload" else 0)
        assert process.poll() is None


def test_rubbish_in_the_pid_file(service: Service) -> None:
    """A pid file that holds no number is no obstacle."""
    for rubbish in ("", "\n", "-1\n", "1 2; echo x\n", "0\n"):
        service.pid_file.write_text(rubbish)
        assert service.script("status").returncode == 1
    assert service.script("start").returncode == 0
    assert service.script("status").returncode == 0


def test_killed_engine(service: Service) -> None:
    """After kill -9 status says that it died, and start starts it."""
    pid = service.start()
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid), "the kill")
    done = service.script("status")
    assert done.returncode == 1
    assert service.script("reload").returncode == 7
    assert service.start() != pid
    assert service.script("status").returncode == 0


def test_engine_that_does_not_listen(service: Service) -> None:
    """An engine that does not end by itself is killed, which is said; the next stop clears up after it."""
    pid = service.start()
    os.kill(pid, signal.SIGSTOP)
    done = service.script("stop", MCBAN_STOP_TIMEOUT="1")
    assert done.returncode == 1
    assert f"killing process {pid}" in done.stderr
    assert gone(pid)
    done = service.script("stop")
    assert done.returncode == 0, done
    assert "had died" in done.stdout
    assert service.script("status").returncode == 3


def test_engine_started_by_hand(service: Service) -> None:
    """An engine that someone runs in a terminal is seen, and can be stopped, without a pid file."""
    with service.log.open("a") as log:
        engine = subprocess.Popen([MCBAN, "run"], env=service.env, stderr=log)
    until(lambda: "ready" in service.said(), "ready")
    assert service.script("status").returncode == 0
    assert f"runs already (process {engine.pid})" in service.script("start").stdout
    assert service.script("stop").returncode == 0
    assert engine.wait(PATIENCE) == 0


def test_many_starts_at_once(service: Service) -> None:
    """Starts that race give one engine, which the pid file names."""
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(service.script, ["start"] * 4))
    assert any(one.returncode == 0 for one in done), done
    status = service.script("status")
    assert status.returncode == 0
    assert not gone(service.pid)
    assert f"process {service.pid}" in status.stdout
    assert service.script("stop").returncode == 0
    assert service.script("status").returncode == 3


def test_program_inside_a_script(service: Service, tmp_path: Path) -> None:
    """MCBAN_DAEMON may be a script around mcban: it is the engine that is signalled."""
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n"{MCBAN}" "$@"\nexit $?\n')
    wrapper.chmod(0o755)
    done = service.script("start", MCBAN_DAEMON=str(wrapper))
    assert done.returncode == 0, done
    pid = service.pid
    assert service.mcban("status").stdout.startswith(f"engine    runs (process {pid}")
    assert service.script("stop").returncode == 0
    assert gone(pid)


def test_settings_of_the_defaults_file(service: Service, tmp_path: Path) -> None:
    """The defaults file sets what the environment does not; state_dir may also stand in mcban.toml."""
    defaults = tmp_path / "default file"
    other = tmp_path / "other.log"
    other_state = tmp_path / "other state"
    defaults.write_text(f"MCBAN_LOG={other}\nMCBAN_PIDFILE=/nonexistent/pid\n")
    service.settings.write_text(f'state_dir = "{other_state}"\n')
    settings = {"MCBAN_DEFAULTS": str(defaults)}
    del service.env["MCBAN_LOG"]
    del service.env["MCBAN_STATE_DIR"]
    try:
        assert service.script("start", **settings).returncode == 0
        assert "ready" in other.read_text()
        assert (other_state / "mcban.sqlite").exists()
        assert service.mcban("status").returncode == 0
        assert service.script("status", **settings).returncode == 0
    finally:
        assert service.script("stop", **settings).returncode == 0


def test_system_without_lsb_functions(service: Service) -> None:
    """Where /lib/lsb/init-functions is missing the script works all the same."""
    require_netns()
    script = f'mount -t tmpfs none /lib/lsb && for action in start status stop; do /bin/sh "{SCRIPT}" $action; done'
    if not Path("/lib/lsb").exists():
        script = script.partition("&& ")[2]
    done = service.command("unshare", "-m", "/bin/sh", "-ec", script)
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["started", "runs", "stopped;"]
