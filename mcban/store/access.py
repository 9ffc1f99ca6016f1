"""How the database is reached: its URLs, the password, TLS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mcban.errors import ConfigError, printable

_DRIVERS = {
    "sqlite": "pysqlite",
    "mysql": "pymysql",
    "mariadb": "pymysql",
    "postgresql": "psycopg",
}
_SECRET = re.compile(r"passw(or)?d|secret", re.IGNORECASE)
"""Options in a URL that hold a password."""
_SQLITE_OPTIONS = {"timeout", "cached_statements", "check_same_thread", "detect_types", "isolation_level"}
"""Those of its driver. With `uri` the path would be another one for us than for SQLite."""
_NAMING_DATABASE = {"database", "db", "read_default_file"}
"""Options in a URL by which PyMySQL may learn the database's name."""


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a database. Several URLs are nodes of one cluster: the first that answers is used."""

    urls: Sequence[str] = field(repr=False)
    password: str | None = field(default=None, repr=False)
    """Stands in for the one in the URLs."""
    tls: str = "off"
    """off: none; required: encrypted, whoever the server is; verify: and its certificate is one for its name."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    """Files: whose certificates are believed (None: those of the system), and what proves who we are."""
    named: str = "database.url"
    """Where the URLs were written, for errors."""

    def parsed(self) -> list[URL]:
        """The URLs. Raises ConfigError, without showing what may be a password, for what cannot be used."""
        urls = [self._parsed(url) for url in self.urls]
        names = {url.get_backend_name() for url in urls}
        if len(urls) > 1 and (len(names) > 1 or "sqlite" in names):
            raise ConfigError(f"{self.named}: several URLs are the nodes of one cluster, all MariaDB or all PostgreSQL")
        return urls

    def _parsed(self, text: str) -> URL:
        try:
            url = make_url(text)
            name = url.get_backend_name()
        except (ArgumentError, ValueError) as error:
            raise _no_url(self.named, type(error).__name__) from None
        if name not in _DRIVERS:
            raise ConfigError(
                f"{self.named}: {printable(name)} is not supported: use SQLite, MariaDB (mysql+pymysql://…) or "
                "PostgreSQL (postgresql+psycopg://…)"
            )
        if url.drivername not in {name, f"{name}+{_DRIVERS[name]}"}:
            raise ConfigError(
                f"{self.named}: there is no driver {printable(url.drivername)}: write {name}+{_DRIVERS[name]}://…"
            )
        if "@" in (url.host or ""):
            raise ConfigError(
                f"{self.named}: what stands after the first @ is no host: write an @ in a password as %40"
            )
        if name == "sqlite":  # it has one driver, and the init script looks for the URL as it is written
            strange = next((option for option in url.query if option not in _SQLITE_OPTIONS), None)
            if strange is not None:
                raise ConfigError(
                    f"{self.named}: SQLite has no option {printable(strange)} here: sqlite:////PATH is all"
                )
            if url.host or url.username or url.password or url.port:
                raise ConfigError(
                    f"{self.named}: SQLite has neither users nor hosts: sqlite:////PATH, with four strokes"
                )
            if url.database not in {None, "", ":memory:"} and not str(url.database).startswith("/"):
                raise ConfigError(
                    f"{self.named}: {printable(str(url.database))} would be another file in each folder: write the "
                    "whole path, sqlite:////PATH, with four strokes"
                )
            return url
        if "://" in (url.database or ""):  # it would be shown, with the next URL's password in it
            raise ConfigError(f"{self.named}: several URLs stand in it: write a list, or blanks between them")
        if name in {"mysql", "mariadb"} and not url.database and not _NAMING_DATABASE & url.query.keys():
            raise ConfigError(f"{self.named} names no database: write {name}+{_DRIVERS[name]}://USER@HOST/DATABASE")
        url = url.set(drivername=f"{name}+{_DRIVERS[name]}")
        return url if self.password is None else url.set(password=self.password)


def shown(url: URL) -> str:
    """A URL fit to be seen: its passwords are three stars."""
    hidden = {key: "***" for key in url.query if _SECRET.search(key)}
    text = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return text.replace("%2A%2A%2A", "***") if hidden else text


def unusable_option(named: str, url: URL, error: Exception) -> ConfigError:
    """What to say when SQLAlchemy or a driver stumbles over an option of a URL that stands in `named`."""
    hint = "; TLS is set by database.tls" if any(key.startswith("ssl") for key in url.query) else ""
    return ConfigError(f"{named}: an option in it cannot be used: {printable(str(error))}{hint}")


def host_of(url: URL) -> str | None:
    """The name or address of a URL's server, None for a file or a socket."""
    if url.get_backend_name() == "sqlite" or "unix_socket" in url.query:
        return None
    asked: Any = url.host or url.query.get("hostaddr") or url.query.get("host")
    host = asked if isinstance(asked, str) else None
    return None if not host or host.startswith(("/", "@")) else host


def _no_url(named: str, why: str) -> ConfigError:
    return ConfigError(
        f"{named} is no usable SQLAlchemy URL: write sqlite:////PATH, mysql+pymysql://USER:PASSWORD@HOST/DB or "
        f"postgresql+psycopg://USER:PASSWORD@HOST/DB ({why})"
    )
