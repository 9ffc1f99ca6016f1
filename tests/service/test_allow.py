"""The whitelist wins over every ban, at once, in SQL and kernel, from whichever side it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event

from mcban.errors import RefusedError, UsageError
from mcban.service import upkeep
from mcban.service.allow import allow, allowances, disallow, parse_names
from mcban.service.bans import ban, blacklist_add
from mcban.service.claim import NodeName
from mcban.service.context import Context
from mcban.service.sync import sync
from tests.conftest import Machine, MakeContext
from tests.service.desk import IP, TIERS, dump, execute, fail, held, in_force, known, row

NETWORK = "203.0.113.0/24"
NAME = "mail.example.net"


@pytest.fixture(autouse=True)
def names(machine: Machine) -> None:
    """A host name that has the address that the tests ban."""
    machine.names[NAME] = ["2001:db8::1", IP]


@pytest.mark.parametrize("entry", [IP, NETWORK, NAME])
@pytest.mark.parametrize(
    ("scope", "free"),
    [
        (None, {*TIERS, "mc-exim-bl", "mc-ssh-1d"}),
        ("mc-exim", {*TIERS, "mc-exim-bl"}),
        ("mc-exim-1d", {"mc-exim-1d"}),
        ("mc-exim-bl", {"mc-exim-bl"}),
    ],
)
def test_allowing_lifts_in_sql_and_kernel_and_protects(
    context: Context, scope: str | None, free: set[str], entry: str
) -> None:
    """An address, a network, a host name; everywhere, in a group, in one jail. Afterwards nothing bans it there."""
    everywhere = {*TIERS, "mc-exim-bl", "mc-ssh-1d"}
    fail(context, 20)
    fail(context, 3, group="mc-ssh")
    blacklist_add(context, "mc-exim", [IP], force=False, yes=False)
    ban(context, "mc-exim-1d", ["203.0.112.7"], None, force=False, yes=False)
    assert set(held(context)) == everywhere
    done = allow(context, scope, [entry]).done
    assert {line for line in done if "lifted" in line} == {f"{IP} lifted in {jail}" for jail in free}
    assert set(held(context)) == set(in_force(context)) == everywhere - free
    assert held(context, "203.0.112.7") == ["mc-exim-1d"]
    for jail in sorted(free):
        with pytest.raises(RefusedError, match="whitelisted"):
            ban(context, jail, [IP], None, force=True, yes=True)
    for group in ("mc-exim", "mc-ssh"):
        assert not {b.jail for b in fail(context, 40, group=group).bans} & free


def test_a_network_that_covers_many_bans_lifts_them_together(context: Context) -> None:
    """Who else writes waits for it: it must not take a statement for each of them."""
    bans = [f"203.0.113.{n}" for n in range(256)]
    for jail in ("mc-exim-1d", "mc-exim-bl"):
        ban(context, jail, bans, None, force=False, yes=False)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(context.database.engine, "before_cursor_execute", note)
    said = allow(context, None, [NETWORK]).done
    event.remove(context.database.engine, "before_cursor_execute", note)
    assert len(said) == 1 + 2 * len(bans)
    assert not any(in_force(context, one) or held(context, one) for one in bans[::50])
    assert len(asked) < len(bans) // 2


@pytest.mark.parametrize("how", ["whitelist", "ignoreip", "protected", "host name", "plain SQL"])
def test_a_hit_of_an_allowed_address_changes_nothing(
    make_context: Callable[..., Context], machine: Machine, how: str
) -> None:
    """Row for row, whatever allows it."""
    context = make_context(ignoreip=(NETWORK,)) if how == "ignoreip" else make_context()
    if how == "whitelist":
        allow(context, "mc-exim", [NETWORK])
    if how == "protected":
        machine.protected[NETWORK] = "loopback"
    if how == "host name":
        allow(context, None, [NAME])
    if how == "plain SQL":
        execute(context, f"INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES (' {NETWORK} ', 'mc-exim', 1)")
    before = dump(context)
    assert fail(context, 50).hits == 0
    assert dump(context) == before
    assert held(context) == []


def test_what_an_address_did_while_it_was_allowed_is_not_counted_afterwards(context: Context) -> None:
    """Allowed in one tier: there it begins at nothing when the allowance goes."""
    allow(context, "mc-exim-1d", [IP])
    fail(context, 9)
    disallow(context, "mc-exim-1d", [IP])
    assert [b.jail for b in fail(context).bans] == ["mc-exim-1w"]
    assert fail(context, 3).bans == ()
    assert [b.jail for b in fail(context).bans] == ["mc-exim-1d"]


def test_allowing_in_one_tier_leaves_what_the_others_counted(context: Context) -> None:
    """The week's tenth hit is still the tenth."""
    fail(context, 9)
    allow(context, "mc-exim-1d", [IP])
    assert held(context) == []
    assert [b.jail for b in fail(context).bans] == ["mc-exim-1w"]


def test_a_name_that_has_other_addresses_now_allows_those(context: Context, machine: Machine) -> None:
    """And the former ones no longer."""
    allow(context, None, [NAME])
    machine.names[NAME] = ["198.51.100.1"]
    assert fail(context, 5, ip="198.51.100.1").bans == ()
    assert len(fail(context, 5).bans) == 1


