"""`jail`, as it is typed."""

from __future__ import annotations

import pytest

from tests.cli.terminal import Terminal, short

MINE = ["jail", "add", "-j", "mine", "--filter", "mc-exim-filter", "--logpath", "/var/log/mine.log", "--port", "25"]


def add(**options: str) -> list[str]:
    """`jail add` with some options other than usual."""
    usual = {"jail": "mine", "filter": "mc-exim-filter", "logpath": "/var/log/mine.log", "port": "25"}
    words = ["jail", "add"]
    for option, value in (usual | options).items():
        words += [f"--{option.replace('_', '-')}", value]
    return words


def test_the_shipped_jails_are_there(terminal: Terminal) -> None:
    """`jail list` has the four tiers and the blacklist of each of three groups, with the ladder's numbers."""
    jails = {jail["name"]: jail for jail in terminal.json("jail", "list")}
    assert len(jails) == 15
    ladder = [(jails[f"mc-exim-{t}"]["maxretry"], jails[f"mc-exim-{t}"]["findtime"]) for t in ("1d", "1w", "1m", "1y")]
    assert ladder == [(5, 3_600), (10, 172_800), (15, 1_209_600), (20, 5_184_000)]
    assert jails["mc-exim-1y"]["bantime"] == 31_536_000
    assert terminal.does("jail", "list")[1].split() == [
        "mc-ssh-1d", "3", "1h", "1d", "22", "mc-sshd-filter", "3",
    ]  # fmt: skip


def test_a_custom_jail_comes_and_goes(terminal: Terminal) -> None:
    """`jail add` makes a jail that stands alone, `show` tells all of it, `remove` takes it away."""
    assert terminal.does(*MINE) == ["mine added"]
    (jail,) = terminal.json("jail", "show", "-j", "mine")
    assert (jail["kind"], jail["enabled"], jail["maxretry"], jail["port"]) == ("custom", True, 5, "25")
    assert jail["logpath"] == ["/var/log/mine.log"]
    shown = dict(line.split(maxsplit=1) for line in terminal.does("jail", "show", "-j", "mine"))
    assert (shown["findtime"], shown["enabled"], shown["name"]) == ("3600 (1h)", "yes", "mine")
    assert terminal.does("jail", "remove", "-j", "mine") == ["mine removed"]
    assert "there is no jail mine" in terminal.refuses(2, "jail", "show", "-j", "mine")


def test_a_jail_with_a_max_count_has_a_blacklist(terminal: Terminal) -> None:
    """A custom jail with --max-count gets its `-bl` jail; both go together."""
    terminal.does(*MINE, "--max-count", "2")
    assert [jail["name"] for jail in terminal.json("jail", "show", "-j", "mine")] == ["mine", "mine-bl"]
    assert terminal.does("jail", "remove", "-j", "mine") == ["mine removed", "mine-bl removed"]


@pytest.mark.parametrize("more", [(), ("--escalate", "--max-count", "2"), ("--disabled", "--max-count", "3")])
def test_a_jail_that_is_added_again_is_there_already(terminal: Terminal, more: tuple[str, ...]) -> None:
    """The same command again says so and is no error; with another number it is refused, and nothing is changed."""
    terminal.does(*MINE, *more)
    before = terminal.json("jail", "list")
    assert terminal.does(*MINE, *more) == ["mine is there already, as it is asked for"]
    assert "already: mcban jail change" in terminal.refuses(2, *MINE, *more, "--maxretry", "9")
    assert terminal.json("jail", "list") == before


def test_a_ladder_from_one_number(terminal: Terminal) -> None:
    """`jail add --escalate` makes the four tiers of a group."""
    terminal.does(*MINE, "--escalate", "--maxretry", "2", "--disabled")
    jails = terminal.json("jail", "show", "-j", "mine")
    assert [(jail["name"], jail["maxretry"], jail["enabled"]) for jail in jails] == [
        (f"mine-{tier}", hits, False) for tier, hits in (("1d", 2), ("1w", 4), ("1m", 6), ("1y", 8))
    ]


@pytest.mark.parametrize("name", ["mc-exim", "mc-exim-1d", "mc-exim-bl"])
def test_a_name_is_given_once(terminal: Terminal, name: str) -> None:
    """A jail or group that is there is not made again."""
    terminal.does(*MINE)
    assert "already" in terminal.refuses(2, *add(jail=name))


