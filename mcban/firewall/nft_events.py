"""What others do to our table of nf_tables, as the kernel tells whoever listens.

Any change of any rule in the namespace raises the kernel's generation. Where it was raised by others who are busy with
tables of their own, ours need not be read again: with a hundred thousand entries that takes a second or two each time.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from contextlib import suppress

from mcban.firewall import nft_wire as wire
from mcban.firewall.netlink import HEADER, NETLINK_NETFILTER, NFT_GEN_ID, NFT_SUBSYSTEM, fields

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_GROUP = 7
_NEWGEN = NFT_SUBSYSTEM | 15
_TABLE_NAME = 1
"""The table's name is the first attribute of every message but that of a new generation."""
_LATE = 0.1
"""Seconds by which the word of a generation may come after it."""
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 22
"""Bytes: what others do between two looks, some ten thousand changes. What is more is missed, and known to be."""


class Events:
    """Listens from `listen` on, until it has missed something or is closed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._told: int | None = None

    def listen(self) -> None:
        """Begin anew: what was told before does not count. Where nobody may listen, nothing is known."""
        self.close()
        with suppress(OSError):
            line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            try:
                line.bind((0, 0))
                line.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
                line.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
                line.setblocking(False)
            except OSError:
                line.close()
                raise
            self._socket = line

    def close(self) -> None:
        """Listen no longer."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._told = None, None

    def untouched(self, generation: int, own: int) -> bool:
        """Whether nobody has touched our table since `listen`, up to `generation`, but the socket with the port `own`.
        What is not known for sure counts as touched; then nothing is known until it listens anew."""
        end = time.monotonic() + _LATE
        while self._socket is not None and self._take(own):
            if self._told is not None and _reached(self._told, generation):
                return True
            if time.monotonic() > end:
                break
            ready = select.poll()
            ready.register(self._socket, select.POLLIN)
            ready.poll(1000 * _LATE)
        self.close()
        return False

    def _take(self, own: int) -> bool:
        """Take what was told; False when our table was touched, or something was missed."""
        assert self._socket is not None  # noqa: S101  # whoever calls has looked
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError as error:
                return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK)
            start = 0
            while start + HEADER.size <= len(data):
                length, kind, _, _, port = HEADER.unpack_from(data, start)
                said = fields(data[start + 20 : start + length])
                if kind == _NEWGEN:
                    self._told = int.from_bytes(said.get(NFT_GEN_ID, b""), "big")
                elif port != own and said.get(_TABLE_NAME) == wire.text(wire.TABLE):
                    return False
                start += max(16, (length + 3) & ~3)


def _reached(told: int, generation: int) -> bool:
    """Whether one generation is another, or comes after it; the numbers have 32 bits and begin anew."""
    return (told - generation) & 0xFFFFFFFF < 1 << 31
