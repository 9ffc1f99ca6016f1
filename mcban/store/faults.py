"""What a driver's error means, by its number and never by its text: what to do about it, and how it is said."""

from __future__ import annotations

import os
import sqlite3
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mcban.errors import ConfigError, DatabaseError, DataError, McbanError, NoPermissionError, printable


class Kind(Enum):
    """What went wrong."""

    AGAIN = auto()
    """A deadlock, a lock that was waited for in vain, a cluster's other node was first: the server undid the
    transaction and wants it again."""
    LOST = auto()
    """The connection ended, or the server is going or coming."""
    SILENT = auto()
    """The server is there, and has not answered for as long as it may take."""
    CROWDED = auto()
    """It has as many connections as it takes, or as it takes of this user."""
    UNREADY = auto()
    """A Galera node that has no cluster."""
    READ_ONLY = auto()
    """A replica, or a server that somebody set read-only."""
    UNREACHED = auto()
    """Nobody answers."""
    REFUSED = auto()
    NO_TABLE = auto()
    NO_TRIGGERS = auto()
    DENIED = auto()
    NO_FILE = auto()
    FULL = auto()
    DISK = auto()
    NO_TLS = auto()
    OTHER = auto()


PASSING = {Kind.LOST, Kind.SILENT, Kind.CROWDED, Kind.UNREADY, Kind.READ_ONLY}
"""What another try, or another node of the cluster, may find over."""

_MYSQL = {
    1020: Kind.AGAIN,  # the row changed since the transaction's snapshot: newer releases, clusters
    1205: Kind.AGAIN,
    1213: Kind.AGAIN,
    1412: Kind.AGAIN,  # somebody changed the table since the transaction's snapshot: an upgrade
    1040: Kind.CROWDED,
    1203: Kind.CROWDED,  # of this user, by max_user_connections
    1226: Kind.CROWDED,  # of this user, by his account's limits
    1053: Kind.LOST,  # shutting down
    1927: Kind.LOST,  # killed
    2006: Kind.LOST,
    2013: Kind.LOST,
    2055: Kind.LOST,
    1047: Kind.UNREADY,
    1180: Kind.UNREADY,  # its COMMIT found no cluster
    1036: Kind.READ_ONLY,  # by innodb_read_only
    1290: Kind.READ_ONLY,
    1792: Kind.READ_ONLY,  # by transaction_read_only
    1836: Kind.READ_ONLY,  # by innodb_force_recovery
    2002: Kind.UNREACHED,
    2003: Kind.UNREACHED,
    2026: Kind.NO_TLS,
    3159: Kind.NO_TLS,  # the server takes no connection without TLS
    1044: Kind.REFUSED,
    1045: Kind.REFUSED,
    1142: Kind.REFUSED,
    1227: Kind.REFUSED,
    1370: Kind.REFUSED,
    1698: Kind.REFUSED,
    1054: Kind.NO_TABLE,
    1146: Kind.NO_TABLE,
    1419: Kind.NO_TRIGGERS,
    1021: Kind.FULL,
    1114: Kind.FULL,
}
# SQLSTATE, whole or its class.
_POSTGRESQL = {
    "40001": Kind.AGAIN,
    "40P01": Kind.AGAIN,
    "55P03": Kind.AGAIN,  # waited for a lock for longer than lock_timeout
    "08": Kind.LOST,
    "57P": Kind.LOST,  # shutting down, crashed, starting
    "53300": Kind.CROWDED,
    "25006": Kind.READ_ONLY,
    "28": Kind.REFUSED,
    "42501": Kind.REFUSED,
    "42P01": Kind.NO_TABLE,
    "42703": Kind.NO_TABLE,
    "53100": Kind.FULL,
    "58030": Kind.DISK,
}
# By their names: the driver is loaded only where it is used.
_NAMED = {"ConnectionTimeout": Kind.UNREACHED, "SilentServerError": Kind.SILENT}
_SQLITE = {
    sqlite3.SQLITE_BUSY: Kind.AGAIN,
    sqlite3.SQLITE_LOCKED: Kind.AGAIN,
    sqlite3.SQLITE_READONLY: Kind.DENIED,
    sqlite3.SQLITE_PERM: Kind.DENIED,
    sqlite3.SQLITE_AUTH: Kind.DENIED,
    sqlite3.SQLITE_CANTOPEN: Kind.NO_FILE,
    sqlite3.SQLITE_FULL: Kind.FULL,
    sqlite3.SQLITE_IOERR: Kind.DISK,
}


