"""Between a client and a MariaDB server: passes everything on, until a test wants an answer lost."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_COMMIT = b"\x03COMMIT"


@dataclass
class Proxy:
    """Listens on the socket `path`."""

    path: Path
    server: Path
    lose: int = 0
    """How many answers to a COMMIT of a transaction that wrote to `table` are lost from now on: the server has given
    each, the client sees its connection end."""
    table: bytes = b"mcban_hit"
    lost: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def url(self, url: str) -> str:
        """The database of `url` by way of here."""
        return url.replace(str(self.server), str(self.path))

    def _serve(self, listener: socket.socket) -> None:
        while not self._stop.is_set():
            if select.select([listener], [], [], 0.1)[0]:
                client, _ = listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, suppress(OSError):
            server.connect(str(self.server))
            wrote = False
            while not self._stop.is_set():
                for ready in select.select([client, server], [], [], 0.1)[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)
                    if ready is server:
                        continue
                    wrote = wrote or (b"INSERT INTO " + self.table) in data
                    if data.endswith(_COMMIT):  # a client waits for the answer before it says more
                        if wrote and self.lost < self.lose:
                            self.lost += 1
                            server.recv(1 << 16)
                            return
                        wrote = False


@contextmanager
def proxy(path: Path, server: Path) -> Iterator[Proxy]:
    """A proxy that listens at `path` and speaks to the server at the socket `server`."""
    made = Proxy(path, server)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=made._serve, args=(listener,))
        thread.start()
        try:
            yield made
        finally:
            made._stop.set()
            thread.join()