@pytest.mark.parametrize(
    "name",
    ["", "x" * 40, "x" * 28, "foo-all", "foo-v6", "a b", "-x", "ä", "\udcff", "\x1b[1m", "x" * 10_000, "a/b", "a\nb"],
    ids=short,
)
def test_a_name_that_the_kernel_does_not_take(terminal: Terminal, name: str) -> None:
    """A jail whose name cannot be a set's name is bad data, and is not made."""
    terminal.refuses(65, *add(jail=name))


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        *(
            ("port", v, 65)
            for v in ("", "0", "65536", "foo", "1-2-3", "-1", "25;rm", "25-20", "\u0662\u0665", "x" * 10_000)
        ),
        *(("logpath", v, 65) for v in ("", "relative/log", "systemd-journal[nope=1]", "/good relative", "\udcff")),
        *(("filter", v, 65) for v in ("", "nope", "../x", "mc-exim-filter[", "x" * 10_000, "\udcff", "\x1b[31m")),
        *(("maxretry", v, 2) for v in ("0", "-1", "10001", "x", "", "9" * 50)),
        *(("findtime", v, 2) for v in ("0", "1000y", "x", "")),
        *(("bantime", v, 2) for v in ("0", "1000y", "x", "", "-2")),
        *(("max_count", v, 2) for v in ("-1", "10001", "9" * 30)),
        *(("banaction", v, 65) for v in ("", "nope", "iptables; id")),
    ],
    ids=short,
)
def test_a_jail_that_cannot_work_is_not_made(terminal: Terminal, option: str, value: str, status: int) -> None:
    """Every option is checked before anything is written: numbers and times as usage, the rest as data."""
    terminal.refuses(status, *add(**{option: value}))


def test_the_nearest_filter_is_named(terminal: Terminal) -> None:
    """A filter that there is not is answered with the nearest name."""
    assert "did you mean mc-exim-filter?" in terminal.refuses(65, *add(filter="mc-exim-filer"))
    typed = ("jail", "change", "-j", "mc-exim", "--option", "filter", "-v", "mc-exim-filer")
    assert "did you mean mc-exim-filter?" in terminal.refuses(65, *typed)


def change(terminal: Terminal, jail: str, option: str, value: str) -> list[str]:
    """`jail change` that must succeed."""
    return terminal.does("jail", "change", "-j", jail, "--option", option, "-v", value)


def test_one_number_makes_the_whole_ladder(terminal: Terminal) -> None:
    """maxretry of a group regenerates its ladder, tier by tier; again it is so already; a tier is changed alone."""
    said = change(terminal, "mc-exim", "maxretry", "7")
    assert said == [f"mc-exim-{tier}: maxretry {old} is now {new}" for tier, old, new in
                    (("1d", 5, 7), ("1w", 10, 14), ("1m", 15, 21), ("1y", 20, 28))]  # fmt: skip
    before = terminal.dump()
    assert change(terminal, "mc-exim", "maxretry", "7") == ["mc-exim: maxretry is 7 already"]
    assert terminal.dump() == before
    assert change(terminal, "mc-exim-1d", "maxretry", "8") == ["mc-exim-1d: maxretry 7 is now 8"]
    assert change(terminal, "mc-exim-1d", "bantime", "2d") == ["mc-exim-1d: bantime 86400 (1d) is now 172800 (2d)"]


