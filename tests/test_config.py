"""The settings: every key of the shipped file, and one clear line for what cannot be used."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path

import pytest

from mcban.config import Config, load
from mcban.errors import ConfigError, NoPermissionError
from mcban.shipped import shipped

SHIPPED = shipped("etc") / "mcban.toml"

# What the file shows is an example there, not the default, since the default is of the machine, or nothing. That of a
# URL has a password, of which a warning follows.
EXAMPLES = {"filter_path", "ignoreip", "node", "database_url", "database_password_file", "warnings"}


def uncommented() -> str:
    """The shipped file with every setting switched on."""
    return re.sub(r"^#(?=[a-z_]+ = )", "", SHIPPED.read_text(), flags=re.MULTILINE)


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """A place for a file of settings."""
    return tmp_path / "mcban.toml"


def read(file: Path, text: str | bytes, **environment: str) -> Config:
    """The settings that `text` makes."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, environment)


def test_the_shipped_file_changes_nothing(write: Path) -> None:
    """As it is delivered it is the defaults."""
    assert load(SHIPPED, {}) == read(write, "")
    assert tomllib.loads(SHIPPED.read_text()) == {"log": {}, "database": {}, "firewall": {}, "engine": {}}


def test_every_setting_shown_is_one_and_shows_its_default(write: Path) -> None:
    """Uncommented, each is accepted; where a default is shown, it is the default."""
    shown, default = read(write, uncommented()), read(write.with_name("empty.toml"), "")
    for name in Config.__slots__:
        if name not in EXAMPLES:
            assert getattr(shown, name) == getattr(default, name), name
    assert shown.ignoreip == ("192.0.2.7", "198.51.100.0/24", "2001:db8::/48", "monitor.example.net")
    assert shown.database_url.startswith("mysql+pymysql://")


def test_every_setting_is_shown() -> None:
    """Nothing can be set that the file does not explain."""
    from mcban.config import _KEYS

    values = tomllib.loads(uncommented())
    dotted = {k for k, v in values.items() if not isinstance(v, dict)}
    dotted |= {f"{table}.{key}" for table, inner in values.items() if isinstance(inner, dict) for key in inner}
    assert dotted == set(_KEYS)


def test_the_defaults_are_those_of_the_interface(write: Path) -> None:
    """SQLite in the state directory, ipset, the host's own name."""
    config = read(write, "")
    assert config.url == "sqlite:////var/lib/mcban/mcban.sqlite"
    assert (config.firewall_backend, config.node) == ("ipset", socket.gethostname())
    assert config.filter_path[-1] == Path("/etc/fail2ban/filter.d")


