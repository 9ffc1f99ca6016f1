"""Help, and what it costs to ask for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from mcban.cli.main import COMMANDS, cli
from tests.cli.terminal import Terminal, complaint


def tree(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and subcommand, with what is typed for it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from tree(inner, (*path, name))


EVERY = dict(tree(cli))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_everywhere(bare: Terminal, path: tuple[str, ...], option: str) -> None:
    """-h and --help explain every command, on standard output, before any setting or database is looked at."""
    bare.env["MCBAN_DATABASE_URL"] = "nonsense"
    answer = bare.type(*path, option)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: {' '.join(('mcban', *path))}")


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_everything_has_a_help_text(path: tuple[str, ...]) -> None:
    """No command and no option is left unexplained."""
    command = EVERY[path]
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_the_overview_says_what_the_commands_say() -> None:
    """`mcban --help` has a summary for each command, which is no longer than a line of 80 columns holds."""
    for name, (_, summary) in COMMANDS.items():
        first_line = (EVERY[(name,)].help or "").partition("\n")[0]
        assert first_line.startswith(summary), name
        assert len(summary) <= 60


@pytest.mark.parametrize("path", [path for path, of in EVERY.items() if isinstance(of, click.Group)], ids=" ".join)
def test_help_fits_a_terminal(bare: Terminal, path: tuple[str, ...]) -> None:
    """On 80 columns no line of help is wider, and no command's summary is cut off."""
    bare.env["COLUMNS"] = "80"
    shown = bare.does(*path, "--help")
    assert all(len(line) <= 80 for line in shown)
    assert not [line for line in shown[1:] if line.endswith("...")]


def test_the_interface_is_there() -> None:
    """Every command that the interface names exists."""
    nouns = {
        "whitelist": ["add", "remove", "list"],
        "blacklist": ["add", "remove", "list", "enable", "disable"],
        "jail": ["list", "show", "add", "change", "enable", "disable", "remove", "reload"],
        "general": ["enable", "disable", "enable-bl", "disable-bl"],
        "filter": ["list", "show", "test"],
        "db": ["upgrade", "adopt", "check"],
    }
    for noun, verbs in nouns.items():
        assert [path[1] for path in EVERY if path[:1] == (noun,) and len(path) == 2] == verbs, noun
    for verb in ("run", "replay", "status", "show", "banned", "ban", "unban", "sync", "import", "export"):
        assert (verb,) in EVERY


SHOWS = [
    "status",
    "show",
    "banned",
    "sync",
    "replay",
    "export",
    "db check",
    "filter list",
    "filter show",
    "filter test",
]
SHOWS += ["whitelist list", "blacklist list", "jail list", "jail show"]


@pytest.mark.parametrize("command", SHOWS)
def test_what_shows_something_takes_json(command: str) -> None:
    """Every command that shows something takes --json."""
    assert "--json" in [word for option in EVERY[tuple(command.split())].params for word in option.opts]


@pytest.mark.parametrize("typed", [(), ("jail",), ("whitelist",), ("db",)])
def test_a_command_half_typed_shows_what_there_is(bare: Terminal, typed: tuple[str, ...]) -> None:
    """A noun without its verb is wrong usage, and shows the verbs."""
    answer = bare.type(*typed)
    assert (answer.status, answer.out) == (2, "")
    assert "Commands:" in answer.err


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        (("bann",), "did you mean ban or banned?"),
        (("Status",), "did you mean status?"),
        (("jail", "lst"), "did you mean list?"),
        (("db", "upgrad"), "did you mean upgrade?"),
        (("xyzzy",), "there are run, replay, status"),
        (("",), "there are run"),
    ],
)
def test_an_unknown_command_names_the_nearest(bare: Terminal, typed: tuple[str, ...], near: str) -> None:
    """A slip of the keyboard is answered with what was probably meant."""
    assert near in bare.refuses(2, *typed)


def test_the_version_is_told(bare: Terminal) -> None:
    """`mcban --version` names program and version."""
    assert bare.does("--version")[0].startswith("mcban, version ")


@pytest.mark.parametrize(
    ("typed", "spared"),
    [
        (["--help"], {"sqlalchemy", "pyroute2", "alembic", "pymysql", "mcban.filters", "mcban.wiring"}),
        (["--version"], {"sqlalchemy", "pyroute2", "alembic", "pymysql", "mcban.filters", "mcban.wiring"}),
        (["filter", "list"], {"sqlalchemy", "pyroute2", "alembic", "pymysql"}),
        (["filter", "test", "mc-exim-filter", "/dev/null"], {"sqlalchemy", "pyroute2", "alembic", "pymysql"}),
        (["status"], {"pyroute2", "alembic", "pymysql", "mcban.daemon.engine"}),
        (["banned"], {"pyroute2", "alembic", "pymysql", "mcban.daemon"}),
        (["whitelist", "list"], {"pyroute2", "alembic", "pymysql", "mcban.daemon"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_pays_for_what_it_needs_only(terminal: Terminal, typed: list[str], spared: set[str]) -> None:
    """What a command has no use for is not imported: a start costs what the command does, with ipset as well."""
    terminal.env["MCBAN_FIREWALL"] = "ipset"
    script = (
        "import sys, mcban.cli.main as m\n"
        f"try: m.main({typed!r})\n"
        f"except SystemExit: print(sorted({spared!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=terminal.env, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_an_option_that_is_missing_is_named(terminal: Terminal) -> None:
    """Wrong usage names what is missing and where help is."""
    assert terminal.refuses(2, "ban", "-j", "mc-exim") == "mcban: missing option '-i' / '--ip' (see mcban ban --help)\n"
    assert "no such option" in complaint(terminal.type("banned", "--jsn"), 2)
