"""`ban`, `unban`, `banned` and `show`, as they are typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.terminal import Terminal, short

TIERS = ["mc-exim-1d", "mc-exim-1w", "mc-exim-1m", "mc-exim-1y"]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_a_group_means_all_of_its_tiers(terminal: Terminal) -> None:
    """`ban -j GROUP` bans in every tier, for each tier's own time, and says so line by line."""
    said = terminal.does("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    assert [line.split()[:4] for line in said] == [["203.0.113.7", "banned", "in", tier] for tier in TIERS]
    assert [ban["jail"] for ban in terminal.json("banned")] == TIERS


def test_several_addresses_and_networks_in_one_command(terminal: Terminal) -> None:
    """-i may be given more than once, with networks; what is said twice is done once; host bits do not matter."""
    given = ["203.0.113.7", "2001:DB8::0:1", "198.51.100.77/24", "203.0.113.7", "::ffff:192.0.2.99"]
    terminal.does("ban", "-j", "mc-ssh-1d", *(word for ip in given for word in ("-i", ip)))
    banned = [ban["ip"] for ban in terminal.json("banned")]
    assert banned == ["203.0.113.7", "2001:db8::1", "198.51.100.0/24", "192.0.2.99"]


@pytest.mark.parametrize("jail", ["mc-exim", "mc-exim-1w", "mc-exim-bl", "mine"])
@pytest.mark.parametrize("command", ["ban", "unban"])
def test_doing_it_again_changes_nothing(terminal: Terminal, jail: str, command: str) -> None:
    """For a group, a tier, a blacklist and a custom jail, asking again for what already is says so and exits 0."""
    terminal.does("jail", "add", "-j", "mine", "--filter", "mc-exim-filter", "--logpath", "/x", "--port", "25")
    terminal.does("ban", "-j", jail, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    if command == "unban":
        terminal.does("unban", "-j", jail, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    before = terminal.dump()
    again = terminal.does(command, "-j", jail, "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    assert terminal.dump() == before
    assert all(" already" in line or "is not banned" in line for line in again)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("3600", 3_600),
        ("90s", 90),
        ("15m", 900),
        ("3h", 10_800),
        ("1d", 86_400),
        ("1w", 604_800),
        ("180d", 15_552_000),
        ("1mo", 2_592_000),
        ("1y", 31_536_000),
        ("1Y", 31_536_000),
    ],
)
def test_a_ban_lasts_as_long_as_is_said(terminal: Terminal, given: str, seconds: int) -> None:
    """--for takes every duration of the interface."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", "--for", given)
    (ban,) = terminal.json("banned")
    since, until = (datetime.fromisoformat(ban[key]) for key in ("since", "until"))
    assert until - since == timedelta(seconds=seconds)


def test_a_ban_may_be_for_ever(terminal: Terminal) -> None:
    """`--for -1` has no end, in any jail."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", "--for", "-1")
    assert terminal.json("banned")[0]["until"] is None
    assert "for ever" in terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", "--for", "-1")[0]
    assert terminal.does("banned")[1].split()[:3] == ["203.0.113.7", "mc-exim-1d", "never"]


@pytest.mark.parametrize(
    "given",
    ["0", "1000y", "-2", "", "x", "1.5d", "1 d", "\u0663d", "9" * 400, "-1d", "1d1h", "infinity", "1e3"],
    ids=short,
)
def test_a_time_that_is_none_bans_nobody(terminal: Terminal, given: str) -> None:
    """A duration that cannot be meant is wrong usage; the message shows how to write one."""
    assert "--for" in terminal.refuses(2, "ban", "-j", "mc-exim-1d", "-i", "203.0.113.7", "--for", given)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "300.1.1.1",
        "0177.0.0.1",
        "127.1",
        "1",
        "0x7f.1",
        "fe80::1%eth0",
        "fe80::1%eth0/64",
        "203.0.113.\u0663",
        "\uff12\uff10\uff13.0.113.3",
        "203.0.113.7 ",
        "203.0.113.7\n",
        "203.0.113.7/33",
        "203.0.113.7/-1",
        "203.0.113.7/",
        "/24",
        "203.0.113.7/255.255.255.0",
        "203.0.113.0/\u0662\u0664",
        "203.0.113.0/0x10",
        "x" * 10000,
        "\x1b[31mred",
        "-1",
        "a.example",
        "\udcff\udcfe",
        "203.0.113.7;id",
        "203.0.113.7,203.0.113.8",
        "2001:db8::/129",
        ":::",
        "1::2::3",
        "\x00",
        "*",
    ],
    ids=short,
)
@pytest.mark.parametrize("command", ["ban", "unban", "blacklist add"])
def test_what_is_no_address_bans_nobody(terminal: Terminal, command: str, given: str) -> None:
    """A bad address is wrong usage, whatever stands before it in the same command."""
    terminal.refuses(2, *command.split(), "-j", "mc-exim", "-i", "198.51.100.7", "-i", given)


