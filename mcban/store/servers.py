"""The way to a database server: of several nodes the first that answers, TLS as it was asked for, a session of ours."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import URL, Dialect, Engine, create_engine, event

from mcban.errors import ConfigError
from mcban.store.access import Access, unusable_option
from mcban.store.faults import PASSING, kind_of

ANSWER_WAIT = 20
"""Seconds that a server may take for an answer, its first greeting among them."""

GREETING_WAIT = 5
"""Seconds that a server may take to let us in; less where there are others to ask."""

_READ_TIMEOUT = "read_timeout"
"""The option of a URL that says otherwise: PyMySQL's, and ours where PostgreSQL's driver has none."""

_TURN_WAIT = 10
"""Seconds that a writer waits for another's transaction before it gives up and tries again."""


class Servers:
    """The nodes of one database, and the one in use."""

    def __init__(self, access: Access, urls: list[URL]) -> None:
        self._nodes = [_node(access, url, single=len(urls) == 1) for url in urls]
        self._used = 0
        self.engine = _engine(urls[0], self._connect)
        for url in urls:  # what is wrong in one that is asked last is said at once
            self.engine.dialect.create_connect_args(url)

    @property
    def url(self) -> URL:
        """Of the node that answered last, or was asked last."""
        return self._nodes[self._used].url

    @property
    def answer_wait(self) -> int:
        """Seconds that the node in use may take for an answer."""
        return self._nodes[self._used].answer_wait

    def _connect(self, dialect: Dialect) -> Any:
        """A connection to the node in use, else to the first of the others that lets us in; raises the driver's error
        of the last one asked."""
        count = len(self._nodes)
        for tried in range(count):
            try:
                return self._nodes[self._used].connect(dialect)
            except dialect.loaded_dbapi.Error:
                if tried == count - 1:
                    raise
                self._used = (self._used + 1) % count
        raise AssertionError("unreachable")


class _Node(NamedTuple):
    """A server and how a connection to it is made."""

    url: URL
    options: dict[str, Any]
    greet: Callable[[Any], None]
    named: str
    answer_wait: int
    """Seconds."""
    open: Callable[..., Any] | None = None
    """What makes a connection that keeps to `answer_wait`, where the driver itself knows no such thing."""

    def connect(self, dialect: Dialect) -> Any:
        """A connection with our session on it."""
        url = self.url if self.open is None else self.url.difference_update_query([_READ_TIMEOUT])
        arguments, asked = dialect.create_connect_args(url)
        options = {**self.options, **asked}
        if "options" in asked and "options" in self.options:  # PostgreSQL's settings of the session: both
            options["options"] = f"{self.options['options']} {asked['options']}"
        try:
            connection = (self.open or dialect.connect)(*arguments, **options)
        except (TypeError, ValueError, AttributeError, OSError) as error:  # no driver's: an option, or its file
            raise unusable_option(self.named, self.url, error) from None
        try:
            self.greet(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _engine(url: URL, connect: Callable[[Dialect], Any]) -> Engine:
    # A column type that mcban has no use for is not asked for at the first connection.
    plain = {"use_native_hstore": False} if url.get_backend_name() == "postgresql" else {}
    engine = create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True, **plain)

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, *_: Any) -> Any:
        return connect(dialect)

    @event.listens_for(engine, "handle_error")
    def _judge(context: Any) -> None:
        # A node without its cluster, or one that takes no writes any more, is no better than a lost connection: all
        # that we have to it are closed, and whoever answers is asked next.
        if kind_of(context.original_exception) in PASSING:
            context.is_disconnect = True

    return engine


