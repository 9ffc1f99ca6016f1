"""fail2ban's own database: a file of SQLite, only read, also while fail2ban runs.

`bips` has the last ban of each address in each jail, and how many there were; before its version 4 there is only
`bans`, and before version 3 no length of a ban.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcban.errors import DataError, NoPermissionError, UnavailableError, printable

MAGIC = b"SQLite format 3\0"
UNKNOWN = -2
"""A length of a ban that fail2ban does not know, either: its jail's own is meant."""
_LOCK_WAIT = 20.0


@dataclass(frozen=True, slots=True)
class Fail2banBan:
    """The last ban of an address in a jail. `at` in seconds since the epoch; `seconds` -1 for ever, or UNKNOWN."""

    ip: str
    jail: str
    at: int
    seconds: int
    count: int


def is_sqlite(path: str) -> bool:
    """Whether the file at `path` is a database of SQLite; False where it cannot be read. A pipe is none, and is not
    looked into: what was read from it nobody could read again."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read_bans(path: str) -> list[Fail2banBan]:
    """The last ban of every address in every jail. Raises DataError for a file that is damaged, or is something else;
    NoPermissionError, UnavailableError when it stays locked."""
    shown = printable(path)
    try:
        file = Path(path).absolute().as_uri()
        with sqlite3.connect(f"{file}?mode=ro", uri=True, timeout=_LOCK_WAIT) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            try:
                return _read(connection, shown)
            finally:
                connection.rollback()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise UnavailableError(f"{shown} is locked by another program: try again") from None
        if "unable to open" in str(error):
            raise NoPermissionError(f"{shown} cannot be opened by SQLite: run as root, or import a copy") from None
        raise DataError(f"{shown} cannot be read: {printable(str(error))}") from None
    except sqlite3.Error as error:
        raise DataError(f"{shown} is damaged: {printable(str(error))}; fail2ban mends it at its next start") from None


def _read(connection: sqlite3.Connection, shown: str) -> list[Fail2banBan]:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("BEGIN")
    tables = {
        str(name).lower() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if "fail2bandb" not in tables or not {"bips", "bans"} & tables:
        raise DataError(f"{shown} is a database, but not fail2ban's: it has no tables fail2banDb and bans")
    table = "bips" if "bips" in tables else "bans"
    columns = {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}
    length = "bantime" if "bantime" in columns else str(UNKNOWN)
    count = "bancount" if "bancount" in columns else "1"
    query = f"SELECT ip, jail, timeofban, {length}, {count} FROM {table} ORDER BY timeofban"  # noqa: S608  # ours
    last: dict[tuple[Any, Any], Fail2banBan] = {}
    for ip, jail, at, seconds, times in connection.execute(query):
        if isinstance(ip, str) and isinstance(jail, str) and isinstance(at, int) and isinstance(seconds, int):
            before = last[ip, jail].count if count == "1" and (ip, jail) in last else 0
            number = before + 1 if count == "1" else times if isinstance(times, int) else 1
            last[ip, jail] = Fail2banBan(ip, jail, at, seconds, max(1, number))
    return list(last.values())
