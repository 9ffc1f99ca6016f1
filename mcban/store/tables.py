"""The schema; `migrations/` holds the way to it. Plain tables: importing the ORM would take a tenth of a second.

`fail2ban_jail`, `fail2ban_ips` and `fail2ban_conf` keep the names and columns of the original, so that existing SQL
goes on working; what we added has a default. Tables of our own begin with `mcban_`.
Times are UTC: `DATETIME` where people read them, seconds since the epoch where they are compared by the thousand.

On MariaDB the migrations make tables that compare names in full (`utf8mb4_nopad_bin`): a jail `A` is not a jail `a`,
nor is `a `, and any login name can be stored. It is not said here: SQLAlchemy would load that dialect for it, on SQLite
too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TIMESTAMP, TypeDecorator, TypeEngine

from mcban.core.ladder import DEFAULT_MAX_COUNT
from mcban.core.model import FOREVER, LONGEST_CURSOR, LONGEST_PATH

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is exactly INTEGER."""


class Blob(str):
    """Bytes that stand where text belongs, as SQL writes them: neither an address nor the name of a jail. Written
    back, or asked for, they are those bytes again."""

    __slots__ = ()

    @classmethod
    def of(cls, raw: bytes) -> Blob:
        """`raw` as text."""
        return cls(f"x'{raw.hex()}'")

    @property
    def raw(self) -> bytes:
        """What stands in SQL."""
        return bytes.fromhex(self[2:-1])


def read_text(value: Any) -> Any:
    """What a column of text holds: SQLite takes bytes for text."""
    return Blob.of(value) if isinstance(value, bytes) else value


sqlite3.register_adapter(Blob, lambda blob: blob.raw)


class _LenientText(String):
    """SQLite's text, where bytes from somebody's plain SQL read as a `Blob`."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """SQL to Python."""
        return read_text


class _TextWithoutNul(TypeDecorator[str]):
    """PostgreSQL's text, which takes every character but NUL: in its place stands the sign for it. Compared by the
    bytes, so that no new release of the system's library makes an index wrong."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length, collation="C")

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Python to SQL."""
        return value.replace("\0", "\N{SYMBOL FOR NULL}") if value and "\0" in value else value


def _name(length: int) -> String:
    return String(length).with_variant(_TextWithoutNul(length), "postgresql")


def _words(length: int) -> String:
    return _name(length).with_variant(_LenientText(length), "sqlite")


class _LenientDateTime(sqlite.DATETIME):
    """SQLite keeps any text in a column of times: one that is no time, from somebody's plain SQL, reads as none,
    lest a single row stop everything."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """ISO 8601 to naive UTC."""

        def process(value: Any) -> datetime | None:
            try:
                at = datetime.fromisoformat(value)
                return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
            except (TypeError, ValueError, OverflowError):
                return None

        return process


class _LenientTimestamp(_LenientDateTime):
    """The same under the original's name."""

    __visit_name__ = "TIMESTAMP"


