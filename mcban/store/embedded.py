"""The way to an embedded database: SQLite's file, in WAL mode, opened anew when somebody put another in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from mcban.errors import ConfigError, DatabaseError, DataError, NoPermissionError, UnavailableError

_MAGIC = b"SQLite format 3\0"
LOCK_WAIT = 30
"""Seconds that a SQLite writer waits for another process's transaction."""


class Embedded:
    """One file of SQLite's."""

    answer_wait = LOCK_WAIT

    def __init__(self, url: URL) -> None:
        if url.database in {None, "", ":memory:"}:
            raise ConfigError(
                "database.url: a database in memory is lost at the end of each command: write sqlite:////PATH"
            )
        self.url = url
        self._file = str(url.database)
        self._seen = False
        self._replacement: tuple[int, int] | None = None
        """The file of which was said that it took another's place."""
        self.opened: tuple[int, int] | None = None
        """The file that was opened last."""
        self.engine = create_engine(url, connect_args={"timeout": LOCK_WAIT})
        self._listen(self.engine)

    def _listen(self, engine: Engine) -> None:
        @event.listens_for(engine, "do_connect")
        def _exists(*_: Any) -> None:
            # SQLite makes a file where there is none: at first that is what one wants, never later.
            if self._seen and not os.path.exists(self._file):  # noqa: PTH110  # at each connection
                raise self._gone()

        @event.listens_for(engine, "connect")
        def _session(connection: Any, record: Any) -> None:
            # We begin transactions ourselves, below: the driver would do it only before the first change.
            connection.isolation_level = None
            connection.text_factory = _text
            # The log of changes is folded into the file when it has 16 MB, not 4: pages that change again and again are
            # written once, and what a flood of bans leaves is cut back.
            larger_log = ("wal_autocheckpoint=4000", "journal_size_limit=16777216")
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", *larger_log):
                connection.execute(f"PRAGMA {pragma}")
            record.info["file"] = self.opened = self._identity()
            self._seen = True

        @event.listens_for(engine, "checkout")
        def _still_there(_: Any, record: Any, __: Any) -> None:
            # A file that was deleted or replaced goes on taking what is written, and nobody else ever sees it.
            found = self._identity()
            if found == record.info["file"]:
                return
            if found is None:
                raise self._gone()
            if found != self._replacement:
                self._replacement = found
                raise DatabaseError(f"{self._file} was replaced by another file while in use: it is opened anew")
            raise DisconnectionError("opened before that")  # the pool makes another

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A writer takes the lock at once: what it reads before it writes stays true until it commits.
            options = connection.get_execution_options()
            if not options.get("mcban_glance"):
                connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("mcban_write") else "BEGIN")

    def is_current(self) -> bool:
        """Whether the file that was opened last is the one that is there."""
        return self._identity() == self.opened

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._file)  # noqa: PTH116  # before each transaction: in a millionth of a second
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _gone(self) -> DatabaseError:
        return DatabaseError(
            f"{self._file} is gone, deleted or moved while in use: put it back, or run `mcban db upgrade` for a new one"
        )


def is_there(file: Path, *, writable: bool) -> bool:
    """Whether there is a database in `file`, or an empty file. Raises NoPermissionError or UnavailableError when it may
    not be read, or, if that is wanted, not be written; DataError when it is something else."""
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
    except FileNotFoundError:
        return False
    except PermissionError:
        may = False
    except OSError as error:
        raise DataError(f"{file} is no SQLite database: {error.strerror}") from None
    else:
        if begins not in {b"", _MAGIC}:
            raise DataError(f"{file} is no SQLite database: move it away, or name another one by database.url")
        may = not writable or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK))
    if not may and writable and _is_read_only(file):
        raise UnavailableError(f"{file} is on a read-only file system: the kernel's log may say why it became so")
    if not may:
        what = f"write {file} and its folder" if writable else f"read {file}"
        raise NoPermissionError(f"no permission to {what}: run as root, or as its owner")
    return True


def _is_read_only(file: Path) -> bool:
    try:
        return bool(os.statvfs(file).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _text(raw: bytes) -> str | bytes:
    """SQLite takes for text what is no UTF-8, if somebody casts it: that reads as the bytes that it is."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
