"""The engine as a service of one temporary folder: started by the init script, or as systemd would start it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mcban.shipped import shipped
from mcban.store import schema
from mcban.store.database import Database
from tests import warm
from tests.netns import Host
from tests.patience import PATIENCE

MCBAN = str(Path(sys.executable).with_name("mcban"))
SCRIPT = shipped("init.d") / "mcban"
UNIT = shipped("etc") / "systemd/mcban.service"
BANNED = "203.0.113.9"


class Service:
    """Settings, state, a log of exim's, in a folder; in a namespace when there is a host."""

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.folder, self.host = folder, host
        self.state = folder / "state"
        self.pid_file = folder / "mcban.pid"
        self.log = folder / "mcban.log"
        self.mail_log = folder / "mainlog"
        self.settings = folder / "mcban.toml"
        self.settings.write_text("")
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MCBAN_")},
            "MCBAN_DEFAULTS": "/dev/null",
            "MCBAN_DAEMON": MCBAN,
            "MCBAN_CONFIG": str(self.settings),
            "MCBAN_STATE_DIR": str(self.state),
            "MCBAN_FIREWALL": "ipset" if host else "memory",
            "MCBAN_LOG": str(self.log),
            "MCBAN_PIDFILE": str(self.pid_file),
        }

    @property
    def database(self) -> Path:
        """The embedded database."""
        return self.state / "mcban.sqlite"

    def prepare(self) -> None:
        """Make the database, with jails that read this folder's log and no other."""
        self.state.mkdir(mode=0o750)
        database = Database(f"sqlite:///{self.database}")
        schema.upgrade(database)
        database.dispose()
        with sqlite3.connect(self.database) as connection:
            connection.execute("UPDATE fail2ban_jail SET logpath = ?", (str(self.mail_log),))
        connection.close()

    def script(self, *actions: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the init script."""
        return self.command("/bin/sh", str(SCRIPT), *actions, **env)

    def mcban(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of mcban."""
        return warm.run(*arguments, env=self.env | env, namespace=self.host.name if self.host else "")

    def command(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run something where the engine is."""
        with self.host.entered() if self.host else nullcontext():
            return subprocess.run(
                command,
                env=self.env | env,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
                cwd=self.folder,
            )

    def start(self) -> int:
        """Start by the script, which must work; the process."""
        done = self.script("start")
        assert done.returncode == 0, (done, self.said())
        return self.pid

    @property
    def pid(self) -> int:
        """What the pid file says."""
        return int(self.pid_file.read_text())

    def said(self) -> str:
        """The log of the engine."""
        return self.log.read_text() if self.log.exists() else ""

    def fail_to_log_in(self, ip: str = BANNED, times: int = 20) -> None:
        """Lines as exim writes them; 20 climb all of the ladder."""
        with self.mail_log.open("a") as log:
            for _ in range(times):
                log.write(
                    f"{time.strftime('%Y-%m-%d %H:%M:%S')} login authenticator failed for (User) [{ip}]: "
                    "535 Incorrect authentication data (set_id=info@example.com)\n"
                )

    def holds(self, ip: str = BANNED, jail: str = "mc-exim-1d") -> bool:
        """Whether the kernel's list has it."""
        return self.command("ipset", "test", jail, ip).returncode == 0

    def kernel(self) -> list[str]:
        """All sets and rules of the namespace."""
        saved = [self.command(program, "-t", "filter").stdout for program in ("iptables-save", "ip6tables-save")]
        lines = [line for text in saved for line in text.splitlines() if line.startswith("-")]
        return lines + self.command("ipset", "save").stdout.splitlines()

    def end(self) -> None:
        """Whatever the test left running."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and self._is_mine(process):
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)

    def _is_mine(self, process: Path) -> bool:
        try:
            return f"MCBAN_STATE_DIR={self.state}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            return False


def gone(pid: int) -> bool:
    """Whether a process has ended, its zombie or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with mcban."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
