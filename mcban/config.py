"""The settings: a TOML file and the environment to a frozen Config. Nobody else reads either.

Every key has a default; `etc/mcban.toml` shows each with its meaning.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mcban.core.address import parse_network
from mcban.core.duration import format_duration, parse_duration
from mcban.core.ladder import LONGEST_LOOK_BACK
from mcban.errors import ConfigError, NoPermissionError, printable
from mcban.shipped import shipped

DEFAULT_FILE = Path("/etc/mcban/mcban.toml")
BACKENDS = ("ipset", "nftables", "memory")
LOG_LEVELS = ("debug", "info", "warning", "error")
TLS_MODES = ("off", "required", "verify")
_PASSWORD = re.compile(r"://[^:/\s]*:[^@\s]+@|[?&][^=&]*(?:passw(?:or)?d|secret)[^=&]*=[^&\s]", re.IGNORECASE)
"""In a URL: the user's, or an option that holds one."""
_BETWEEN_URLS = re.compile(r"\s+(?=[A-Za-z0-9+]+://)")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Config:
    """What was set. Durations in seconds."""

    state_dir: Path = Path("/var/lib/mcban")
    filter_path: tuple[Path, ...] = ()
    ignoreip: tuple[str, ...] = ()
    node: str = ""
    log_level: str = "info"
    database_url: str = field(default="", repr=False)
    database_password: str = field(default="", repr=False)
    database_password_file: Path | None = None
    database_tls: str = "off"
    database_tls_ca: Path | None = None
    database_tls_cert: Path | None = None
    database_tls_key: Path | None = None
    firewall_backend: str = "ipset"
    firewall_block: str = "reject"
    firewall_chains: tuple[str, ...] = ("INPUT",)
    firewall_maxelem: int = 1_000_000
    end_connections: bool = False
    sync_interval: int = 5
    poll_interval: float = 0.25
    read_new_logs: str = "beginning"
    keep_events: int = 31_536_000
    keep_bans: int = 31_536_000
    local_copy: bool = True
    warnings: tuple[str, ...] = ()
    """What is to be said of the settings although they can be used."""

    @property
    def url(self) -> str:
        """The database's URL, or those of a cluster's nodes with blanks between: what is set, else SQLite in the state
        directory."""
        return self.database_url or f"sqlite:///{self.state_dir / 'mcban.sqlite'}"

    @property
    def urls(self) -> tuple[str, ...]:
        """The same, each by itself."""
        return tuple(_BETWEEN_URLS.split(self.url.strip()))

    def read_password(self) -> str | None:
        """The database's password, None where the URL is to have it. Raises ConfigError, NoPermissionError."""
        if self.database_password or self.database_password_file is None:
            return self.database_password or None
        return _password_in(self.database_password_file)


def load(file: Path | None, environment: Mapping[str, str]) -> Config:
    """Settings from `file` (else `MCBAN_CONFIG`, else the default place) and the environment, which wins.

    Raises ConfigError, in one line with file and key, for what cannot be used; NoPermissionError when the file
    cannot be read.
    """
    named = file or (Path(environment["MCBAN_CONFIG"]) if environment.get("MCBAN_CONFIG") else None)
    values = _flatten(_read(named or DEFAULT_FILE, required=named is not None), str(named or DEFAULT_FILE))
    warnings = _exposed(named or DEFAULT_FILE, values)
    for variable, key in _ENVIRONMENT.items():
        if environment.get(variable):
            values[key] = environment[variable]
    settings: dict[str, Any] = {"filter_path": _default_filter_path(), "node": socket.gethostname()}
    for key, value in values.items():
        name, check = _KEYS[key]
        try:
            settings[name] = check(value)
        except ValueError as error:
            where = next((v for v, k in _ENVIRONMENT.items() if k == key and environment.get(v)), named or DEFAULT_FILE)
            raise ConfigError(f"{where}: {key}: {printable(str(error), 300)}") from None
    if not settings["node"]:
        settings["node"] = socket.gethostname()
    settings["database_password"] = environment.get("MCBAN_DATABASE_PASSWORD", "")
    _check_tls(settings, named or DEFAULT_FILE)
    return Config(**settings, warnings=warnings)


