"""Commands of mcban without the time that Python needs to start: one process has imported everything, and forks for
each command.

    done = warm.run("ban", "-j", "mc-exim", "-i", "203.0.113.7", env=env, namespace=host.name)

What runs is a process of its own with the environment, the namespace and the three streams that it is given, and it
ends as Python ends. It differs from one that is started by a shell only in that its modules are loaded: tests of the
start itself, and of what a command imports, start the program.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENCE = 120.0
MODULES = (
    *(f"mcban.cli.{name}" for name in ("address", "blacklist", "db", "engine", "filter", "general", "jail", "replay")),
    *(f"mcban.cli.{name}" for name in ("status", "sync", "transfer", "whitelist")),
    "mcban.daemon.engine",
    "mcban.wiring",
    "mcban.store.schema",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.mysql.pymysql",
    "mcban.firewall.ipset",
    "mcban.firewall.nftables",
    "mcban.filters",
)
"""What commands import, by themselves or late."""
_LONGEST = 1 << 18


def run(
    *arguments: str, env: Mapping[str, str], namespace: str = "", text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `mcban` with `arguments`, on the named network namespace if there is one, whatever it returns."""
    return _parent_of_all().run(arguments, env, namespace, text)


class _Parent:
    """The process that forks, seen from outside. One command at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        with theirs:
            theirs.setblocking(True)
            env = {key: value for key, value in os.environ.items() if not key.startswith(("MCBAN_", "SSH_"))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parent.parent,
                env=env,
            )
        atexit.register(self._socket.close)  # at which it ends

    def run(
        self, arguments: tuple[str, ...], env: Mapping[str, str], namespace: str, text: str
    ) -> subprocess.CompletedProcess[str]:
        with (
            self._turn,
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            stdin.write(text.encode())
            stdin.seek(0)
            asked = {"arguments": arguments, "env": dict(env), "namespace": namespace, "cwd": str(Path.cwd())}
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._socket, [json.dumps(asked).encode()], streams)
            try:
                answer = self._socket.recv(16)
            except TimeoutError:
                self._process.kill()
                raise
            assert answer, "the process that forks has ended"
            said = []
            for stream in (stdout, stderr):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(["mcban", *arguments], int(answer), *said)


_parent: _Parent | None = None


def _parent_of_all() -> _Parent:
    global _parent  # noqa: PLW0603  # one for each process that runs tests
    if _parent is None:
        _parent = _Parent()
    return _parent


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns it in the child, and None once nobody will ask any more."""
    while True:
        message, streams, _, _ = socket.recv_fds(requests, _LONGEST, 3)
        if not message:
            return None
        child = os.fork()
        if child == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if child == 0:
            requests.close()
            asked: dict[str, Any] = json.loads(message)
            return asked
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(asked: dict[str, Any]) -> None:
    """Be as a process that was just started with what was asked for."""
    if asked["namespace"]:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", asked["namespace"]).open("rb") as there:
            if libc.setns(there.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    os.chdir(asked["cwd"])
    sys.argv = [str(Path(sys.executable).with_name("mcban")), *asked["arguments"]]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        fresh = open(stream.fileno(), mode, encoding="utf-8", errors=stream.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)


def _main() -> None:
    import importlib

    for module in MODULES:
        importlib.import_module(module)
    from mcban.cli import waiting
    from mcban.cli.main import main

    waiting.AFTER = PATIENCE  # a loaded machine may let one wait: what is said then has tests of its own
    gc.freeze()  # nobody looks through the modules for garbage at the end of each command
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(asked)
        main()


if __name__ == "__main__":
    _main()
