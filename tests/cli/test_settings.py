"""Settings and databases that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, complaint, is_clean
from tests.mariadb import Server


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = [", "is no valid TOML"),
        (b"\xff\xfe", "is no valid TOML"),
        ("stat_dir = '/x'", "there is no setting stat_dir: did you mean state_dir?"),
        ("[firewal]\nbackend = 'memory'", "did you mean firewall.backend?"),
        ('"\\u001b[31m" = 1', "\\x1b[31m"),
        ("node = 5", "node: 5 is no text"),
        ("ignoreip = ['not an address']", "is no address, network or host name"),
        ("ignoreip = [5]", "ignoreip"),
        ("[engine]\nsync_interval = '1y'", "engine.sync_interval: '1y' is no duration from 1s to 8s"),
        ("[engine]\npoll_interval = true", "engine.poll_interval"),
        ("[database]\nurl = 5", "database.url: 5 is no text"),
        ("[database]\nurl = 'nonsense'", "database.url"),
        ("[database]\nurl = 'mysql+nodriver://u:secret@h/d'", "database.url"),
        ("[database]\nurl = 'oracle://u:secret@h/d'", "database.url"),
        ("[database]\nurl = 'sqlite:///:memory:'", "database.url"),
        ("[log]\nlevel = 'loud'", "log.level: 'loud' is none of debug, info, warning, error"),
        ("[firewall]\nchains = []", "firewall.chains"),
        ("[firewall]\nmaxelem = 5", "firewall.maxelem"),
    ],
)
@pytest.mark.parametrize("command", ["banned", "status", "db upgrade", "run --once"])
def test_bad_settings_stop_every_command(bare: Terminal, command: str, text: str | bytes, why: str) -> None:
    """A broken file, an unknown key (with the nearest) or a wrong value is 78, with file and key."""
    bare.write("mcban.toml", text)
    assert why in bare.refuses(78, *command.split())
    assert "secret" not in bare.type(*command.split()).err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MCBAN_DATABASE_URL", "nonsense"),
        ("MCBAN_FIREWALL", "iptabls"),
        ("MCBAN_STATE_DIR", "relative"),
        ("MCBAN_FILTER_PATH", "relative"),
        ("MCBAN_CONFIG", "/nonexistent/mcban.toml"),
        ("MCBAN_CONFIG", "/"),
    ],
)
def test_bad_variables_stop_every_command(bare: Terminal, variable: str, value: str) -> None:
    """A variable that cannot be used is 78, and is named, or what it says is."""
    bare.env[variable] = value
    said = bare.refuses(78, "banned")
    assert variable in said or value in said or "database.url" in said


@pytest.mark.parametrize("name", ["/nonexistent", "a\x1b[31mb", "\udcff", "x" * 10_000, "/"])
def test_a_settings_file_that_is_not_there(bare: Terminal, name: str) -> None:
    """A file that --config names must be there and be a file."""
    bare.refuses(78, "--config", name, "status")


def test_the_settings_file_is_read(terminal: Terminal) -> None:
    """--config wins over MCBAN_CONFIG, and is read by every command."""
    file = terminal.write("other.toml", "ignoreip = ['203.0.113.0/24']\n")
    assert "ignoreip" in terminal.refuses(3, "--config", str(file), "ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")


NO_SERVER = ["mysql+pymysql://u:secret@127.0.0.1:1/d", "mysql+pymysql://u:secret@/d?unix_socket=/nonexistent/socket"]


@pytest.mark.parametrize("url", NO_SERVER)
def test_a_database_that_does_not_answer(bare: Terminal, url: str) -> None:
    """It is 69, at once, without the password; `status` answers all the same, and exits 1 as no engine runs."""
    bare.env["MCBAN_DATABASE_URL"] = url
    for command in ("banned", "ban -j mc-exim -i 203.0.113.7", "db upgrade", "db check", "run --once", "sync"):
        said = bare.refuses(69, *command.split())
        assert "secret" not in said
        assert "/d" in said
    document = bare.json("status", status=1)
    assert document["engine"] == {"running": False}
    assert "cannot be used" in document["database"]["error"]
    answer = bare.type("status")
    assert (answer.status, answer.err) == (1, "")
    assert "secret" not in answer.out
    assert bare.type("replay", "-j", "mc-exim", "/dev/null").status == 0


def test_a_server_that_refuses_the_password(bare: Terminal, mariadb: Server) -> None:
    """It is 69, and neither the password nor a traceback is shown."""
    bare.env["MCBAN_DATABASE_URL"] = f"mysql+pymysql://nobody:secret@localhost/d?unix_socket={mariadb.socket}"
    said = bare.refuses(69, "banned")
    assert "user, password and grants" in said
    assert "(error 1045: Access denied for user 'nobody'@'localhost'" in said
    assert "secret" not in said


@pytest.mark.parametrize("option", ["foo=1", "mode=ro", "uri=true"])
def test_an_option_that_sqlite_does_not_know(bare: Terminal, option: str) -> None:
    """It is 78 and one line, and no file is made."""
    bare.env["MCBAN_DATABASE_URL"] = f"sqlite:///{bare.folder}/there.sqlite?{option}"
    said = complaint(bare.process("db", "upgrade"), 78)
    assert f"SQLite has no option {option.partition('=')[0]} here" in said
    assert not list(bare.folder.glob("there*"))


def test_a_password_that_everybody_may_read(terminal: Terminal) -> None:
    """Each command that reads the settings says so once, with what to do; not when the file is closed, nor when there
    is no password in it. The command does its work."""
    url = f"sqlite:///{terminal.database}"
    file = terminal.write("mcban.toml", f"[database]\nurl = '{url}'\n")
    file.chmod(0o644)
    assert terminal.process("jail", "list").err == ""
    file.write_text("[database]\nurl = 'mysql+pymysql://u:s3cret@localhost/d'\n")
    terminal.env["MCBAN_DATABASE_URL"] = url  # the password is there all the same
    for command in ("jail list", "filter list", "status"):
        said = terminal.process(*command.split()).err
        assert said == f"mcban: {file} holds a password and may be read by everybody (mode 0644): run chmod o= {file}\n"
    file.chmod(0o640)
    assert terminal.process("jail", "list").err == ""
    other = terminal.write("a folder/mcban.toml", file.read_text())
    other.chmod(0o644)
    assert terminal.process("--config", str(other), "jail", "list").err.endswith(f": run chmod o= '{other}'\n")


def test_an_empty_server_wants_a_schema(bare: Terminal, empty_mariadb: str) -> None:
    """A MariaDB database without schema is 78 until `db upgrade`, which says what it did, and then that it is so."""
    bare.env["MCBAN_DATABASE_URL"] = empty_mariadb
    assert "mcban db upgrade" in bare.refuses(78, "banned")
    assert bare.does("db", "upgrade")[0].endswith("brought to schema 0001")
    assert bare.does("db", "upgrade")[0].endswith("has schema 0001 already")
    assert bare.json("db", "check")["schema"] == "0001"
    assert bare.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    assert bare.json("banned")[0]["ip"] == "203.0.113.7"


def test_before_the_first_upgrade(bare: Terminal) -> None:
    """Without a database every command but `db upgrade` says to run it, and makes no file; `status` answers."""
    for command in ("banned", "ban -j mc-exim -i 203.0.113.7", "db check", "jail list", "sync --check", "show 1.2.3.4"):
        assert "mcban db upgrade" in bare.refuses(78, *command.split())
    assert not bare.database.parent.exists()
    assert "mcban db upgrade" in bare.json("status", status=1)["database"]["error"]
    assert bare.does("db", "upgrade")
    assert bare.does("banned") == ["nobody is banned"]


@pytest.mark.parametrize(("version", "word"), [("0000", "ahead"), ("9999", "ahead")])
def test_a_schema_of_another_version(terminal: Terminal, version: str, word: str) -> None:
    """A schema that this version does not know is 78, says which it is, and is left alone by `db upgrade`."""
    terminal.sql("UPDATE alembic_version SET version_num = ?", version)
    terminal.sql("UPDATE mcban_turn SET oldest_schema = ?", version)
    for command in ("banned", "db check", "db upgrade", "run --once", "ban -j mc-exim -i 203.0.113.7"):
        said = terminal.refuses(78, *command.split())
        assert word in said
        assert version in said
    assert word in terminal.json("status", status=1)["database"]["error"]


def test_a_database_without_a_version(terminal: Terminal) -> None:
    """Tables without alembic's version are no schema."""
    terminal.sql("DROP TABLE alembic_version")
    assert "mcban db upgrade" in terminal.refuses(78, "banned")