def _exposed(file: Path, values: Mapping[str, Any]) -> tuple[str, ...]:
    """A warning, where everybody on this machine may read the password that stands in `file`."""
    urls = values.get("database.url", "")
    text = " ".join(map(str, urls)) if isinstance(urls, list) else str(urls)
    if not _PASSWORD.search(text):
        return ()
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return ()
    if not mode & stat.S_IROTH:
        return ()
    return (f"{file} holds a password and may be read by everybody (mode {mode:04o}): run chmod o= {_typed(file)}",)


def _typed(file: Path) -> str:
    """As the name is written into a shell."""
    from shlex import quote  # noqa: PLC0415  # for advice only

    return quote(str(file))


def _check_tls(settings: Mapping[str, Any], file: Path) -> None:
    """Raises ConfigError for files that would not be used: who names them believes to be protected."""
    if settings.get("database_tls", "off") == "off":
        for key in ("tls_ca", "tls_cert", "tls_key"):
            if settings.get(f"database_{key}"):
                raise ConfigError(f"{file}: database.{key} means nothing while database.tls is off: set it to verify")
    if bool(settings.get("database_tls_cert")) != bool(settings.get("database_tls_key")):
        raise ConfigError(f"{file}: database.tls_cert and database.tls_key are of no use without each other")


def _password_in(file: Path) -> str:
    """The first line of `file`, which nobody but its owner and its group may read: as ssh has it with its keys."""
    try:
        with file.open("rb") as opened:
            about = os.fstat(opened.fileno())
            raw = opened.read(4096)
    except PermissionError:
        raise NoPermissionError(f"no permission to read {file}: run as root, or as a member of its group") from None
    except OSError as error:
        raise ConfigError(f"database.password_file: {file} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(about.st_mode) and about.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigError(
            f"database.password_file: {file} may be read by everybody, or written by others than its owner: "
            f"run chmod o=,g-w {_typed(file)}"
        )
    try:
        password = raw.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"database.password_file: {file} is no text in UTF-8") from None
    if not password:
        raise ConfigError(f"database.password_file: {file} has nothing in its first line")
    return password


def _default_filter_path() -> tuple[Path, ...]:
    return (Path("/etc/mcban/filter.d"), shipped("etc") / "filter.d", Path("/etc/fail2ban/filter.d"))


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{file} does not exist: give --config another file, or none for the defaults") from None
        return {}
    except PermissionError:
        raise NoPermissionError(f"no permission to read {file}: run as root, or as a member of its group") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is no valid TOML: byte {error.start + 1} is no UTF-8: convert it with iconv"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is no valid TOML: {printable(str(error))}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