@pytest.mark.parametrize("given", ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "198.51.100.7/0"])
@pytest.mark.parametrize("command", ["ban", "blacklist add"])
def test_everybody_is_never_banned(terminal: Terminal, command: str, given: str) -> None:
    """The whole Internet is refused, also with --yes and --force."""
    typed = (*command.split(), "-j", "mc-exim-1d" if command == "ban" else "mc-exim", "-i", "198.51.100.7", "-i", given)
    assert "everybody" in terminal.refuses(3, *typed)
    assert "everybody" in terminal.refuses(3, *typed, "--yes", "--force")


@pytest.mark.parametrize("network", ["10.0.0.0/8", "172.16.0.0/15", "2001:db8::/31"])
def test_a_wide_network_wants_a_yes(terminal: Terminal, network: str) -> None:
    """A network wider than /16 or /32 is refused until --yes is said."""
    typed = ("ban", "-j", "mc-exim-1d", "-i", network)
    assert "--yes" in terminal.refuses(3, *typed)
    assert terminal.does(*typed, "--yes")


@pytest.mark.parametrize("network", ["10.1.0.0/16", "2001:db8::/32"])
def test_a_network_that_is_not_wide_wants_none(terminal: Terminal, network: str) -> None:
    """/16 and /32 themselves are banned as they are asked for."""
    assert terminal.does("ban", "-j", "mc-exim-1d", "-i", network)


@pytest.mark.parametrize("given", ["127.0.0.1", "::1", "127.0.0.0/16"])
def test_the_host_itself_is_protected(terminal: Terminal, given: str) -> None:
    """Loopback is refused unless forced, alone or as part of a network."""
    typed = ("ban", "-j", "mc-exim-1d", "-i", given)
    assert "--force" in terminal.refuses(3, *typed)
    assert terminal.does(*typed, "--force")


def test_a_whitelisted_address_is_refused_even_by_force(terminal: Terminal) -> None:
    """An allowance wins: its list has to be changed first, and the message says so."""
    terminal.does("whitelist", "add", "-j", "mc-exim", "-i", "203.0.113.7")
    for entry in ("203.0.113.7", "203.0.113.0/24"):
        assert "whitelisted" in terminal.refuses(3, "ban", "-j", "mc-exim-1d", "-i", entry)
        assert "whitelisted" in terminal.refuses(3, "ban", "-j", "mc-exim-1d", "-i", entry, "--force")
    assert terminal.does("ban", "-j", "mc-ssh-1d", "-i", "203.0.113.7")


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("mc-exmi", "mc-exim"),
        ("mc-exim-2d", "mc-exim"),
        ("mc-exim;drop", "mc-exim"),
        ("", "there are mc-ssh, mc-exim, mc-webauth"),
        ("x" * 10_000, "there are mc-ssh"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\udcff", "\\udcff"),
        ("\0", "NUL"),
    ],
)
@pytest.mark.parametrize("command", ["ban -i 203.0.113.7 -j", "unban -i 203.0.113.7 -j", "banned -j", "status -j"])
def test_an_unknown_jail_names_the_nearest(terminal: Terminal, command: str, given: str, near: str) -> None:
    """A jail that there is not is wrong usage, answered with the name that is nearest, or with those that there are."""
    assert near in terminal.refuses(2, *command.split(), given)


def test_banned_answers_in_the_shape_of_the_interface(terminal: Terminal) -> None:
    """`banned --json` has ip, jail, since, until, count and host for each ban, times in RFC 3339 UTC."""
    assert terminal.json("banned") == []
    assert terminal.does("banned") == ["nobody is banned"]
    before = datetime.now(UTC).replace(microsecond=0)
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    terminal.does("blacklist", "add", "-j", "mc-exim", "-i", "2001:db8::7")
    timed, for_ever = terminal.json("banned")
    assert timed.keys() >= {"ip", "jail", "since", "until", "count", "host"}
    assert (timed["ip"], timed["jail"], timed["count"]) == ("203.0.113.7", "mc-exim-1d", 1)
    assert RFC3339.fullmatch(timed["since"])
    assert before <= datetime.fromisoformat(timed["since"]) <= datetime.now(UTC)
    assert (for_ever["ip"], for_ever["jail"], for_ever["until"]) == ("2001:db8::7", "mc-exim-bl", None)
    assert terminal.json("banned", "-j", "mc-exim-bl") == [for_ever]
    assert terminal.json("banned", "-j", "mc-exim") == [timed, for_ever]
    assert terminal.json("banned", "-j", "mc-ssh") == []


