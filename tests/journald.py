"""A real systemd-journald for tests, in a mount namespace of its own: nothing of it reaches the machine's journal.

    with running_journald() as journald:
        journald.send(MESSAGE="hello", SYSLOG_IDENTIFIER="sshd")

Its files are seen from outside, in `journald.folder`. A command started by `journald.inside(…)` sees them where a
machine has its journal, in /var/log/journal.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.missing import skip_or_fail
from tests.patience import PATIENCE, until

JOURNALD = Path("/lib/systemd/systemd-journald")

_CONF = """[Journal]
Storage=persistent
Compress=yes
RateLimitIntervalSec=0
RateLimitBurst=0
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToWall=no
"""

# $1 is the folder that holds all of it. What is mounted ends with journald, whose namespace it is.
_START = """set -e
mount --bind "$1/log" /var/log
mount --bind "$1/run" /run
mount --bind "$1/machine-id" /etc/machine-id
mount --bind "$1/boot-id" /proc/sys/kernel/random/boot_id
exec "$2"
"""

# Sends each of its arguments as syslog(3) does, as the process that its first argument names, and stays until told.
_SENDER = """import socket, sys
name, path, *texts = sys.argv[1:]
with open("/proc/self/comm", "w") as comm:
    comm.write(name)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    out.connect(path)
    for text in texts:
        out.send(text.encode("utf-8", "surrogateescape"))
sys.stdin.read()
"""


def why_not() -> str | None:
    """What this machine lacks for a journald of the test's own; None when it lacks nothing."""
    if os.geteuid() != 0:
        return "a journald in a namespace of its own needs root"
    gone = [tool for tool in ("unshare", "nsenter", "journalctl") if shutil.which(tool) is None]
    gone += [] if JOURNALD.exists() else [str(JOURNALD)]
    return f"not installed: {', '.join(gone)} (apt-get install systemd)" if gone else None


def require_journald() -> None:
    """Skip the test, saying why, where there can be no journald; under CI that is a failure."""
    lacking = why_not()
    if lacking:
        skip_or_fail(lacking)


class Journald:
    """One journald that runs."""

    def __init__(self, base: Path) -> None:
        self._base = base
        machine = uuid.uuid4().hex
        self.folder = base / "log/journal" / machine
        for folder in ("log/journal", "run/systemd/journal", "run/systemd/journald.conf.d", "run/log"):
            (base / folder).mkdir(parents=True)
        (base / "run/systemd/journald.conf.d/test.conf").write_text(_CONF)
        (base / "run/systemd/journal/flushed").touch()  # or it would wait for systemd to say that the disk is there
        (base / "machine-id").write_text(machine + "\n")
        (base / "boot-id").write_text(f"{uuid.uuid4()}\n")
        self._socket = str(base / "run/systemd/journal/socket")
        self._syslog = str(base / "run/systemd/journal/dev-log")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        """The process that has the namespace."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the files that there may be."""
        Path(self._socket).unlink(missing_ok=True)
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh"]
        self._process = subprocess.Popen(
            [*command, str(self._base), str(JOURNALD)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: Path(self._socket).exists() and self.files(), "journald's start")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def reboot(self) -> None:
        """Start it again as if the machine had been started again."""
        self.stop()
        (self._base / "boot-id").write_text(f"{uuid.uuid4()}\n")
        self.start()

    def files(self) -> list[Path]:
        """The journal's files, the one that is written last."""
        return sorted(self.folder.glob("system*.journal"), key=lambda path: (path.name == "system.journal", path.name))

    def send(self, **fields: str | bytes | Sequence[str | bytes]) -> None:
        """One entry, by journald's own protocol; several values of a field in a list."""
        datagram = b""
        for name, values in fields.items():
            for value in [values] if isinstance(values, (str, bytes)) else values:
                raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
                datagram += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(self._socket)
            out.send(datagram)

    @contextmanager
    def daemon(self, name: str, *texts: str) -> Iterator[None]:
        """A process of that name that sends `texts` as daemons do, by syslog, and stays while it is needed: journald
        asks the system who it was that sent something."""
        command = [sys.executable, "-c", _SENDER, name, self._syslog, *texts]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            try:
                yield
            finally:
                assert process.stdin is not None
                process.stdin.close()

    def flush(self, *match: str, entries: int) -> None:
        """Wait until the journal has so many entries."""
        until(lambda: self.count(*match) >= entries, f"writing {entries} entries")

    def count(self, *match: str) -> int:
        """How many entries there are, by journalctl."""
        command = ["journalctl", "--quiet", "--no-pager", f"--directory={self.folder}", "--output=cat"]
        shown = subprocess.run(
            [*command, "--output-fields=_PID", *match], check=True, capture_output=True, text=True
        ).stdout
        return len(shown.splitlines())

    def rotate(self) -> None:
        """Let it begin a new file."""
        before = len(self.files())
        os.kill(self.pid, signal.SIGUSR2)
        until(lambda: len(self.files()) > before, "rotation")

    def vacuum(self) -> None:
        """Delete every file but the one that is written, by journalctl."""
        command = ["journalctl", "--quiet", f"--directory={self.folder}", "--vacuum-files=1"]
        subprocess.run(command, check=True, capture_output=True)
        until(lambda: len(self.files()) == 1, "vacuum")

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command` where this journal is the machine's."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *command]


@contextmanager
def running_journald() -> Iterator[Journald]:
    """A journald with an empty journal, taken away at the end."""
    require_journald()
    base = Path(tempfile.mkdtemp(prefix="mcban-journal-"))  # a socket's path has at most 107 characters
    base.chmod(0o755)
    journald = None
    try:
        journald = Journald(base)
        yield journald
    finally:
        if journald is not None:
            journald.stop()
        shutil.rmtree(base)
