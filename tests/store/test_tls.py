"""TLS to a database server, and its password, by real servers and a certificate authority that the test made."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from mcban.errors import ConfigError, DatabaseError
from mcban.store.access import Access
from mcban.store.database import Database
from tests import mariadb as mariadb_server
from tests import postgres
from tests.conftest import require_mariadb
from tests.postgres import PostgreSQL

PASSWORD = "s3cret"


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in `folder`."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def certificates() -> Iterator[Path]:
    """An authority, a server's certificate by it for 127.0.0.1, a client's, and the authority of a stranger."""
    with tempfile.TemporaryDirectory(prefix="mcban-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        for name in ("ca", "stranger"):
            about = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2")
            openssl(folder, "req", "-x509", *key, *about, "-addext", "basicConstraints=critical,CA:TRUE")
        for name, alternative in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
            openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            (folder / "extensions").write_text(f"subjectAltName={alternative}\n")
            by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
            openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem")
        for file in folder.glob("*.key"):
            file.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(folder / "server.key", 65_534)  # as whom PostgreSQL runs
        yield folder


@dataclass(frozen=True)
class Kind:
    """A server of one kind on a port of its own: with TLS as `start` says."""

    url: str
    start: Callable[[bool], AbstractContextManager[object]]
    cipher: str
    """Asks for the cipher of the connection, nothing when there is none."""

    def reach(self, user: str = "u", host: str = "127.0.0.1", **settings: str) -> Database:
        """The database by these settings."""
        password = PASSWORD if user == "u" else None
        return Database(Access((self.url.format(user=user, host=host),), password, **settings))

    def cipher_of(self, database: Database) -> str:
        """How the connection is encrypted, "" when it is not."""
        try:
            with database.translating(), database.engine.connect() as connection:
                return str(connection.execute(text(self.cipher)).scalar() or "")
        finally:
            database.dispose()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["mariadb", "postgresql"])
def kind(request: pytest.FixtureRequest, certificates: Path) -> Iterator[Kind]:
    """A server of each kind, not started yet; its data is there."""
    with tempfile.TemporaryDirectory(prefix="mcban-") as folder:
        if request.param == "mariadb":
            require_mariadb()
            yield _mariadb(Path(folder), certificates)
        else:
            yield _postgresql(Path(folder), certificates, request.getfixturevalue("postgresql"))


def _mariadb(folder: Path, certificates: Path) -> Kind:
    port = free_port()
    reach = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
    tls = tuple(f"--ssl-{what}={certificates / f}" for what, f in _FILES.items())

    @contextmanager
    def start(encrypted: bool) -> Iterator[None]:
        with mariadb_server.private_server(folder, *reach, *(tls if encrypted else ("--skip-ssl",))) as at:
            users = f"CREATE OR REPLACE USER u IDENTIFIED BY '{PASSWORD}'; CREATE OR REPLACE USER c REQUIRE X509;"
            mariadb_server.sql(at, f"CREATE DATABASE IF NOT EXISTS d; {users} GRANT ALL ON d.* TO u, c")
            yield

    ask = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
    return Kind(f"mysql+pymysql://{{user}}@{{host}}:{port}/d", start, ask)


_FILES = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
_ADMITTED = """local all all trust
hostssl all c 127.0.0.1/32 trust clientcert=verify-ca
host all u 127.0.0.1/32 scram-sha-256
"""


def _postgresql(folder: Path, certificates: Path, shared: PostgreSQL) -> Kind:
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "hba_file": str(folder / "admitted")}
    tls = {f"ssl_{what}_file": str(certificates / file) for what, file in _FILES.items()}
    (folder / "admitted").write_text(_ADMITTED)

    @contextmanager
    def start(encrypted: bool) -> Iterator[None]:
        wanted = settings | ({"ssl": "on", **tls} if encrypted else {})
        options = [word for key, value in wanted.items() for word in ("-c", f"{key}={value}")]
        with postgres.private_server(folder, shared.programs, *options, port=port) as server:
            users = f"CREATE ROLE u LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE c LOGIN;"
            server.run(f"DROP ROLE IF EXISTS u, c; {users}", "postgres")
            yield

    ask = "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    return Kind(f"postgresql+psycopg://{{user}}@{{host}}:{port}/postgres", start, ask)


def test_a_connection_is_as_safe_as_it_was_asked_to_be(kind: Kind, certificates: Path) -> None:
    """Encrypted when required; with verify, by whom it should be and under its name; each fault is one clear line.
    A server without TLS is not spoken to, and gets no password, where TLS is wanted."""
    ca, stranger = (str(certificates / f"{name}.pem") for name in ("ca", "stranger"))
    with kind.start(True):
        assert kind.cipher_of(kind.reach()) == ""
        assert kind.cipher_of(kind.reach(tls="required"))
        assert kind.cipher_of(kind.reach(tls="verify", ca=ca))
        for wrong in (kind.reach(tls="verify", ca=stranger), kind.reach(tls="verify")):
            refused(kind, wrong, "no TLS as database.tls wants it .*certificate")
        refused(kind, kind.reach(host="localhost", tls="verify", ca=ca), "no TLS as database.tls wants it .*localhost")
        own = {"cert": str(certificates / "client.pem"), "key": str(certificates / "client.key")}
        assert kind.cipher_of(kind.reach("c", tls="verify", ca=ca, **own))
        refused(kind, kind.reach("c", tls="verify", ca=ca), "certificate|user, password and grants")
        wrong_password = Database(Access((kind.url.format(user="u", host="127.0.0.1"),), "s3cret-no"))
        refused(kind, wrong_password, "check user, password and grants")
    with kind.start(False):
        assert kind.cipher_of(kind.reach()) == ""
        for settings in ({"tls": "required"}, {"tls": "verify", "ca": ca}):
            refused(kind, kind.reach(**settings), "no TLS as database.tls wants it")


def refused(kind: Kind, database: Database, words: str) -> None:
    """A connection is not made, and one line says why, without the password."""
    with pytest.raises(DatabaseError, match=words) as caught:
        kind.cipher_of(database)
    said = str(caught.value)
    assert said.isprintable()
    assert PASSWORD not in said


@pytest.mark.parametrize("url", ["mysql+pymysql://u@h/d", "postgresql+psycopg://u@h/d"])
@pytest.mark.parametrize(("key", "content"), [("ca", None), ("ca", "nonsense"), ("cert", None), ("cert", "nonsense")])
def test_a_file_for_tls_that_cannot_be_used_is_named(tmp_path: Path, url: str, key: str, content: str | None) -> None:
    """With its setting."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    settings = {key: str(file)} | ({"key": str(file)} if key == "cert" else {})
    with pytest.raises(ConfigError, match=rf"database\.tls_{key}.*{file}"):
        Database(Access((url,), tls="verify", **settings))
