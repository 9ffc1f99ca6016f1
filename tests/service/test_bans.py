"""Bans by hand: what they do in SQL and kernel, what they refuse, and that asking twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mcban.core.model import FOREVER, Hit
from mcban.errors import RefusedError, UsageError
from mcban.service import upkeep
from mcban.service.allow import allow, disallow
from mcban.service.bans import (
    Report,
    ban,
    blacklist_add,
    blacklist_remove,
    blacklisted,
    parse_entries,
    unban,
)
from mcban.service.context import Context
from mcban.service.record import record
from mcban.service.sync import compare, sync
from tests.conftest import Machine
from tests.service.desk import IP, NOON, TIERS, dump, execute, fail, held, in_force, known, row

DAY = 86_400


def put(
    context: Context, name: str, *entries: str, duration: int | None = None, force: bool = False, yes: bool = False
) -> Report:
    """`mcban ban`, without force unless said."""
    return ban(context, name, entries, duration, force=force, yes=yes)


@pytest.mark.parametrize(
    ("name", "where"),
    [("mc-exim", list(TIERS)), ("mc-exim-1w", ["mc-exim-1w"]), ("mc-exim-bl", ["mc-exim-bl"])],
)
def test_a_ban_by_hand_is_in_sql_and_kernel_at_once(context: Context, name: str, where: list[str]) -> None:
    """A group means all of its tiers; each for its own time."""
    put(context, name, IP)
    assert held(context) == in_force(context) == sorted(where)
    for jail in where:
        ban_row = known(context, jail)
        assert (ban_row.count, ban_row.active, ban_row.since, ban_row.host) == (1, True, NOON, "here")
        assert ban_row.blacklisted == (jail == "mc-exim-bl")
    lengths = {"mc-exim-1d": NOON + DAY, "mc-exim-1w": NOON + 7 * DAY, "mc-exim-bl": FOREVER}
    for jail in set(where) & set(lengths):
        assert known(context, jail).until == lengths[jail]


@pytest.mark.parametrize(("duration", "until"), [(180 * DAY, NOON + 180 * DAY), (-1, FOREVER)])
def test_a_ban_lasts_as_long_as_it_was_asked_for(context: Context, duration: int, until: int) -> None:
    """--for 180d, --for -1; asked again with another time it takes that, and counts once."""
    put(context, "mc-exim-1d", IP)
    put(context, "mc-exim-1d", IP, duration=duration)
    assert (known(context, "mc-exim-1d").until, known(context, "mc-exim-1d").count) == (until, 1)


ENTRIES = ["203.0.113.7", "203.0.113.0/24", "2001:db8::7", "2001:db8::/48"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_addresses_and_networks_of_both_families_are_banned_and_lifted(context: Context, entry: str) -> None:
    """In SQL and kernel."""
    put(context, "mc-exim", entry)
    assert held(context, entry) == sorted(TIERS)
    assert unban(context, None, [entry]).done == tuple(f"{entry} lifted in {jail}" for jail in TIERS)
    assert held(context, entry) == in_force(context, entry) == []


COMMANDS: dict[str, Callable[[Context], Report]] = {
    "ban": lambda c: put(c, "mc-exim", IP),
    "ban for": lambda c: put(c, "mc-exim-1d", IP, duration=999),
    "ban forced": lambda c: put(c, "mc-exim-1d", IP, force=True),
    "ban network": lambda c: put(c, "mc-exim-1d", "10.0.0.0/8", yes=True),
    "unban": lambda c: unban(c, "mc-exim", [IP]),
    "unban tier": lambda c: unban(c, "mc-exim-1d", [IP]),
    "unban everywhere": lambda c: unban(c, None, [IP]),
    "blacklist add": lambda c: blacklist_add(c, "mc-exim", [IP], force=False, yes=False),
    "blacklist remove": lambda c: blacklist_remove(c, "mc-exim", [IP]),
    "whitelist add": lambda c: allow(c, "mc-exim", [IP]),
    "whitelist add everywhere": lambda c: allow(c, None, ["203.0.113.0/24", "mail.example.net"]),
    "whitelist remove": lambda c: disallow(c, "mc-exim", [IP]),
}


@pytest.mark.parametrize("banned", [False, True], ids=["from nothing", "with hits and bans"])
@pytest.mark.parametrize("name", COMMANDS)
def test_asking_again_says_so_and_changes_no_row(context: Context, name: str, banned: bool) -> None:
    """Whatever there was before."""
    if banned:
        fail(context, 11)
        fail(context, 2, group="mc-ssh")
        if not name.startswith(("ban", "blacklist add")):  # whom it allows nobody bans
            allow(context, "mc-exim", ["203.0.113.0/24"])
    command = COMMANDS[name]
    command(context)
    before = dump(context)
    again = command(context)
    assert again.done
    assert all("already" in line or " not " in line or "no address" in line for line in again.done), again.done
    assert dump(context) == before
    plan = compare(context, ["mc-exim"]).plan
    assert (plan.additions, plan.remove) == (0, {})


@pytest.mark.parametrize(
    ("entry", "how", "words"),
    [
        ("0.0.0.0/0", {"yes": True, "force": True}, "is everybody"),
        ("::/0", {"yes": True, "force": True}, "is everybody"),
        ("::ffff:0.0.0.0/96", {"yes": True, "force": True}, "is everybody"),
        ("10.0.0.0/15", {}, "wider than /16: say --yes"),
        ("2001::/31", {}, "wider than /32: say --yes"),
        ("192.0.2.1", {}, "is protected .a default gateway.: --force"),
        ("192.0.2.0/24", {"yes": True}, "holds 192.0.2.1, which is protected"),
        ("198.51.100.7", {"force": True}, "take it off that list first"),
        ("198.51.100.7", {}, "is allowed in mc-exim-1d .whitelisted."),
        ("198.51.0.0/16", {"force": True}, "take it off that list first"),
        ("198.51.200.9", {"force": True}, "ignoreip"),
    ],
)
def test_a_ban_that_is_unsafe_is_refused_and_changes_nothing(
    make_context: Callable[..., Context], machine: Machine, entry: str, how: dict[str, bool], words: str
) -> None:
    """Everybody never; a wide network with --yes; the protected with --force; the allowed not at all."""
    machine.protected["192.0.2.1"] = "a default gateway"
    context = make_context(ignoreip=("198.51.200.9",))
    allow(context, "mc-exim", ["198.51.100.7"])
    before = dump(context)
    (parsed,) = parse_entries([entry])
    commands: list[Callable[[], Report]] = [
        lambda: put(context, "mc-exim", IP, parsed, **how),
        lambda: _black(context, parsed, how),
    ]
    for command in commands:
        with pytest.raises(RefusedError, match=words.replace("mc-exim-1d", "mc-exim-(1d|bl)")) as caught:
            command()
        assert caught.value.exit_status == 3
        assert "\n" not in str(caught.value)
    assert dump(context) == before
    assert held(context) == held(context, parsed) == []


def _black(context: Context, entry: str, how: dict[str, bool]) -> Report:
    return blacklist_add(context, "mc-exim", [IP, entry], force=how.get("force", False), yes=how.get("yes", False))


@pytest.mark.parametrize("entry", ["10.0.0.0/16", "2001:db8::/32", "10.0.0.0/17"])
def test_a_network_up_to_the_limit_needs_no_yes(context: Context, entry: str) -> None:
    """IPv4 /16, IPv6 /32."""
    put(context, "mc-exim-1d", entry)
    assert held(context, entry) == ["mc-exim-1d"]


def test_a_forced_ban_of_a_protected_address_is_enforced(context: Context, machine: Machine) -> None:
    """By hand only; hits never lead there. Forcing also helps a ban that was there before the protection."""
    machine.protected[IP] = "a node"
    assert fail(context, 50).bans == ()
    put(context, "mc-exim-1d", IP, force=True)
    assert held(context) == ["mc-exim-1d"]
    put(context, "mc-ssh-1d", "192.0.2.9")
    machine.protected["192.0.2.9"] = "a node"
    sync(context)
    assert held(context, "192.0.2.9") == []
    put(context, "mc-ssh-1d", "192.0.2.9", force=True)
    assert held(context, "192.0.2.9") == ["mc-ssh-1d"]
    assert known(context, "mc-ssh-1d", "192.0.2.9").count == 1


def test_a_network_that_holds_an_allowed_address_stays_out_of_the_kernel(context: Context) -> None:
    """The ban is kept in SQL and said; it enters when the allowance goes."""
    put(context, "mc-exim-1d", "203.0.113.0/24")
    allow(context, "mc-exim", [IP])
    assert in_force(context, "203.0.113.0/24") == ["mc-exim-1d"]
    assert held(context, "203.0.113.0/24") == []
    disallow(context, "mc-exim", [IP])
    assert held(context, "203.0.113.0/24") == ["mc-exim-1d"]


def test_the_fourth_ban_by_hand_is_for_ever(context: Context, machine: Machine) -> None:
    """max_count counts bans by hand as others."""
    for _ in range(3):
        put(context, "mc-exim-1d", IP)
        unban(context, "mc-exim-1d", [IP])
        machine.now += 1
    put(context, "mc-exim-1d", IP)
    assert held(context) == in_force(context) == ["mc-exim-bl"]
    assert (known(context, "mc-exim-bl").until, known(context, "mc-exim-1d").count) == (FOREVER, 3)
    assert [r.ip for r in blacklisted(context, None)] == [IP]


def test_a_promotion_makes_a_blacklisting_for_a_while_one_for_ever(context: Context) -> None:
    """The address was in the blacklist for an hour by hand when its fourth ban came."""
    put(context, "mc-exim-bl", IP, duration=3600)
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{IP}', 'mc-exim-1d', 0, 3)")
    put(context, "mc-exim-1d", IP)
    assert (known(context, "mc-exim-bl").until, known(context, "mc-exim-bl").count) == (FOREVER, 1)


def test_unban_of_a_group_lets_out_of_its_blacklist_too(context: Context) -> None:
    """Who is let in is let in. The count stays."""
    put(context, "mc-exim-bl", IP)
    fail(context, 3, group="mc-ssh")
    unban(context, "mc-exim", [IP])
    assert held(context) == ["mc-ssh-1d"]
    assert (known(context, "mc-exim-bl").count, known(context, "mc-exim-bl").blacklisted) == (1, False)
    unban(context, None, [IP])
    assert held(context) == in_force(context) == []


def test_unban_says_which_network_still_refuses_an_address(context: Context) -> None:
    """And that is a failure: the address stays out."""
    put(context, "mc-exim-1d", "203.0.113.0/24")
    done = unban(context, "mc-exim", [IP])
    assert done.done == (f"{IP} is not banned in mc-exim",)
    (failed,) = done.failed
    assert failed.startswith(f"{IP} is still refused by the ban of 203.0.113.0/24 in mc-exim-1d")


def test_unban_forgets_hits_of_whom_no_jail_holds(context: Context) -> None:
    """Four failures, unban, four failures: nobody is banned."""
    fail(context, 4)
    unban(context, "mc-exim-1d", [IP])
    assert fail(context, 4).bans == ()
    assert row(context, "mc-exim-1w") is None
    unban(context, None, [IP])
    assert fail(context, 4).bans == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mc-exmi", "there is no jail mc-exmi: did you mean mc-exim?"),
        ("nothing like it", "there are mc-ssh, mc-exim, mc-webauth"),
        ("'; DROP TABLE fail2ban_ips; --", "there is no jail"),
        ("\x1b[31m", "there is no jail"),
        ("", "there is no jail without a name: there are mc-ssh"),
    ],
)
def test_an_unknown_jail_is_named_with_its_nearest(context: Context, name: str, words: str) -> None:
    """Exit status 2, and nothing changed."""
    before = dump(context)
    commands: list[Callable[[], Report]] = [
        lambda: put(context, name, IP),
        lambda: unban(context, name, [IP]),
        lambda: allow(context, name, [IP]),
        lambda: disallow(context, name, [IP]),
        lambda: _blacklist(context, name),
    ]
    for command in commands:
        with pytest.raises(UsageError) as caught:
            command()
        assert words in str(caught.value)
        assert str(caught.value).isprintable()
    assert dump(context) == before


def _blacklist(context: Context, name: str) -> Report:
    return blacklist_remove(context, name, [IP])


def test_a_ban_ends_by_its_time(context: Context, machine: Machine) -> None:
    """Out of the kernel at the next sync, no longer active in SQL, and the blacklisting for a while with it."""
    put(context, "mc-exim-bl", IP, duration=60)
    machine.now += 60
    sync(context)
    assert held(context) == []
    assert upkeep.expire(context) == 1
    assert upkeep.expire(context) == 0
    ended = known(context, "mc-exim-bl")
    assert (ended.active, ended.blacklisted, ended.count) == (False, False, 1)
    assert record(context, [Hit(int(machine.now), IP, "mc-exim")]).hits == 1


def test_what_was_decided_is_told_in_its_order(context: Context) -> None:
    """The log of an address explains every ban."""
    fail(context, 5)
    unban(context, "mc-exim", [IP])
    blacklist_add(context, "mc-exim", [IP], force=False, yes=False)
    blacklist_remove(context, "mc-exim", [IP])
    events = context.database.read(lambda t: t.events.of(IP, 99))
    assert [(e.what, e.jail) for e in events] == [
        ("ban", "mc-exim-1d"),
        ("lift", "mc-exim-1d"),
        ("blacklist", "mc-exim-bl"),
        ("lift", "mc-exim-bl"),
    ]


@pytest.mark.parametrize("nobody", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"])
def test_what_nobody_connects_from_is_never_banned(context: Context, nobody: str) -> None:
    """Addresses that are no host's are refused by hand, forced or not, and nothing changes."""
    before = dump(context)
    with pytest.raises(RefusedError, match="anybody connects"):
        ban(context, "mc-exim", [nobody], None, force=True, yes=True)
    assert dump(context) == before
