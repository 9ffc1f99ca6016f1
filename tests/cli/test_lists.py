"""`whitelist`, `blacklist` and `general`, as they are typed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.terminal import Terminal, short
from tests.patience import PATIENCE


def test_the_whitelist_lifts_and_protects(terminal: Terminal) -> None:
    """`whitelist add` lifts what it covers and says so; `remove` brings no ban back."""
    terminal.does("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    said = terminal.does("whitelist", "add", "-i", "203.0.113.0/24")
    assert said[0] == "203.0.113.0/24 allowed everywhere"
    assert len([line for line in said if " lifted in mc-exim-1" in line]) == 4
    assert terminal.json("banned") == []
    assert terminal.json("whitelist", "list") == [{"ip": "203.0.113.0/24", "jail": "*", "host": _node(terminal)}]
    assert terminal.does("whitelist", "list")[1].split() == ["203.0.113.0/24", "everywhere"]
    terminal.does("whitelist", "remove", "-i", "203.0.113.0/24")
    assert terminal.json("whitelist", "list") == []
    assert terminal.does("whitelist", "list") == ["nobody is whitelisted"]
    assert terminal.json("banned") == []


def _node(terminal: Terminal) -> str:
    host: str = terminal.sql("SELECT host FROM fail2ban_ips WHERE whitelisted = 1")[0][0]
    return host


@pytest.mark.parametrize("scope", [[], ["-j", "mc-exim"], ["-j", "mc-exim-1d"], ["-j", "mc-exim-bl"]])
@pytest.mark.parametrize("command", ["add", "remove"])
def test_allowing_again_changes_nothing(terminal: Terminal, scope: list[str], command: str) -> None:
    """Allowing what is allowed, or no longer allowing what is not, says so and exits 0."""
    terminal.does("whitelist", "add", *scope, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    if command == "remove":
        terminal.does("whitelist", "remove", *scope, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    before = terminal.dump()
    said = terminal.does("whitelist", command, *scope, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    assert terminal.dump() == before
    assert all(" already" in line or " not allowed" in line for line in said)


def test_a_jail_has_a_whitelist_of_its_own(terminal: Terminal) -> None:
    """`-j` allows in one group or jail only; `whitelist list -j` shows what counts there."""
    terminal.does("whitelist", "add", "-j", "mc-exim", "-i", "203.0.113.7")
    terminal.does("whitelist", "add", "-j", "mc-ssh-1d", "-i", "198.51.100.7")
    terminal.does("whitelist", "add", "-i", "192.0.2.77")
    assert [row["ip"] for row in terminal.json("whitelist", "list", "-j", "mc-exim")] == ["203.0.113.7", "192.0.2.77"]
    assert [row["ip"] for row in terminal.json("whitelist", "list", "-j", "mc-ssh-1d")] == [
        "198.51.100.7",
        "192.0.2.77",
    ]
    assert terminal.does("ban", "-j", "mc-ssh-1d", "-i", "203.0.113.7")
    terminal.refuses(3, "ban", "-j", "mc-exim-1w", "-i", "203.0.113.7")


def test_a_name_may_be_allowed(terminal: Terminal) -> None:
    """A DNS name is taken, also one that has no address now, which is said."""
    said = terminal.does("whitelist", "add", "-i", "LocalHost", "-i", "nobody.invalid.")
    assert said[0] == "localhost allowed everywhere"
    assert "no address" in said[-1]
    assert [row["ip"] for row in terminal.json("whitelist", "list")] == ["localhost", "nobody.invalid"]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "-",
        "a b",
        "*",
        "foo..bar",
        "1.2.3",
        "0177.0.0.1",
        "fe80::1%eth0",
        "exämple.org",
        "-foo.example",
        "x" * 10000,
        "\udcff",
        "\x1b[31m",
        "203.0.113.7/33",
        "a/24",
        "\x00",
        "1.2.3.4.5",
    ],
    ids=short,
)
@pytest.mark.parametrize("command", ["add", "remove"])
def test_what_is_neither_address_nor_name_is_not_allowed(terminal: Terminal, command: str, given: str) -> None:
    """Anything else is wrong usage, and nothing before it is allowed either."""
    terminal.refuses(2, "whitelist", command, "-i", "203.0.113.7", "-i", given)


@pytest.mark.parametrize("given", ["0.0.0.0/0", "::/0"])
def test_everybody_is_never_allowed(terminal: Terminal, given: str) -> None:
    """To ban nobody there is another command, which the message names."""
    assert "mcban general disable" in terminal.refuses(3, "whitelist", "add", "-i", given)


@pytest.mark.parametrize("command", ["add -i 203.0.113.7", "remove -i 203.0.113.7", "list"])
@pytest.mark.parametrize("noun", ["whitelist", "blacklist"])
def test_a_list_of_an_unknown_jail(terminal: Terminal, noun: str, command: str) -> None:
    """An unknown jail is wrong usage, with the nearest name."""
    assert "mc-exim?" in terminal.refuses(2, noun, *command.split(), "-j", "mc-exmi")


@pytest.mark.parametrize("command", ["whitelist add", "whitelist remove", "blacklist add -j mc-exim"])
def test_an_address_must_be_named(terminal: Terminal, command: str) -> None:
    """Without -i nothing is guessed."""
    assert "-i" in terminal.refuses(2, *command.split())


@pytest.mark.parametrize("jail", ["mc-exim", "mc-exim-1d", "mc-exim-bl"])
def test_the_blacklist_is_for_ever(terminal: Terminal, jail: str) -> None:
    """`blacklist add` bans in the group's blacklist, whichever jail of the group is named; twice changes nothing."""
    assert terminal.does("blacklist", "add", "-j", jail, "-i", "203.0.113.7") == [
        "203.0.113.7 banned in mc-exim-bl for ever"
    ]
    before = terminal.dump()
    assert "already" in terminal.does("blacklist", "add", "-j", jail, "-i", "203.0.113.7")[0]
    assert terminal.dump() == before
    (row,) = terminal.json("blacklist", "list", "-j", jail)
    assert (row["ip"], row["jail"], row["reason"]) == ("203.0.113.7", "mc-exim-bl", "by hand")
    assert terminal.json("blacklist", "list") == [row]
    assert terminal.json("blacklist", "list", "-j", "mc-ssh") == []
    assert terminal.json("show", "203.0.113.7")["jails"][0]["blacklisted"] is True