def test_durations_may_be_written_in_words_or_seconds(write: Path) -> None:
    """As for commands: 5 is five seconds, "90d" ninety days."""
    assert read(write, "[engine]\nsync_interval = 5").sync_interval == 5
    assert read(write, '[engine]\nkeep_events = "90d"').keep_events == 90 * 86_400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ignore_ip = []", "there is no setting ignore_ip: did you mean ignoreip?"),
        ('[firewall]\nbackends = "ipset"', "there is no setting firewall.backends: did you mean firewall.backend?"),
        ("[engine]\nsync = 1", "there is no setting engine.sync"),
        ("[nothing.at.all]\nx = 1", "there is no setting nothing.at"),
        ("[log]\nlevel.x = 1", "log.level"),
        ("firewall = 1", "firewall holds settings of its own: write [firewall] and"),
        ("state_dir = 5", "state_dir: 5 is no text: put it in quotes"),
        ('state_dir = "relative"', "state_dir: 'relative' is not an absolute path"),
        ('state_dir = "/var/lib/a?b"', "state_dir: '?' and '%' cannot stand in it"),
        ("filter_path = 1", "filter_path: 1 is no list"),
        ('filter_path = ["/a", "b"]', "filter_path: 'b' is not an absolute path"),
        ('ignoreip = ["1.2.3.4/33"]', "ignoreip: '1.2.3.4/33' is no address, network or host name"),
        ('ignoreip = ["1.2.3"]', "ignoreip: '1.2.3' is no address"),
        ("ignoreip = [1]", "ignoreip: 1 is no text"),
        ('node = "a b"', "node: 'a b'"),
        (f'node = "{"x" * 151}"', "node: "),
        ('node = "\\u001b[31m"', "node: "),
        ("[log]\nlevel = 3", "log.level: 3 is none of debug, info, warning, error"),
        ("[log]\nlevel = []", "log.level: [] is none of"),
        ("[database]\nurl = []", "database.url: no URL is named"),
        ("[database]\nurl = [5]", "database.url: 5 is no text"),
        ('[database]\ntls = "on"', "database.tls: 'on' is none of off, required, verify"),
        ('[database]\ntls_ca = "/ca.pem"', "database.tls_ca means nothing while database.tls is off"),
        (
            '[database]\ntls = "verify"\ntls_key = "/key"',
            "database.tls_cert and database.tls_key are of no use without",
        ),
        ('[database]\npassword_file = "password"', "database.password_file: 'password' is not an absolute path"),
        ('[firewall]\nbackend = "iptables"', "firewall.backend: 'iptables' is none of ipset, nftables, memory"),
        ("[firewall]\nbackend = {}", "firewall.backend"),
        ("[firewall]\nmaxelem = 10", "firewall.maxelem: 10 is no whole number from 1024"),
        ("[firewall]\nmaxelem = true", "firewall.maxelem: True is no whole number"),
        ("[firewall]\nmaxelem = 1e6", "firewall.maxelem: 1000000.0 is no whole number"),
        ("[firewall]\nchains = []", "firewall.chains: no chain is named"),
        ('[firewall]\nchains = "INPUT"', "firewall.chains: 'INPUT' is no list"),
        ('[firewall]\nchains = ["IN PUT"]', "firewall.chains: 'IN PUT' is no name"),
        ('[firewall]\nchains = ["-j"]', "firewall.chains: '-j' is no name"),
        ('[engine]\nsync_interval = "1h"', "engine.sync_interval: '1h' is no duration from 1s to 8s: write"),
        ('[engine]\nsync_interval = "soon"', "engine.sync_interval: 'soon' is no duration"),
        ("[engine]\nsync_interval = true", "engine.sync_interval: True is no duration"),
        ("[engine]\npoll_interval = -1", "engine.poll_interval: -1 is no duration from 100ms to 5s: write"),
        ("[engine]\nkeep_bans = 0", "engine.keep_bans: 0 is no duration from 2mo to 100y: write"),
        ("[engine]\nkeep_events = -1", "engine.keep_events: -1 is no duration from 1d to 10y: write"),
        ('ignoreip = ["192.0.2.7", "0.0.0.0/0"]', "ignoreip: 0.0.0.0/0 is everybody: to ban nobody"),
        ('ignoreip = "::/0"', "ignoreip: ::/0 is everybody"),
        ('[firewall]\nchains = ["mcban"]', "firewall.chains: 'mcban' is the chain with our own rules"),
        ('node = "a"\nengine = 5', "engine holds settings of its own: write [engine] and"),
        ("[engine]\nread_new_logs = 1979-05-27", "engine.read_new_logs: "),
        ("x = ", "is no valid TOML"),
        ("x = 1\nx = 2", "is no valid TOML"),
        (b"\xff\xfe", "is no valid TOML"),
        ("\x1b[31m", "is no valid TOML"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_file_and_key(write: Path, text: str | bytes, words: str) -> None:
    """Exit status 78; an unknown key with the nearest that there is."""
    with pytest.raises(ConfigError) as caught:
        read(write, text)
    said = str(caught.value)
    assert caught.value.exit_status == 78
    assert words in said
    assert str(write) in said
    assert said.isprintable()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """By --config or by MCBAN_CONFIG; the default place may be empty."""
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml does not exist"):
        load(missing, {})
    with pytest.raises(ConfigError, match=r"missing\.toml does not exist"):
        load(None, {"MCBAN_CONFIG": str(missing)})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """One line, no traceback."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_a_file_that_may_not_be_read_is_told(write: Path) -> None:
    """Exit status 77. Root may read everything, so it is somebody else who tries."""
    write.touch(mode=0o000)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65_534)
            load(write, {})
        except NoPermissionError as error:
            status = error.exit_status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77


def test_the_environment_wins_over_the_file(write: Path) -> None:
    """Each of the interface's variables; an empty one is none."""
    text = 'state_dir = "/a"\nfilter_path = ["/a"]\n[database]\nurl = "sqlite:////a"\n[firewall]\nbackend = "ipset"'
    environment = {
        "MCBAN_STATE_DIR": "/b",
        "MCBAN_FILTER_PATH": "/b:/c",
        "MCBAN_DATABASE_URL": "sqlite:////b",
        "MCBAN_FIREWALL": "memory",
    }
    config = read(write, text, **environment)
    assert (config.state_dir, config.filter_path) == (Path("/b"), (Path("/b"), Path("/c")))
    assert (config.url, config.firewall_backend) == ("sqlite:////b", "memory")
    config = read(write, text, **dict.fromkeys(environment, ""))
    assert (config.state_dir, config.filter_path) == (Path("/a"), (Path("/a"),))
    assert (config.url, config.firewall_backend) == ("sqlite:////a", "ipset")
    other = write.with_name("other.toml")
    other.write_text('node = "other"')
    assert load(None, {"MCBAN_CONFIG": str(other)}).node == "other"
    assert load(write, {"MCBAN_CONFIG": str(other)}).node != "other"


def test_the_nodes_of_a_cluster_are_a_list(write: Path) -> None:
    """Or URLs with blanks between, in the environment; a blank in a path is none of them."""
    urls = ("mysql+pymysql://u@a/d", "mysql+pymysql://u@b/d")
    assert read(write, f"[database]\nurl = {list(urls)}").urls == urls
    assert read(write, "", MCBAN_DATABASE_URL=" \n ".join(urls)).urls == urls
    assert read(write, '[database]\nurl = "sqlite:////a b/c d"').urls == ("sqlite:////a b/c d",)
    assert read(write, "").urls == ("sqlite:////var/lib/mcban/mcban.sqlite",)


def test_the_password_stands_in_a_file_or_in_the_environment(write: Path) -> None:
    """The environment wins; without either, the URL has it. Nothing that shows the settings shows it."""
    file = write.with_name("password")
    file.write_text("s3cret \nnot this\n")
    file.chmod(0o640)
    text = f'[database]\npassword_file = "{file}"'
    assert read(write, text).read_password() == "s3cret "
    config = read(write, text, MCBAN_DATABASE_PASSWORD="other")
    assert config.read_password() == "other"
    assert "other" not in repr(config)
    assert read(write, "").read_password() is None


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"s3cret\n", 0o644, "may be read by everybody"),
        (b"s3cret\n", 0o604, "may be read by everybody"),
        (b"s3cret\n", 0o660, "or written by others"),
        (b"", 0o600, "has nothing in its first line"),
        (b"\ns3cret", 0o600, "has nothing in its first line"),
        (b"\xffs3cret", 0o600, "is no text in UTF-8"),
        (None, 0o600, "cannot be read: No such file"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_refused(
    write: Path, content: bytes | None, mode: int, words: str
) -> None:
    """One line that says why and what to do, and not what stands there."""
    file = write.with_name("password")
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=words) as caught:
        read(write, f'[database]\npassword_file = "{file}"').read_password()
    assert str(file) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_fault_in_the_environment_names_the_variable(write: Path) -> None:
    """Not the file, where it does not stand."""
    with pytest.raises(ConfigError, match=r"^MCBAN_FIREWALL: firewall.backend: 'x' is none of"):
        read(write, "", MCBAN_FIREWALL="x")


def test_a_state_directory_with_odd_characters_is_a_database(tmp_path: Path) -> None:
    """Its file is in that folder and in no other."""
    from mcban.store.database import Database

    folder = tmp_path / "a b #c@d:e"
    assert Database(Config(state_dir=folder).url).sqlite_file == str(folder / "mcban.sqlite")
