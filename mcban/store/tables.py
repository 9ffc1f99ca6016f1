"""The schema as typed mappings; `migrations/` holds the way to it.

`fail2ban_jail`, `fail2ban_ips` and `fail2ban_conf` keep the names and columns of the original, so that existing SQL
goes on working; what we added has a default. Tables of our own begin with `mcban_`.
Times are UTC: `DATETIME` where people read them, seconds since the epoch where they are compared by the thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TIMESTAMP, TypeDecorator, TypeEngine

from mcban.core.ladder import DEFAULT_MAX_COUNT
from mcban.core.model import LONGEST_PATH

# Names in full: MariaDB compares binary, so that a jail `A` is not a jail `a`, nor is `a ` (its other collations pass
# over spaces at the end), and stores any login name.
_MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}

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


def _write_text(value: Any) -> Any:
    return value.raw if isinstance(value, Blob) else value


class _LenientText(String):
    """SQLite's text, where bytes from somebody's plain SQL read as a `Blob`."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """SQL to Python."""
        return read_text

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Python to SQL."""
        return _write_text


def _words(length: int) -> String:
    return String(length).with_variant(_LenientText(length), "sqlite")


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


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime in Python, whole seconds without zone in SQL."""

    impl = DateTime
    lenient: type[_LenientDateTime] = _LenientDateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The lenient ones where they are needed."""
        if dialect.name == "sqlite":
            return self.lenient()
        return dialect.type_descriptor(self.impl_instance)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware to naive UTC; a naive value is a mistake of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Naive UTC to aware; no time for what MariaDB keeps and no calendar has, such as 0000-00-00."""
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) else None


class UtcTimestamp(UtcDateTime):
    """The same in the original's type: MariaDB turns it to and from the session's zone, which for us is UTC."""

    impl = TIMESTAMP
    lenient = _LenientTimestamp
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """MariaDB's TIMESTAMP begins one second after 1970: a log with a broken clock says earlier times."""
        return super().process_bind_param(value and max(value, _FIRST_TIMESTAMP), dialect)


_FIRST_TIMESTAMP = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    """The declarative base; constraints are named from day one so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class JailRow(Base):
    """One jail: a tier, a blacklist or a custom jail. Durations in seconds; `bantime` -1 is for ever."""

    __tablename__ = "fail2ban_jail"
    __table_args__ = (UniqueConstraint("name"), _MYSQL)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    enabled: Mapped[bool | None] = mapped_column(Boolean, default=True, server_default=text("1"))
    name: Mapped[str] = mapped_column(String(150))
    maxretry: Mapped[int]
    findtime: Mapped[int]
    bantime: Mapped[int]
    port: Mapped[str] = mapped_column(String(250))
    filter: Mapped[str] = mapped_column(String(250))
    banaction: Mapped[str] = mapped_column(String(250), default="mc-custom", server_default="mc-custom")
    logpath: Mapped[str] = mapped_column(String(2000))
    max_count: Mapped[int] = mapped_column(default=DEFAULT_MAX_COUNT, server_default=text(str(DEFAULT_MAX_COUNT)))
    send_mail: Mapped[bool | None] = mapped_column(Boolean, default=False, server_default=text("0"))
    send_mail_bl: Mapped[bool | None] = mapped_column(Boolean, default=True, server_default=text("1"))
    escalate: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("0"))
    v6_prefix: Mapped[int] = mapped_column(default=128, server_default=text("128"))


class IpRow(Base):
    """What is known of an address or network in a jail: its ban, its count, whether it is allowed there.

    `jail` may also be a group, or `*` for all, in rows that allow. `until` NULL in an active row (inserted by hand, or
    by the original) means `last_hit` + the jail's `bantime`; 9999-12-31 means for ever.
    `lifted_after` is the number of the last hit that a lifting by hand made forgotten, NULL
    when the last ban ended by its time.
    """

    __tablename__ = "fail2ban_ips"
    __table_args__ = (
        UniqueConstraint("ip", "jail"),
        Index(None, "jail", "active", "until"),
        Index(None, "active", "until"),
        Index(None, "active", "since"),
        Index(None, "whitelisted"),
        _MYSQL,
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    ip: Mapped[str] = mapped_column(_words(150))
    count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    active: Mapped[bool | None] = mapped_column(Boolean, default=True, server_default=text("1"))
    blacklisted: Mapped[bool | None] = mapped_column(Boolean, default=False, server_default=text("0"))
    whitelisted: Mapped[bool | None] = mapped_column(Boolean, default=False, server_default=text("0"))
    jail: Mapped[str] = mapped_column(_words(150))
    last_hit: Mapped[datetime | None] = mapped_column(UtcTimestamp, server_default=func.current_timestamp())
    host: Mapped[str] = mapped_column(_words(150), default="", server_default="")
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(_words(250))
    lifted_after: Mapped[int | None] = mapped_column(BigInteger)
    forced: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("0"))


class ConfRow(Base):
    """The original's notification settings, kept so that its SQL finds them."""

    __tablename__ = "fail2ban_conf"
    __table_args__ = _MYSQL

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    src_email: Mapped[str] = mapped_column(String(150), default="", server_default="")
    src_name: Mapped[str] = mapped_column(String(150), default="", server_default="")
    dest_email: Mapped[str] = mapped_column(String(150), default="", server_default="")
    chain: Mapped[str] = mapped_column(String(150), default="INPUT", server_default="INPUT")