def to_datetime(at: int) -> datetime:
    """Seconds since the epoch to aware datetime, as SQL can hold it."""
    return datetime.fromtimestamp(min(max(at, 0), FOREVER), UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime in Python, whole seconds without zone in SQL. It is written from seconds since the epoch,
    too: for a thousand rows the way over a datetime of each is felt."""

    impl = DateTime
    lenient: type[_LenientDateTime] = _LenientDateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The lenient ones where they are needed."""
        if dialect.name == "sqlite":
            return self.lenient()
        if dialect.name == "postgresql":
            # With its zone, so that a time typed in any session's zone is the right one; ours is UTC.
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(self.impl_instance)

    def process_bind_param(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        """Aware to naive UTC; a naive value is a mistake of ours."""
        if value is None:
            return None
        if isinstance(value, int):
            value = to_datetime(value)
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        at = value.astimezone(UTC).replace(microsecond=0)
        return at if dialect.name == "postgresql" else at.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Naive UTC to aware; no time for what MariaDB keeps and no calendar has, such as 0000-00-00."""
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class UtcTimestamp(UtcDateTime):
    """The same in the original's type: MariaDB turns it to and from the session's zone, which for us is UTC."""

    impl = TIMESTAMP
    lenient = _LenientTimestamp
    cache_ok = True

    def process_bind_param(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        """MariaDB's TIMESTAMP begins one second after 1970: a log with a broken clock says earlier times."""
        at = to_datetime(value) if isinstance(value, int) else value
        return super().process_bind_param(at and max(at, _FIRST_TIMESTAMP), dialect)


_FIRST_TIMESTAMP = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Constraints are named from day one so that migrations can speak of them."""


class _NumberFlag(TypeDecorator[bool]):
    """PostgreSQL's flag: the numbers 0 and 1 of the original, since its own BOOLEAN would refuse the SQL that people
    have, `INSERT … VALUES (1, …)`. To ask for one, compare it with YES or NO: a number is no condition there."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> int | None:
        """Python to SQL."""
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:
        """SQL to Python."""
        return None if value is None else bool(value)


YES: ColumnElement[Any] = literal_column("1")
NO: ColumnElement[Any] = literal_column("0")
"""What a flag is compared with."""


def _always(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], **other: Any) -> Column[Any]:
    """A column that is never NULL."""
    return Column(name, kind, nullable=False, **other)


def _flag(name: str, *, default: bool, nullable: bool = True) -> Column[Any]:
    kind = Boolean().with_variant(_NumberFlag(), "postgresql")
    return Column(name, kind, nullable=nullable, default=default, server_default=text(str(int(default))))


def _only(condition: str) -> dict[str, Any]:
    """An index of these rows alone, where a database can have one. (On PostgreSQL the migration says so: to say it here
    would load that dialect, on SQLite too.)"""
    return {"sqlite_where": text(condition)}


JAILS = Table(
    "fail2ban_jail",
    METADATA,
    Column("id", Integer, primary_key=True),
    _flag("enabled", default=True),
    _always("name", _name(150)),
    _always("maxretry", Integer),
    _always("findtime", Integer),
    _always("bantime", Integer),
    _always("port", _name(250)),
    _always("filter", _name(250)),
    _always("banaction", _name(250), default="mc-custom", server_default="mc-custom"),
    _always("logpath", _name(2000)),
    _always("max_count", Integer, default=DEFAULT_MAX_COUNT, server_default=text(str(DEFAULT_MAX_COUNT))),
    _flag("send_mail", default=False),
    _flag("send_mail_bl", default=True),
    _flag("escalate", default=False, nullable=False),
    _always("v6_prefix", Integer, default=128, server_default=text("128")),
    _flag("share_hits", default=True, nullable=False),
    Column("logtimezone", _name(64)),
    UniqueConstraint("name"),
)
"""One jail a row: a tier, a blacklist or a custom jail. Durations in seconds; `bantime` -1 is for ever."""

IPS = Table(
    "fail2ban_ips",
    METADATA,
    # An insert that turns out to be an update uses a number up too: 2**31 of them are soon gone.
    Column("id", BigId, primary_key=True),
    _always("ip", _words(150)),
    _always("count", Integer, default=0, server_default=text("0")),
    _flag("active", default=True),
    _flag("blacklisted", default=False),
    _flag("whitelisted", default=False),
    _always("jail", _words(150)),
    Column("last_hit", UtcTimestamp, server_default=func.current_timestamp()),
    _always("host", _words(150), default="", server_default=""),
    Column("since", UtcDateTime),
    Column("until", UtcDateTime),
    Column("reason", _words(250)),
    Column("lifted_after", BigInteger),
    _flag("forced", default=False, nullable=False),
    UniqueConstraint("ip", "jail"),
    Index(None, "jail", "active", "until"),
    Index(None, "active", "until"),
    # What is looked for here is rare: where a database can index those rows alone, no other pays for it.
    Index(None, "active", "since", **_only("since IS NULL")),
    Index(None, "whitelisted", **_only("whitelisted = 1")),
)
"""What is known of an address or network in a jail: its ban, its count, whether it is allowed there.

`jail` may also be a group, or `*` for all, in rows that allow. `until` NULL in an active row (inserted by hand, or by
the original) means `last_hit` + the jail's `bantime`; 9999-12-31 means for ever. `lifted_after` is the number of the
last hit that a lifting by hand made forgotten, NULL when the last ban ended by its time.
"""

CONF = Table(
    "fail2ban_conf",
    METADATA,
    Column("id", Integer, primary_key=True),
    _always("src_email", String(150), default="", server_default=""),
    _always("src_name", String(150), default="", server_default=""),
    _always("dest_email", String(150), default="", server_default=""),
    _always("chain", String(150), default="INPUT", server_default="INPUT"),
)
"""The original's notification settings, kept so that its SQL finds them."""

HITS = Table(
    "mcban_hit",
    METADATA,
    # In the order in which it is asked for, and nothing besides: half of the work of keeping a hit.
    _always("ip", _words(64), primary_key=True),
    _always("jail_group", _words(200), primary_key=True),
    _always("id", BigInteger, primary_key=True, autoincrement=False),
    _always("at", BigInteger),
    Column("login", _words(250)),
    sqlite_with_rowid=False,
)
"""A hit that a tier may still ask for; `at` in seconds since the epoch, by the log's clock. `id` is its number among
all hits, in their order of arrival: see `last_hit` below."""

TOTALS = Table(
    "mcban_total",
    METADATA,
    _always("jail_group", _words(150), primary_key=True),
    _always("hits", BigInteger, default=0, server_default=text("0")),
)
"""How many hits a group has had in all, also those no longer kept."""

POSITIONS = Table(
    "mcban_position",
    METADATA,
    Column("id", BigId, primary_key=True),  # as in `fail2ban_ips`
    _always("host", _words(150)),
    _always("path", _words(LONGEST_PATH)),
    _always("device", BigInteger),
    _always("inode", _words(20)),  # up to 2**64 - 1, more than a signed BIGINT holds
    _always("head_length", Integer),
    _always("head_hash", _words(64)),
    _always("read_to", BigInteger),
    _always("journal_cursor", _words(LONGEST_CURSOR), default="", server_default=""),
    _always("batch", _words(16), default="", server_default=""),
    UniqueConstraint("host", "path", "device", "inode"),
)
"""How far a node has read a log; committed together with the hits read up to there. `batch` is the name of the commit
that wrote the row: a node that never got the answer to a COMMIT sees by it whether all was written."""

EVENTS = Table(
    "mcban_event",
    METADATA,
    Column("id", BigId, primary_key=True),
    _always("at", UtcDateTime),
    _always("what", _words(20)),
    _always("ip", _words(150)),
    _always("jail", _words(150)),
    Column("until", UtcDateTime),
    _always("reason", _words(250)),
    _always("host", _words(150)),
    Index(None, "ip", "id"),
)
"""What was decided about an address, when and why: a ban, a lifting, an allowance."""

CHANGES = Table(
    "mcban_change",
    METADATA,
    Column("id", BigId, primary_key=True),
    _always("ip", _words(150), default="", server_default=""),
    _always("jail", _words(150), default="", server_default=""),
    sqlite_autoincrement=True,
)
"""What changed, written by triggers whoever the writer is: a running engine asks for what came since.

`jail` and `ip` name the row of `fail2ban_ips`; a change of `fail2ban_jail` has an empty `ip`.
"""

NODES = Table(
    "mcban_node",
    METADATA,
    _always("host", _words(150), primary_key=True),
    _always("addresses", Text),
    _always("seen", UtcDateTime),
    _always("owner", _words(64), default="", server_default=""),
    _always("token", _words(64), default="", server_default=""),
)
"""A machine that works on this database; its addresses are protected on all of them. An engine that works under the
name says so every few seconds, by its `token`; `owner` is the machine's, so that it can begin anew at once."""

TURN = Table(
    "mcban_turn",
    METADATA,
    Column("id", Integer, primary_key=True),
    _always("taken", BigInteger),
    _always("last_hit", BigInteger, default=0, server_default=text("0")),
    _always("oldest_schema", _words(32), default="0001", server_default="0001"),
)
"""One row. `taken` is changed first in every writing transaction on a server: whoever did so writes alone until it
commits, and on a cluster the later of two commits is undone. SQLite has a lock of its own for that. `last_hit` is the
number given to the newest hit: no number is given twice, also after the newest row was deleted, for
`fail2ban_ips.lifted_after` relies on it. `oldest_schema` is the version of the schema that a mcban must know at the
least to work on this one: docs/upgrading.md."""
