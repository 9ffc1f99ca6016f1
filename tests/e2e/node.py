"""A gateway as its administrator has it: settings, logs, an engine, the commands, the kernel's lists."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mcban.core.ladder import split_name
from mcban.store import schema
from mcban.store.database import Database, Transaction
from tests import warm
from tests.netns import Host
from tests.patience import PATIENCE, until

MCBAN = str(Path(sys.executable).with_name("mcban"))


def exim(ip: str, at: datetime) -> str:
    """A failed login as exim logs it."""
    return (
        f"{at:%Y-%m-%d %H:%M:%S} login authenticator failed for (User) [{ip}]: "
        "535 Incorrect authentication data (set_id=info@example.com)"
    )


def sshd(ip: str, at: datetime) -> str:
    """A failed password as sshd's line stands in auth.log."""
    return f"{at:%b %e %H:%M:%S} gate sshd[4242]: Failed password for root from {ip} port 40112 ssh2"


def web(ip: str, at: datetime) -> str:
    """A failed login at a web page, in an access log."""
    stamp = at.astimezone().strftime("%d/%b/%Y:%H:%M:%S %z")
    return f'{ip} - bob [{stamp}] "GET /admin HTTP/1.1" 401 381 "-" "curl/7.88.1"'


GROUPS = {
    "mc-ssh": (3, sshd, (22,), 80),
    "mc-exim": (5, exim, (25, 465, 587), 80),
    "mc-webauth": (5, web, (80, 443), 25),
}
"""Group to its hits for a day, its log line, its ports, and a port that it leaves open."""


def direct_logs(database: Database, folder: Path) -> None:
    """Let each group read its log in `folder`, GROUP.log."""

    def update(transaction: Transaction) -> None:
        for jail in transaction.jails.all():
            transaction.jails.update(jail.name, {"logpath": str(folder / f"{split_name(jail.name)[0]}.log")})

    database.write(update)


class Node:
    """One gateway on `host`, everything of it in `folder`."""

    def __init__(self, host: Host, folder: Path, firewall: str = "ipset", database_url: str = "") -> None:
        self.host, self.folder = host, folder
        self.apart = False
        """Whether its files are seen by this thread and what it starts only: see tests.disk."""
        folder.mkdir(exist_ok=True)
        (folder / "mcban.toml").write_text("", "utf-8")
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MCBAN_")},
            "PATH": f"{Path(MCBAN).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "MCBAN_CONFIG": str(folder / "mcban.toml"),
            "MCBAN_STATE_DIR": str(folder / "state"),
            "MCBAN_FIREWALL": firewall,
        }
        if database_url:
            self.env["MCBAN_DATABASE_URL"] = database_url
        self.engine: subprocess.Popen[str] | None = None
        # The tests look into SQL by themselves where they do so often: a command takes most of a second to start.
        self.database = Database(database_url or f"sqlite:///{folder / 'state/mcban.sqlite'}")

    def log(self, group: str) -> Path:
        """The group's log."""
        return self.folder / f"{group}.log"

    def prepare(self) -> None:
        """Make the schema and let each group read its log here."""
        state = Path(self.env["MCBAN_STATE_DIR"])
        state.mkdir(exist_ok=True)
        schema.upgrade(self.database)
        direct_logs(self.database, self.folder)

    def process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever it returns."""
        if self.apart:
            return self.host.process(MCBAN, *arguments, env=self.env)
        return warm.run(*arguments, env=self.env, namespace=self.host.name)

    def mcban(self, *arguments: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.process(*arguments)
        assert done.returncode == 0, f"mcban {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """A command's JSON document."""
        done = self.process(*arguments, "--json")
        assert done.returncode in {0, 1}, done.stderr
        return json.loads(done.stdout)

    @property
    def engine_log(self) -> str:
        """What the engine said."""
        return (self.folder / "engine.log").read_text("utf-8")

    def start(self) -> None:
        """Start the engine and wait until it is ready."""
        engine = self.launch()
        until(lambda: "INFO ready" in self.engine_log or engine.poll() is not None, "readiness")
        assert engine.poll() is None, self.engine_log

    def launch(self) -> subprocess.Popen[str]:
        """Start the engine."""
        with (self.folder / "engine.log").open("w", encoding="utf-8") as said:
            self.engine = self.host.popen(MCBAN, "run", env=self.env, stderr=said)
        return self.engine

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the engine by a signal; its exit status."""
        assert self.engine is not None
        self.engine.send_signal(number)
        status = self.engine.wait(PATIENCE)
        self.engine = None
        return status

    def end(self) -> None:
        """Whatever happened: no engine is left."""
        if self.engine is not None:
            with suppress(ProcessLookupError):
                self.engine.kill()
            self.engine.wait(PATIENCE)
        self.database.dispose()

    def fail(self, group: str, ip: str, times: int = 1, ago: timedelta = timedelta()) -> None:
        """Let `ip` fail at the group's service, now or some time ago."""
        line = GROUPS[group][1]
        with self.log(group).open("a", encoding="utf-8") as log:
            for _ in range(times):
                log.write(line(ip, datetime.now() - ago) + "\n")  # noqa: DTZ005  # daemons log local time

    def entries(self, jail: str) -> set[str]:
        """What the kernel's lists of a jail hold, both families."""
        if self.env["MCBAN_FIREWALL"] == "nftables":
            return self._elements(jail)
        found = set()
        for name in (jail, f"{jail}-v6"):
            lines = self.host.run("ipset", "list", name).splitlines()
            found |= {line.split()[0] for line in lines[lines.index("Members:") + 1 :] if line}
        return found

    def _elements(self, jail: str) -> set[str]:
        """The same of nftables: single addresses, and the ranges that its networks amount to."""
        found = set()
        for name in (f"{jail}{family}{kind}" for family in ("", "-v6") for kind in ("", "/ranges")):
            [*_, about] = json.loads(self.host.run("nft", "-j", "list", "set", "inet", "mcban", name))["nftables"]
            for element in about["set"].get("elem", []):
                value = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
                prefix = value.get("prefix") if isinstance(value, dict) else None
                found.add(f"{prefix['addr']}/{prefix['len']}" if prefix else str(value))
        return found

    def await_entry(self, ip: str, jail: str = "mc-exim-1d", what: str = "") -> None:
        """Wait until the kernel's lists of a jail hold `ip`."""
        until(lambda: ip in self.entries(jail), what or f"{ip} in {jail}")

    def in_step(self) -> bool:
        """Whether the kernel holds what SQL says."""
        return self.process("sync", "--check").returncode == 0

    def banned(self) -> set[tuple[str, str]]:
        """The bans that SQL has running, as (address, jail)."""
        rows = self.database.read(lambda t: t.addresses.in_force(int(time.time())))
        return {(row.ip, row.jail) for row in rows}

    def settled(self) -> None:
        """Wait until the engine has read every log to its end and committed it."""
        until(self.all_read, "reading to the end")

    def all_read(self) -> bool:
        """Whether the engine has read every log to its end and committed it."""
        read = {
            position.path: position.offset
            for position in self.database.read(lambda t: t.positions.all(socket.gethostname()))
        }
        ours = [self.log(group) for group in GROUPS if self.log(group).exists()]
        return all(read.get(str(path)) == path.stat().st_size for path in ours)


class WiredNode(Node):
    """A gateway with a client on its wire."""

    def __init__(self, wire: tuple[Host, Host], folder: Path, firewall: str = "ipset") -> None:
        server, self.client = wire
        super().__init__(server, folder, firewall)
