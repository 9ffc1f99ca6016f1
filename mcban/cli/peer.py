"""From where somebody is logged in who types a command: whoever bans that address locks himself out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mcban.core.address import parse_address

VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT")
"""sshd sets them for a session; both begin with the address of the other side."""
LONGEST_CHAIN = 64
"""Parents that are looked at: far more than a shell in a shell in a shell has."""


def ssh_peers(environment: Mapping[str, str]) -> list[str]:
    """The addresses from which this command's user came by ssh: by its environment, or that of the processes that
    led to it, since sudo and su drop what sshd had set."""
    own = [environment.get(name, "") for name in VARIABLES]
    found = [_address(value) for value in (*own, *_of_parents())]
    return list(dict.fromkeys(peer for peer in found if peer))


def _address(value: str) -> str | None:
    """The address at the beginning of `203.0.113.7 40112 192.0.2.1 22`; None for what is none (`UNKNOWN`)."""
    try:
        return parse_address((value.split() or [""])[0].partition("%")[0])
    except ValueError:
        return None


def _of_parents() -> Iterator[str]:
    pid = os.getppid()
    for _ in range(LONGEST_CHAIN):
        if pid <= 1:
            return
        # A process that has ended, or is not ours to look into, tells nothing.
        for entry in _read(pid, "environ").split(b"\0"):
            name, _, value = entry.decode("utf-8", "replace").partition("=")
            if name in VARIABLES:
                yield value
        pid = _parent(pid)


def _parent(pid: int) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"PPid:"):
            return int(line.split()[1])
    return 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""