def test_a_file_that_is_no_database(terminal: Terminal) -> None:
    """It is bad data, for `db upgrade` too, and is not written to."""
    terminal.database.write_text("These are my notes.\n" * 1_000)
    for command in ("banned", "db upgrade", "run --once"):
        assert "is no SQLite database" in terminal.refuses(65, *command.split())
    assert "is no SQLite database" in terminal.json("status", status=1)["database"]["error"]
    assert terminal.database.read_text() == "These are my notes.\n" * 1_000


def test_a_state_directory_that_cannot_be_made(bare: Terminal) -> None:
    """Where there can be no folder, `db upgrade` says so."""
    bare.write("file", "")
    bare.env["MCBAN_STATE_DIR"] = str(bare.folder / "file/state")
    assert "cannot be made" in bare.refuses(69, "db", "upgrade")


NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
class TestPermissions:
    """What may not be read or written is 77, and is named."""

    @pytest.fixture
    def tmp_path(self, open_folder: Path) -> Path:
        """Where the terminal is."""
        return open_folder

    def refuses(self, terminal: Terminal, *typed: str) -> str:
        """The one line that nobody gets."""
        return complaint(terminal.process(*typed, before=NOBODY), 77)

    def test_a_state_directory_of_somebody_else(self, terminal: Terminal) -> None:
        """Commands are refused; `status` tells what it may, and exits 77 since it cannot know about the engine."""
        terminal.database.parent.chmod(0o700)
        assert str(terminal.database) in self.refuses(terminal, "banned")
        assert "MCBAN_STATE_DIR" in self.refuses(terminal, "db", "upgrade")
        answer = terminal.process("status", "--json", before=NOBODY)
        assert answer.status == 77
        assert answer.document["engine"]["running"] is None
        assert answer.err.startswith("mcban: no permission to look into")
        people = terminal.process("status", before=NOBODY)
        assert people.lines[0] == "engine    not known"
        assert is_clean(people.out)

    def test_a_database_that_is_read_only(self, terminal: Terminal) -> None:
        """A database that may be read only is refused before anything is tried."""
        terminal.database.parent.chmod(0o755)
        terminal.database.chmod(0o644)
        assert "no permission to write" in self.refuses(terminal, "ban", "-j", "mc-exim", "-i", "203.0.113.7")
        answer = terminal.process("status", before=NOBODY)
        assert (answer.status, answer.err) == (1, "")
        assert "no permission to write" in answer.out

    def test_a_log_of_somebody_else(self, terminal: Terminal) -> None:
        """A log that may not be read is named."""
        log = terminal.write("secret.log", "")
        log.chmod(0o600)
        assert str(log) in self.refuses(terminal, "filter", "test", "mc-exim-filter", str(log))

    def test_a_filter_of_somebody_else(self, terminal: Terminal) -> None:
        """A filter that may not be read is named, as a log is."""
        file = terminal.write("secret.conf", "[Definition]\nfailregex = ^ x <HOST>$\n")
        file.chmod(0o600)
        assert str(file) in self.refuses(terminal, "filter", "test", str(file), "/dev/null")

    def test_settings_of_somebody_else(self, terminal: Terminal) -> None:
        """Settings that may not be read are named."""
        (terminal.folder / "mcban.toml").chmod(0o600)
        assert "mcban.toml" in self.refuses(terminal, "banned")

    def test_no_place_for_a_state_directory(self, bare: Terminal) -> None:
        """Where nobody may write, `db upgrade` says what to set."""
        assert "MCBAN_STATE_DIR" in self.refuses(bare, "db", "upgrade")
