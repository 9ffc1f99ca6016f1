"""That an engine runs, and what it says of itself: a lock and a JSON file in the state directory.

The lock is the kernel's, so that it goes with the process however that ends; the file may be a few seconds old.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcban.errors import McbanError, NoPermissionError

log = logging.getLogger("mcban")

LOCK = "engine.lock"
STATE = "engine.json"
IDENTITY = "identity"
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as SO_PEERCRED tells them."""
ROOM = 2048
"""Bytes by which the next thing said may be longer where nothing can be added to the disk."""


@dataclass(frozen=True, slots=True)
class EngineView:
    """Whether an engine runs on this state directory, and the last that it said of itself."""

    running: bool
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int | None:
        """Its process, when it runs."""
        pid = self.said.get("pid")
        return pid if self.running and isinstance(pid, int) else None


def look(state_dir: Path) -> EngineView:
    """The engine of `state_dir`, running or not. Raises NoPermissionError when the folder may not be looked into."""
    try:
        said = json.loads((state_dir / STATE).read_text("utf-8"))
    except PermissionError:
        raise NoPermissionError(f"no permission to look into {state_dir}: run as root, or as its owner") from None
    except (OSError, ValueError):
        said = {}
    return EngineView(_locked(state_dir), said if isinstance(said, dict) else {})


def _locked(state_dir: Path) -> bool:
    try:
        descriptor = os.open(state_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise NoPermissionError(f"no permission to look into {state_dir}: run as root, or as its owner") from None
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _seize(descriptor: int) -> bool:
    """Take the lock. Who looks whether an engine runs holds it for an instant: that is no other engine."""
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def ask_to_reload(state_dir: Path) -> bool:
    """Make a running engine read jails and filters again; returns whether there was one."""
    pid = look(state_dir).pid
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
        return True
    return False


def _write_over(file: Path, text: bytes) -> None:
    """Put `text` in the place of what `file` holds, if it is not longer: that takes no room on a disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if len(text) <= size:
            os.pwrite(descriptor, text.ljust(size), 0)
    finally:
        os.close(descriptor)


def _listener(name: str) -> tuple[int, int] | None:
    """The process and the user who listen on the abstract socket `name`; None when nobody does, as engines do."""
    for _ in range(5):  # an engine that starts this instant has bound it, and listens in the next
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as asking:
            asking.connect(name)
            told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process, user, _ = _CREDENTIALS.unpack(told)
            return process, user
        time.sleep(0.02)
    return None


class Presence:
    """This process as the engine of a state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        self._lock: int | None = None
        self._claim: socket.socket | None = None

    def take(self) -> None:
        """Be the engine; raises McbanError when another is, NoPermissionError when the folder may not be written."""
        try:
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise NoPermissionError(f"{self._folder / LOCK} cannot be written: {error.strerror}") from None
        if not _seize(descriptor):
            os.close(descriptor)
            pid = look(self._folder).pid
            raise McbanError(
                f"an engine runs on {self._folder} already"
                + (f" (process {pid})" if pid else "")
                + ": see mcban status"
            ) from None
        self._lock = descriptor
        # What an engine that was killed said of itself: its process number may be a stranger's by now.
        with suppress(OSError):
            (self._folder / STATE).unlink(missing_ok=True)

    def owner(self) -> str:
        """What tells this machine with this state directory from others: one and the same after a restart, also after
        that of the machine."""
        file = self._folder / IDENTITY
        with suppress(OSError):
            if not file.exists():
                file.write_text(secrets.token_hex(16), "utf-8")
        known = [str(self._folder.absolute())]
        for place in (file, Path("/etc/machine-id")):  # the latter, for machines that were copied
            with suppress(OSError, UnicodeDecodeError):
                known.append(place.read_text("utf-8").strip())
        return hashlib.sha256("\n".join(known).encode()).hexdigest()

    def take_firewall(self, backend: str) -> None:
        """Be the one engine that enforces with `backend` in this network namespace; raises McbanError when another is:
        two of them, on different databases, would take out each other's bans without end."""
        # An abstract socket is seen within its network namespace only, and goes with the process.
        name = f"\0mcban/{backend}"
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            claim.bind(name)
            claim.listen()
            self._claim = claim
        except OSError:
            claim.close()
            holder = _listener(name)
            if holder and holder[1] in {0, os.geteuid()}:
                raise McbanError(
                    f"another engine enforces bans with {backend} on this machine already, from another state "
                    "directory: stop it, or give this one MCBAN_FIREWALL=memory"
                ) from None
            # Anybody can take such a name. Who is no engine keeps none from running.
            who = f"process {holder[0]} of user {holder[1]}" if holder else "some process"
            log.warning(
                "%s holds the name by which engines of one firewall know of each other, and is none: "
                "look who does that (ss -xlp | grep mcban/), and start no second engine",
                who,
            )

    def say(self, state: dict[str, Any]) -> None:
        """Put down what others may know; a full disk is no reason to stop."""
        self._answer()
        new = self._folder / (STATE + ".new")
        text = json.dumps(state)
        try:
            # With room to spare: what is to be said when the disk is full must fit where the last word stands.
            new.write_text(text.ljust(len(text) + ROOM), "utf-8")
            new.replace(self._folder / STATE)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            with suppress(OSError):
                _write_over(self._folder / STATE, text.encode())

    def _answer(self) -> None:
        """Those who asked who holds the firewall know it by now."""
        with suppress(OSError):
            while self._claim is not None:
                self._claim.accept()[0].close()

    def leave(self) -> None:
        """Be the engine no longer."""
        if self._lock is not None:
            with suppress(OSError):
                (self._folder / STATE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        if self._claim is not None:
            self._claim.close()
            self._claim = None