def test_unban_forgets_hits_and_keeps_the_count(terminal: Terminal) -> None:
    """After `unban` the address is banned nowhere; how often it was banned is still known."""
    terminal.does("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    terminal.does("ban", "-j", "mc-ssh-1d", "-i", "203.0.113.7")
    assert len(terminal.does("unban", "-j", "mc-exim", "-i", "203.0.113.7")) == 4
    assert [ban["jail"] for ban in terminal.json("banned")] == ["mc-ssh-1d"]
    assert terminal.does("unban", "-i", "203.0.113.7") == ["203.0.113.7 lifted in mc-ssh-1d"]
    jails = terminal.json("show", "203.0.113.7")["jails"]
    assert {jail["jail"]: (jail["banned"], jail["count"]) for jail in jails} == dict.fromkeys(
        [*TIERS, "mc-ssh-1d"], (False, 1)
    )


def test_unban_tells_of_a_network_that_still_holds_the_address(terminal: Terminal) -> None:
    """When a banned network covers it, `unban` says which one, and exits 1."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.0/24")
    answer = terminal.type("unban", "-j", "mc-exim", "-i", "203.0.113.7")
    assert answer.status == 1
    assert "203.0.113.0/24" in answer.err
    assert answer.err.startswith("mcban: ")
    view = terminal.json("show", "203.0.113.7")
    assert [(jail["banned"], jail["entry"]) for jail in view["jails"]] == [(True, "203.0.113.0/24")]


def test_show_answers_in_the_shape_of_the_interface(terminal: Terminal) -> None:
    """`show --json` has ip, allowed and for each jail hits, maxretry, banned, since, until, count, blacklisted and
    enforced."""
    unknown = terminal.json("show", "203.0.113.7")
    assert (unknown["ip"], unknown["allowed"], unknown["jails"]) == ("203.0.113.7", False, [])
    assert terminal.does("show", "203.0.113.7") == ["nothing is known of 203.0.113.7"]
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    (jail,) = terminal.json("show", "203.0.113.7")["jails"]
    keys = {"jail", "hits", "maxretry", "banned", "since", "until", "count", "blacklisted", "enforced"}
    assert jail.keys() >= keys
    assert (jail["jail"], jail["hits"], jail["maxretry"], jail["banned"]) == ("mc-exim-1d", 0, 5, True)
    assert (jail["count"], jail["blacklisted"], jail["enforced"]) == (1, False, False)
    assert RFC3339.fullmatch(jail["since"])
    assert RFC3339.fullmatch(jail["until"])
    terminal.does("whitelist", "add", "-i", "203.0.113.0/24")
    assert terminal.json("show", "203.0.113.7")["allowed"] is True
    assert "203.0.113.0/24 in all jails (whitelisted)" in terminal.does("show", "203.0.113.7")[0]


def test_show_counts_in_words(terminal: Terminal) -> None:
    """`show` tells people how long, since when, why, how often, and what was decided, without "1 times"."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    said = terminal.does("show", "203.0.113.7")
    assert re.fullmatch(
        r"mc-exim-1d: banned for another \S+( \S+)?, since \S+ \(by hand\), banned 1 time so far", said[0]
    )
    assert said[1] == "not enforced: the memory firewall touches no kernel"
    assert re.fullmatch(r"\S+  banned in mc-exim-1d: by hand  \[.*\]", said[2])
    terminal.does("unban", "-i", "203.0.113.7")
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    assert "banned 2 times so far" in terminal.does("show", "203.0.113.7")[0]


@pytest.mark.parametrize("given", ["", "a.example", "203.0.113.256", "\x1b[2J", "\udcff"])
def test_show_wants_an_address(terminal: Terminal, given: str) -> None:
    """`show` of what is no address is wrong usage."""
    terminal.refuses(2, "show", given)


def test_text_from_sql_never_reaches_the_terminal_raw(terminal: Terminal) -> None:
    """Control characters in any column are shown escaped, by every command that shows rows, and in JSON."""
    evil = "\x1b[2Jx\nmcban: all is well\x9b"
    rows = "INSERT INTO fail2ban_ips (ip, jail, host, reason, count, active, whitelisted, until) VALUES "
    terminal.sql(rows + "('203.0.113.7', 'mc-exim-1d', ?, ?, 1, 1, 0, '2099-01-01 00:00:00')", evil, evil)
    terminal.sql(rows + "(?, 'mc-exim-1d', 'x', '', 1, 1, 0, NULL), (?, ?, 'x', '', 1, 0, 1, NULL)", evil, evil, evil)
    jails = (
        "INSERT INTO fail2ban_jail (enabled, maxretry, findtime, bantime, max_count,"
        " name, port, filter, banaction, logpath) VALUES (1, 1, 1, 1, 0, ?, ?, ?, ?, ?)"
    )
    terminal.sql(jails, evil, evil, evil, evil, evil)
    terminal.sql(jails, "fine", "25", evil, "mc-custom", evil)
    shown = ["status", "banned", "show 203.0.113.7", "whitelist list", "jail list", "jail show -j fine", "sync"]
    for command in (*shown, "jail reload", "blacklist list", "sync --check"):
        for json in ([], ["--json"]) if "reload" not in command else ([],):
            answer = terminal.type(*command.split(), *json)
            assert answer.status in {0, 1}, (command, answer)
            assert "\x1b" not in answer.out + answer.err
            assert "\x9b" not in answer.out + answer.err
            assert all("mcban: all is well" not in line[:20] for line in (answer.out + answer.err).splitlines())