def test_a_name_without_an_address_is_said(context: Context) -> None:
    """It is looked up again."""
    assert any("no address at the moment" in line for line in allow(context, None, ["gone.example.net"]).done)


def test_bans_that_an_allowance_lifted_do_not_come_back(context: Context) -> None:
    """Removing it is no ban."""
    fail(context, 20)
    allow(context, "mc-exim", [IP])
    disallow(context, "mc-exim", [IP])
    sync(context)
    assert held(context) == in_force(context) == []
    assert fail(context, 4).bans == ()


def test_whom_an_allowance_let_out_of_the_blacklist_is_not_back_with_the_next_failure(context: Context) -> None:
    """The hits that led there are forgotten with the ban."""
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, active, count) VALUES ('{IP}', 'mc-exim-1d', 0, 3)")
    fail(context, 5)
    assert held(context) == ["mc-exim-bl"]
    allow(context, "mc-exim", [IP])
    disallow(context, "mc-exim", [IP])
    assert fail(context, 4).bans == ()
    assert [b.jail for b in fail(context).bans] == ["mc-exim-bl"]


def test_a_whitelisting_by_plain_sql_that_is_taken_back_is_no_ban(context: Context) -> None:
    """Its row is active by default, which meant nothing as long as it allowed."""
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('{IP}', 'mc-exim-1d', 1)")
    assert upkeep.take_over(context)[1] == []
    disallow(context, "mc-exim-1d", [IP])
    assert upkeep.take_over(context)[1] == []
    assert held(context) == in_force(context) == []


def test_removing_says_where_else_it_is_allowed(context: Context) -> None:
    """In another jail than the one that was asked for."""
    allow(context, "mc-ssh", [IP])
    (said,) = disallow(context, "mc-exim", [IP]).done
    assert said == f"{IP} is not allowed in mc-exim; it is in mc-ssh"


def test_the_list_shows_what_holds_in_a_jail(context: Context) -> None:
    """A tier's, its group's and everybody's."""
    for scope, entry in ((None, "192.0.2.1"), ("mc-exim", "192.0.2.2"), ("mc-exim-1d", "192.0.2.3"), ("mc-ssh", IP)):
        allow(context, scope, [entry])
    assert [r.ip[-1] for r in allowances(context, "mc-exim-1d")] == ["1", "2", "3"]
    assert [r.ip[-1] for r in allowances(context, "mc-ssh")] == ["1", "7"]
    assert len(allowances(context, None)) == 4


def test_what_one_node_allows_the_others_let_in(make_context: MakeContext, machine: Machine) -> None:
    """Several nodes on one database behave as one; each protects the addresses of the others."""
    here, there = make_context(), make_context(node="there")
    fail(here, 5)
    sync(there)
    assert held(there) == ["mc-exim-1d"]
    allow(here, None, [IP])
    sync(there)
    assert held(there) == held(here) == []
    machine.protected["198.51.100.1"] = "an address of this host"
    NodeName(there, "machine").take()
    machine.protected.clear()
    with pytest.raises(RefusedError, match="node there"):
        ban(here, "mc-exim-1d", ["198.51.100.1"], None, force=False, yes=False)
    assert fail(here, 9, ip="198.51.100.1").bans == ()


@pytest.mark.parametrize("text", ["", "not a name", "a..b", "-x.y", "1.2.3", "1.2.3.4/33", "x" * 151, "fe80::1%eth0"])
def test_what_can_be_no_name_is_refused(text: str) -> None:
    """Wrong usage, in one line."""
    with pytest.raises(UsageError):
        parse_names([text])


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_nobody_allows_everybody(text: str) -> None:
    """Refused, with the command for what may have been meant."""
    with pytest.raises(RefusedError, match="mcban general disable"):
        parse_names([text])


def test_names_are_one_text_however_they_are_written() -> None:
    """Case and the dot at the end make no difference; given twice, once."""
    assert parse_names(["Mail.Example.NET.", NAME, "2001:DB8::1", "203.0.113.9/24"]) == [NAME, "2001:db8::1", NETWORK]


@pytest.mark.parametrize("text", ["garbage here", "a..b", "", "1.2.3.4/99"])
def test_a_row_that_allows_garbage_is_reported_and_the_others_go_on(context: Context, text: str) -> None:
    """By plain SQL anything can stand there."""
    execute(context, f"INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('{text}', '*', 1)")
    allow(context, None, [IP])
    world, _ = upkeep.take_over(context)
    faults = [fault for fault in world.book.faults if fault.what == text]
    assert len(faults) == 1
    assert fail(context, 5).bans == ()
    assert len(fail(context, 5, ip="192.0.2.9").bans) == 1


def test_a_whitelisted_row_keeps_its_count(context: Context) -> None:
    """Allowed and disallowed, it remembers how often it was banned."""
    fail(context, 5)
    allow(context, "mc-exim-1d", [IP])
    assert (known(context, "mc-exim-1d").count, known(context, "mc-exim-1d").whitelisted) == (1, True)
    disallow(context, "mc-exim-1d", [IP])
    assert (known(context, "mc-exim-1d").count, known(context, "mc-exim-1d").whitelisted) == (1, False)
    assert row(context, "mc-exim") is None