def _flatten(tables: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Tables to dotted keys; raises ConfigError for a key that nobody reads."""
    values: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            values |= {f"{key}.{inner}": held for inner, held in value.items()}
        else:
            values[key] = value
    for key in values:
        if key not in _KEYS:
            if any(known.startswith(f"{key}.") for known in _KEYS):
                raise ConfigError(f"{file}: {key} holds settings of its own: write [{key}] and, below it, each of them")
            near = get_close_matches(key, _KEYS, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{file}: there is no setting {printable(key)}{hint}")
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: put it in quotes")
    return value


def _folder(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is not an absolute path")
    return path


def _file(value: Any) -> Path | None:
    return _folder(value) if _text(value) else None


def _urls(value: Any) -> str:
    if not isinstance(value, list):
        return _text(value)
    if not value:
        raise ValueError('no URL is named: write ["…", "…"], or "…"')
    return " ".join(_text(item) for item in value)


def _state_dir(value: Any) -> Path:
    if {"?", "%"} & set(_text(value)):
        raise ValueError("'?' and '%' cannot stand in it: they mean something else in the URL of the database there")
    return _folder(value)


def _node(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{0,150}", _text(value), re.ASCII):
        raise ValueError(f"{value!r} is no name of a machine: letters, digits, '.', '-', '_', ':', 150 at the most")
    return str(value)


def _folders(value: Any) -> tuple[Path, ...]:
    items = value.split(":") if isinstance(value, str) else _list(value)
    return tuple(_folder(item) for item in items if item)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f'{value!r} is no list: write ["…", "…"]')
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return check


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{value!r} is no whole number from {low} to {high}")
        return value

    return check


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _duration(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        seconds = _seconds(value)
        if seconds is None or not low <= seconds <= high:
            said = f"{value!r} is no duration from {format_duration(low)} to {format_duration(high)}"
            raise ValueError(f"{said}: write 3600, 90s, 15m, 3h, 1d, 1w, 1mo or 1y")
        return seconds

    return check


def _interval(low: float, high: float) -> Callable[[Any], float]:
    """A duration that may also be given in thousandths of a second: `250ms`."""

    def check(value: Any) -> float:
        short = re.fullmatch(r"(\d{1,6})ms", str(value).strip(), re.ASCII | re.IGNORECASE)
        seconds = int(short[1]) / 1000 if short else _seconds(value)
        if seconds is None or not low <= seconds <= high:
            raise ValueError(f"{value!r} is no duration from {low * 1000:g}ms to {high:g}s: write 250ms or 1s")
        return float(seconds)

    return check


def _seconds(value: Any) -> int | None:
    """A duration; None for what is none. Nothing here takes -1, so that it is a number like others."""
    with suppress(ValueError):
        return parse_duration(str(value))
    return None


def parse_allowed(text: str) -> str:
    """An address or network in canonical form, or a DNS name; raises ValueError when it is none of them."""
    try:
        return parse_network(text)
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not text.replace(".", "").isdigit() and len(text) <= 150:
            return text.lower().rstrip(".")
        raise ValueError(f"{text!r} is no address, network or host name") from None


def _allowed(value: Any) -> tuple[str, ...]:
    items = value.replace(",", " ").split() if isinstance(value, str) else _list(value)
    allowed = tuple(parse_allowed(_text(item)) for item in items)
    for entry in allowed:
        if entry.endswith("/0"):
            raise ValueError(f"{entry} is everybody: to ban nobody, mcban general disable")
    return allowed


def _chains(value: Any) -> tuple[str, ...]:
    chains = tuple(_text(item) for item in _list(value))
    for chain in chains:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,27}", chain, re.ASCII):
            raise ValueError(f"{chain!r} is no name of an iptables chain")
        if chain == "mcban":
            raise ValueError("'mcban' is the chain with our own rules: name those that are to jump there, as INPUT")
    if not chains:
        raise ValueError('no chain is named: write ["INPUT"]')
    return chains


_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "state_dir": ("state_dir", _state_dir),
    "filter_path": ("filter_path", _folders),
    "ignoreip": ("ignoreip", _allowed),
    "node": ("node", _node),
    "log.level": ("log_level", _one_of(*LOG_LEVELS)),
    "database.url": ("database_url", _urls),
    "database.password_file": ("database_password_file", _file),
    "database.tls": ("database_tls", _one_of(*TLS_MODES)),
    "database.tls_ca": ("database_tls_ca", _file),
    "database.tls_cert": ("database_tls_cert", _file),
    "database.tls_key": ("database_tls_key", _file),
    "firewall.backend": ("firewall_backend", _one_of(*BACKENDS)),
    "firewall.block": ("firewall_block", _one_of("reject", "drop")),
    "firewall.chains": ("firewall_chains", _chains),
    "firewall.end_connections": ("end_connections", _truth),
    "firewall.maxelem": ("firewall_maxelem", _whole(1024, 100_000_000)),
    "engine.sync_interval": ("sync_interval", _duration(1, 8)),
    "engine.poll_interval": ("poll_interval", _interval(0.1, 5)),
    "engine.read_new_logs": ("read_new_logs", _one_of("beginning", "end")),
    "engine.local_copy": ("local_copy", _truth),
    "engine.keep_events": ("keep_events", _duration(86_400, 10 * 31_536_000)),
    "engine.keep_bans": ("keep_bans", _duration(LONGEST_LOOK_BACK, 100 * 31_536_000)),
}
"""Key in the file to field and check."""

_ENVIRONMENT = {
    "MCBAN_DATABASE_URL": "database.url",
    "MCBAN_STATE_DIR": "state_dir",
    "MCBAN_FIREWALL": "firewall.backend",
    "MCBAN_FILTER_PATH": "filter_path",
}