def kind_of(error: BaseException) -> Kind:
    """What `error` means, a driver's or SQLAlchemy's wrapping of one."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return _sqlite_kind(original)
    if any(base.__module__.partition(".")[0] == "psycopg" for base in type(original).__mro__):  # one of ours derives
        return _postgresql_kind(original)
    arguments = getattr(original, "args", ())
    number = arguments[0] if arguments and isinstance(arguments[0], int) else None
    if number == 2003 and "CERTIFICATE_VERIFY_FAILED" in str(original):
        return Kind.NO_TLS
    kind = Kind.OTHER if number is None else _MYSQL.get(number, Kind.OTHER)
    waited = original is not None and isinstance(original.__context__, TimeoutError)
    return Kind.SILENT if kind is Kind.LOST and waited else kind


def _sqlite_kind(error: sqlite3.Error) -> Kind:
    full = getattr(error, "sqlite_errorcode", None)
    code = None if full is None else full & 0xFF  # the extended codes refine the low byte
    if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
        return Kind.NO_TABLE
    return Kind.OTHER if code is None else _SQLITE.get(code, Kind.OTHER)


def _postgresql_kind(error: BaseException | None) -> Kind:
    state = getattr(error, "sqlstate", None)
    if state is None:
        return _unconnected_kind(error)
    return next((_POSTGRESQL[key] for key in (state, state[:3], state[:2]) if key in _POSTGRESQL), Kind.OTHER)


def _unconnected_kind(error: BaseException | None) -> Kind:
    """libpq gives no number for a connection that was not made: how far it came tells what it was."""
    connection = getattr(error, "pgconn", None)
    if connection is None:
        return _NAMED.get(type(error).__name__, Kind.OTHER)
    said = bytes(connection.error_message)
    if b"SSL" in said or b"certificate" in said:
        return Kind.NO_TLS
    if connection.used_password or connection.needs_password:
        return Kind.REFUSED
    return Kind.LOST if connection.server_version else Kind.UNREACHED


def translated(error: SQLAlchemyError, shown: str, file: str | None, wait: int) -> McbanError:
    """The error as ours, `shown` being the database's URL without its password, `file` that of an embedded one, `wait`
    the seconds that it may take for an answer."""
    kind, said = kind_of(error), _said(error)
    if kind is Kind.DISK and file is not None and _is_full(file):
        kind = Kind.FULL  # of a full disk SQLite says so only where it writes the data themselves
    if kind is Kind.DENIED:
        return NoPermissionError(
            f"no permission to write {shown}: run as root, or as the file's owner; or is its file system read-only?"
        )
    if kind is Kind.NO_TABLE:
        return ConfigError(f"{shown} lacks a table or column ({said}): run `mcban db upgrade`")
    if kind is Kind.NO_TRIGGERS:
        return NoPermissionError(
            f"{shown} keeps a binary log and lets only an administrator make triggers: run "
            "`mcban db upgrade` once with an administrator's URL, or SET GLOBAL log_bin_trust_function_creators=1"
        )
    return DatabaseError(_SENTENCES.get(kind, "{} cannot be used: {}").format(shown, said, wait))


# Others go on behind them: "; meanwhile …".
_SENTENCES = {
    Kind.NO_FILE: "{} cannot be opened: see whether its folder is there, and may be written to",
    Kind.UNREACHED: "{} cannot be used: nobody answers there ({}): see whether the server runs, and who blocks the way",
    Kind.LOST: "{} cannot be used: it ended the connection, or lets nobody in ({})",
    Kind.SILENT: "{0} cannot be used: it answered nothing for {2} s ({1})",
    Kind.CROWDED: "{} cannot be used: it has no connection left for us ({}): see who has them all, or allow more",
    Kind.REFUSED: "{} refuses us ({}): check user, password and grants",
    Kind.AGAIN: "{} cannot be used: another transaction kept it locked ({}), a backup's or one that is never committed",
    Kind.UNREADY: "{} cannot be used: this node is cut off from its Galera cluster ({})",
    Kind.READ_ONLY: "{} cannot be used: it takes no writes, being a replica or set read-only ({})",
    Kind.FULL: "{} cannot be used: its disk is full ({}): make room there",
    Kind.DISK: "{} cannot be used: its disk fails to read or write ({}): look at the kernel's log",
    Kind.NO_TLS: "{} cannot be used: no TLS as database.tls wants it ({})",
}


def _is_full(file: str) -> bool:
    try:
        return os.statvfs(file).f_bavail == 0
    except OSError:
        return False


def _said(error: SQLAlchemyError) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    diagnosis = getattr(original, "diag", None)  # psycopg's: without the statement and an arrow below it
    said = getattr(diagnosis, "message_primary", None) or str(original)
    if type(original).__module__.startswith("psycopg"):
        said = next(iter(said.splitlines()), "")  # what libpq adds below is advice, ours is in the sentence
    arguments: tuple[object, ...] = getattr(original, "args", ())
    if len(arguments) > 1 and isinstance(arguments[0], int):  # PyMySQL's: number and text
        said = f"error {arguments[0]}: {arguments[1]}"
    return printable(" ".join(said.split()), 200)


def no_text(error: UnicodeEncodeError) -> DataError:
    """Bytes that are no UTF-8 reach us as lone surrogates, which no database takes."""
    shown = printable(error.object[max(0, error.start - 30) : error.end + 30])
    return DataError(f"{shown} is no valid UTF-8: the database cannot hold it")