def _node(access: Access, url: URL, *, single: bool) -> _Node:
    wait = GREETING_WAIT if single else 2
    answer_wait = int(str(url.query.get(_READ_TIMEOUT, ANSWER_WAIT)))
    if answer_wait <= 0:
        raise ValueError(f"{_READ_TIMEOUT} is a number of seconds above 0")
    if url.get_backend_name() == "postgresql":
        from mcban.store.postgresql import patient_connection, read_times_leniently  # noqa: PLC0415  # an extra's

        def read_leniently(connection: Any) -> None:
            read_times_leniently(connection.adapters)

        options = _postgresql_options(access, url, wait, single=single)
        return _Node(url, options, read_leniently, access.named, answer_wait, patient_connection(answer_wait).connect)
    tls = access.tls != "off" and "unix_socket" not in url.query
    options = {
        "connect_timeout": wait,
        "read_timeout": ANSWER_WAIT,
        "write_timeout": ANSWER_WAIT,
        "charset": "utf8mb4",
    }
    if tls:
        options["ssl"] = _tls_context(access)
    elif not any(key.startswith("ssl") for key in url.query):
        options["ssl_disabled"] = True

    def greet(connection: Any) -> None:
        if tls and not getattr(connection, "_secure", False):
            # Older releases of PyMySQL go on without.
            raise ConfigError("database.tls: PyMySQL made a connection without TLS: install a newer one")
        with connection.cursor() as cursor:
            # TIMESTAMP columns are shown in the session's zone: ours is UTC.
            # A row's lock and, by a backup or FLUSH TABLES WITH READ LOCK, the whole server's: that would be a day.
            waits = f"innodb_lock_wait_timeout = {_TURN_WAIT}, lock_wait_timeout = {_TURN_WAIT}"
            cursor.execute(f"SET time_zone = '+00:00', {waits}")
            if not single:
                _check_useful(cursor)

    return _Node(url, options, greet, access.named, answer_wait)


def _check_useful(cursor: Any) -> None:
    """Raises, as the server would for the first change, where another node should be asked: it answers this much."""
    from pymysql.err import OperationalError  # noqa: PLC0415  # only where there are several

    cursor.execute("SHOW VARIABLES WHERE variable_name IN ('read_only', 'wsrep_on')")
    is_on = dict(cursor.fetchall())
    if is_on.get("read_only") == "ON":
        raise OperationalError(1290, "read_only is on")
    if is_on.get("wsrep_on") == "ON":
        cursor.execute("SHOW STATUS LIKE 'wsrep_ready'")
        if cursor.fetchone() != ("wsrep_ready", "ON"):
            raise OperationalError(1047, "wsrep_ready is off")


def _tls_context(access: Access) -> ssl.SSLContext:
    """Raises ConfigError, naming the setting."""
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("tls_ca", access.ca, error) from None
    if hasattr(ssl, "VERIFY_X509_STRICT"):
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # certificates that people made by hand lack what it wants
    if access.tls == "required":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.cert:
        try:
            # A key that wants a passphrase would ask for it at the terminal.
            context.load_cert_chain(access.cert, access.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise _unusable("tls_cert and database.tls_key", access.cert, error) from None
    return context


def _unusable(key: str, file: str | None, error: OSError) -> ConfigError:
    return ConfigError(f"database.{key}: {file} cannot be used: {error.strerror or error}")


def _postgresql_options(access: Access, url: URL, wait: int, *, single: bool) -> dict[str, Any]:
    """libpq's words: see its documentation, "Parameter Key Words"."""
    tls: dict[str, str] = {"sslmode": "disable"}
    if access.tls != "off":
        files = {"sslrootcert": access.ca, "sslcert": access.cert, "sslkey": access.key}
        _tls_context(access)  # files that cannot be used are said in our words
        tls = {key: file for key, file in files.items() if file}
        tls["sslmode"] = "require" if access.tls == "required" else "verify-full"
        if access.tls == "verify" and not access.ca:
            system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
            tls["sslrootcert"] = system
    if any(key.startswith("ssl") for key in url.query):
        tls = {} if access.tls == "off" else tls
    return {
        "connect_timeout": wait,
        "application_name": "mcban",
        "options": f"-c timezone=UTC -c lock_timeout={_TURN_WAIT}s",
        # A server whose port was black-holed is found out, as MariaDB's is by the time it may take for an answer.
        "tcp_user_timeout": ANSWER_WAIT * 1000,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        **({} if single else {"target_session_attrs": "read-write"}),
        **tls,
    }