@pytest.mark.parametrize(
    ("jail", "option", "value", "offender"),
    [
        ("mc-exim-1d", "maxretry", "10", "maxretry 10 of 1w is not above 10 of 1d"),
        ("mc-exim-1w", "findtime", "2w", "findtime 1209600 of 1m is not above 1209600 of 1w"),
        ("mc-exim-1d", "bantime", "-1", "bantime 604800 of 1w is not above"),
        ("mc-exim", "findtime", "1d", "findtime 86400 of 1w is not above 86400 of 1d"),
    ],
)
def test_a_ladder_that_does_not_ascend(terminal: Terminal, jail: str, option: str, value: str, offender: str) -> None:
    """It is refused with the ladder and the value; forced, `status` reports it for as long as it stands."""
    typed = ("jail", "change", "-j", jail, "--option", option, "-v", value)
    said = terminal.refuses(3, *typed)
    assert offender in said
    assert "1y 20 in" in said
    assert "--force" in said
    terminal.does(*typed, "--force")
    faults = terminal.json("status", status=1)["faults"]
    assert {fault["what"] for fault in faults} == {"mc-exim"}
    assert offender in faults[0]["why"]
    assert any(line.startswith("fault") for line in terminal.type("status").lines)
    change(terminal, "mc-exim", "maxretry", "5")
    assert terminal.json("status", status=1)["faults"] == []


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        *(("maxretry", v, 2) for v in ("0", "-5", "x", "", "\u0663", " 6 ", "1_0", "10001", "9" * 5_000, "0x5", "1e3")),
        *(("max_count", v, 2) for v in ("x", "", "-2", "9" * 23, "1_0", "\u0663")),
        *(("findtime", v, 2) for v in ("0", "x", "", "1000y", "9" * 400)),
        *(("bantime", v, 2) for v in ("0", "x", "-2")),
        *(("port", v, 65) for v in ("99999", "", "x\x1b[31m")),
        *(("filter", v, 65) for v in ("nope", "")),
        *(("logpath", v, 65) for v in ("", "x", "\udcff")),
        *(("banaction", v, 65) for v in ("zzz", "")),
        *((o, "1", 2) for o in ("maxrety", "name", "enabled", "", "\x1b[31m", "group")),
        ("maxretry", "5000", 65),
    ],
    ids=short,
)
def test_a_change_that_cannot_work_changes_nothing(terminal: Terminal, option: str, value: str, status: int) -> None:
    """Values and options that cannot be meant are refused, for all tiers or none."""
    terminal.refuses(status, "jail", "change", "-j", "mc-exim", "--option", option, "-v", value)


@pytest.mark.parametrize("jail", ["mc-exim", "mc-exim-1w", "mc-exim-bl", "mine"])
@pytest.mark.parametrize("command", ["disable", "enable"])
def test_switching_again_changes_nothing(terminal: Terminal, jail: str, command: str) -> None:
    """A group, a tier, a blacklist or a custom jail that is off or on already is left so, which is said."""
    terminal.does(*MINE)
    if command == "disable":
        assert f"{jail if jail != 'mc-exim' else 'mc-exim-1d'} disabled" in terminal.does("jail", "disable", "-j", jail)
    before = terminal.dump()
    assert " already" in terminal.does("jail", command, "-j", jail)[0]
    assert terminal.dump() == before


def test_a_disabled_jail_keeps_its_bans(terminal: Terminal) -> None:
    """`disable` takes enforcement away, not rows; `banned` says that it is held back; `enable` brings it back."""
    terminal.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    terminal.does("jail", "disable", "-j", "mc-exim-1d")
    assert terminal.json("banned")[0]["held_back"] == "mc-exim-1d is disabled"
    assert "not enforced" in terminal.does("banned")[1]
    assert "not enforced: mc-exim-1d is disabled" in terminal.does("show", "203.0.113.7")[0]
    terminal.does("jail", "enable", "-j", "mc-exim-1d")
    assert terminal.json("banned")[0]["held_back"] is None


def test_removing_a_jail_with_bans_wants_a_yes(terminal: Terminal) -> None:
    """Bans that would be lifted are counted before anything is removed."""
    terminal.does(*MINE)
    terminal.does("ban", "-j", "mine", "-i", "203.0.113.7")
    assert "--yes" in terminal.refuses(3, "jail", "remove", "-j", "mine")
    assert terminal.does("jail", "remove", "-j", "mine", "--yes")[0] == "mine removed"
    assert terminal.json("banned") == []


def test_reload_takes_plain_sql_over(terminal: Terminal) -> None:
    """`jail reload` makes the ladder that an inserted row asks for, and names rows that cannot be used."""
    assert terminal.does("jail", "reload") == ["the jails are in order; no engine runs"]
    insert = (
        "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
        " max_count, escalate) VALUES (1, ?, 3, 60, 60, ?, 'mc-exim-filter', 'mc-custom', '/x', 0, ?)"
    )
    terminal.sql(insert, "grow", "25", 1)
    assert terminal.does("jail", "reload")[0] == "grow: made a ladder of 3 hits a day"
    assert len(terminal.json("jail", "show", "-j", "grow")) == 4
    terminal.sql(insert, "bad-port", "99999", 0)
    answer = terminal.type("jail", "reload")
    assert answer.err.startswith("mcban: bad-port: '99999' is no port")
    assert answer.lines == ["1 fault in the jails; no engine runs"]
    assert "cannot be used: '99999'" in terminal.refuses(2, "jail", "show", "-j", "bad-port")
