"""journalctl as a child process: what it writes, what it complains of, how it ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from mcban.errors import printable

PIPE_SIZE = 1 << 20  # bytes; it waits when so much was not read yet
_PATIENCE = 2.0  # seconds for it to end, before it is ended
_MOST_SAID = 4096


class Journalctl:
    """One running journalctl. Its two pipes are registered with `poll` as long as they are open.

    Raises OSError when it cannot be started. It ends by itself when whoever reads is gone, since its pipe is closed
    then; it does not hear the terminal's Ctrl-C, which is for the engine.
    """

    def __init__(self, arguments: Sequence[str], poll: select.epoll) -> None:
        self._poll = poll
        self._said = ""
        self._child = subprocess.Popen(
            ["journalctl", "--quiet", "--no-pager", "--all", "--output=export", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_TARGET": "console"},
        )
        self._pipes = [pipe.fileno() for pipe in (self._child.stdout, self._child.stderr) if pipe]
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            poll.register(pipe, select.EPOLLIN)
        with suppress(OSError):  # beyond what this user may have: the usual 64 KiB do, too
            fcntl.fcntl(self._pipes[0], fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def read(self, limit: int) -> bytes | None:
        """What it wrote, at most `limit` bytes; None when there is nothing yet, b"" when it has ended."""
        try:
            return os.read(self._pipes[0], limit)
        except BlockingIOError:
            return None

    def complaints(self) -> list[str]:
        """The lines that it wrote to standard error since the last call, fit to be shown."""
        with suppress(BlockingIOError):
            while len(self._pipes) > 1:
                data = os.read(self._pipes[1], _MOST_SAID)
                if not data:
                    self._poll.unregister(self._pipes.pop())
                    break
                self._said = (self._said + data.decode("utf-8", "replace"))[-_MOST_SAID:]
        *lines, self._said = self._said.split("\n")
        return [printable(line.strip(), 300) for line in lines if line.strip()]

    def wait(self) -> str:
        """Wait until it has ended, which it does a moment after `read` gave b"". How it ended in words; "" for well."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE)
        status = self._child.poll()
        self.close()
        if status is None:
            return "journalctl closed its output and did not end"
        if status < 0:
            return f"journalctl was ended by {signal.Signals(-status).name}"
        return f"journalctl failed with status {status}" if status else ""

    def close(self) -> None:
        """End it if it still runs, and be rid of it."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for pipe in self._pipes:
            self._poll.unregister(pipe)
        self._pipes = []
        for stream in (self._child.stdout, self._child.stderr):
            if stream:
                stream.close()