class HitRow(Base):
    """A hit that a tier may still ask for; `at` in seconds since the epoch, by the log's clock."""

    __tablename__ = "mcban_hit"
    # A number is never given twice, also after the newest row was deleted: `lifted_after` relies on it.
    __table_args__ = (
        Index(None, "ip", "jail_group"),
        Index(None, "at"),
        {"sqlite_autoincrement": True, **_MYSQL},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    jail_group: Mapped[str] = mapped_column(_words(150))
    ip: Mapped[str] = mapped_column(_words(64))
    at: Mapped[int] = mapped_column(BigInteger)
    login: Mapped[str | None] = mapped_column(_words(250))


class TotalRow(Base):
    """How many hits a group has had in all, also those no longer kept."""

    __tablename__ = "mcban_total"
    __table_args__ = _MYSQL

    jail_group: Mapped[str] = mapped_column(_words(150), primary_key=True)
    hits: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))


class PositionRow(Base):
    """How far a node has read a log; committed together with the hits read up to there."""

    __tablename__ = "mcban_position"
    __table_args__ = (UniqueConstraint("host", "path", "device", "inode"), _MYSQL)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    host: Mapped[str] = mapped_column(_words(150))
    path: Mapped[str] = mapped_column(_words(LONGEST_PATH))
    device: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[str] = mapped_column(_words(20))  # up to 2**64 - 1, more than a signed BIGINT holds
    head_length: Mapped[int]
    head_hash: Mapped[str] = mapped_column(_words(64))
    read_to: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """What was decided about an address, when and why: a ban, a lifting, an allowance."""

    __tablename__ = "mcban_event"
    __table_args__ = (Index(None, "ip", "id"), Index(None, "at"), _MYSQL)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    what: Mapped[str] = mapped_column(_words(20))
    ip: Mapped[str] = mapped_column(_words(150))
    jail: Mapped[str] = mapped_column(_words(150))
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(_words(250))
    host: Mapped[str] = mapped_column(_words(150))


class ChangeRow(Base):
    """What changed, written by triggers whoever the writer is: a running engine asks for what came since.

    `jail` and `ip` name the row of `fail2ban_ips`; a change of `fail2ban_jail` has an empty `ip`.
    """

    __tablename__ = "mcban_change"
    __table_args__ = ({"sqlite_autoincrement": True, **_MYSQL},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    ip: Mapped[str] = mapped_column(_words(150), default="", server_default="")
    jail: Mapped[str] = mapped_column(_words(150), default="", server_default="")


class NodeRow(Base):
    """A machine that works on this database; its addresses are protected on all of them."""

    __tablename__ = "mcban_node"
    __table_args__ = _MYSQL

    host: Mapped[str] = mapped_column(_words(150), primary_key=True)
    addresses: Mapped[str] = mapped_column(Text)
    seen: Mapped[datetime] = mapped_column(UtcDateTime)


class TurnRow(Base):
    """One row, changed first in every writing transaction on a server: whoever did so writes alone until it commits,
    and on a cluster the later of two commits is undone. SQLite has a lock of its own for that."""

    __tablename__ = "mcban_turn"
    __table_args__ = _MYSQL

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    taken: Mapped[int] = mapped_column(BigInteger)