def test_leaving_the_blacklist_starts_from_zero(terminal: Terminal) -> None:
    """`blacklist remove` lifts, and sets the count of bans to 0 in the whole group; twice changes nothing."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    terminal.does("blacklist", "add", "-j", "mc-exim", "-i", "203.0.113.7")
    said = terminal.does("blacklist", "remove", "-j", "mc-exim", "-i", "203.0.113.7")
    assert "203.0.113.7 lifted in mc-exim-bl" in said
    assert {jail["count"] for jail in terminal.json("show", "203.0.113.7")["jails"]} == {0}
    before = terminal.dump()
    assert terminal.does("blacklist", "remove", "-j", "mc-exim", "-i", "203.0.113.7")
    assert terminal.dump() == before


def test_the_fourth_ban_is_the_last(terminal: Terminal) -> None:
    """With max_count 3 the fourth ban by hand goes to the blacklist, and the line says why."""
    for _ in range(3):
        terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
        terminal.does("unban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    assert "banned in mc-exim-bl for ever" in terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")[0]


def test_the_blacklist_can_be_switched(terminal: Terminal) -> None:
    """`disable` keeps the rows and stops promotion, `enable -v N` sets how many bans lead there; again: already."""
    terminal.does("blacklist", "add", "-j", "mc-exim", "-i", "203.0.113.7")
    assert terminal.does("blacklist", "disable", "-j", "mc-exim") == ["mc-exim-bl disabled"]
    assert terminal.does("blacklist", "disable", "-j", "mc-exim") == ["mc-exim-bl is disabled already"]
    assert terminal.json("banned")[0]["held_back"] == "mc-exim-bl is disabled"
    assert "mc-exim-bl enabled" in terminal.does("blacklist", "enable", "-j", "mc-exim", "-v", "5")
    assert terminal.does("blacklist", "enable", "-j", "mc-exim", "-v", "5") == ["mc-exim-bl is enabled already"]
    assert terminal.json("banned")[0]["held_back"] is None
    assert {jail["max_count"] for jail in terminal.json("jail", "show", "-j", "mc-exim-1d")} == {5}


@pytest.mark.parametrize("value", ["0", "-5", "x", "", "99999999999999999999", "1.5"])
def test_a_blacklist_wants_a_number_of_bans(terminal: Terminal, value: str) -> None:
    """What is no number of bans is wrong usage."""
    terminal.refuses(2, "blacklist", "enable", "-j", "mc-exim", "-v", value)
    terminal.refuses(2, "general", "enable-bl", "-v", value)


def test_everything_can_be_switched_at_once(terminal: Terminal) -> None:
    """`general disable` and `enable` switch every jail, and say so for each; again: already."""
    assert len(terminal.does("general", "disable")) == 15
    before = terminal.dump()
    assert all(line.endswith(" is disabled already") for line in terminal.does("general", "disable"))
    assert terminal.dump() == before
    assert {jail["enabled"] for jail in terminal.json("jail", "list")} == {False}
    assert len(terminal.does("general", "enable")) == 15
    assert {jail["enabled"] for jail in terminal.json("jail", "list")} == {True}


def test_all_blacklists_can_be_switched_at_once(terminal: Terminal) -> None:
    """`general disable-bl` and `enable-bl -v N` do to every group what `blacklist` does to one."""
    assert [line.split()[0] for line in terminal.does("general", "disable-bl")] == [
        "mc-ssh-bl", "mc-exim-bl", "mc-webauth-bl",
    ]  # fmt: skip
    terminal.does("general", "enable-bl", "-v", "4")
    tiers = [jail for jail in terminal.json("jail", "list") if jail["kind"] == "tier"]
    assert {jail["max_count"] for jail in tiers} == {4}
    before = terminal.dump()
    assert all("already" in line for line in terminal.does("general", "enable-bl", "-v", "4"))
    assert terminal.dump() == before


@pytest.mark.parametrize("junk", ["..", "x" * 100, "a" * 64 + ".example", "ä" * 70, ".", "-", "\x1b[31m"], ids=short)
def test_junk_in_the_whitelist_stops_nothing(terminal: Terminal, junk: str) -> None:
    """A row of plain SQL that allows what is neither address nor name is shown, and all else goes on."""
    terminal.sql("INSERT INTO fail2ban_ips (ip, jail, host, count, whitelisted) VALUES (?, 'mc-exim', 'x', 0, 1)", junk)
    assert terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    assert [ban["ip"] for ban in terminal.json("banned")] == ["203.0.113.7"]
    assert [row["ip"] for row in terminal.json("whitelist", "list")] == [junk]


def test_a_name_server_that_is_silent_delays_no_command_for_long(terminal: Terminal) -> None:
    """Names that nobody answers for are waited for together, once, and not at the end of the command."""
    for name in ("a.example", "b.example", "c.example", "d.example"):
        terminal.sql("INSERT INTO fail2ban_ips (ip, jail, host, count, whitelisted) VALUES (?, '*', 'x', 0, 1)", name)
    silent = "import socket, time; socket.getaddrinfo = lambda *_, **__: time.sleep(600)"
    code = f"{silent}; from mcban.cli.main import main; main(['banned'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=terminal.env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "nobody is banned\n", "")
