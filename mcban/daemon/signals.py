"""Signals as flags that the loop looks at, and the readiness that systemd waits for."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from types import FrameType

KEEP = signal.SIGUSR1
"""Stop, but leave lists and rules in the kernel: for a restart without a gap."""


class Signals:
    """Flags, which signals set once it is to `listen` for them. `fileno` becomes readable when one arrived, so that a
    waiting loop wakes up."""

    def __init__(self) -> None:
        self.stop = False
        self.keep = False
        self.reload = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def listen(self) -> None:
        """From now on the signals of this process mean what they mean to an engine."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, KEEP):
            signal.signal(number, self._arrived)

    def fileno(self) -> int:
        """A descriptor to wait on."""
        return self._reader.fileno()

    def drain(self) -> None:
        """Make `fileno` quiet again."""
        with suppress(BlockingIOError):
            while self._reader.recv(64):
                pass

    def _arrived(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
            return
        self.stop = True
        self.keep = number == KEEP


def tell_systemd(message: str) -> None:
    """Send a notification such as `READY=1` to the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, suppress(OSError):
        notify.connect("\0" + address[1:] if address[0] == "@" else address)
        notify.sendall(message.encode())
