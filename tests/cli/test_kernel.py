"""The commands on a real kernel, in a namespace of their own; and what they say to whoever may not touch it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcban import wiring
from mcban.firewall.ipset import IpsetFirewall
from mcban.wiring import wire
from tests.cli.terminal import UNHEARD, Terminal
from tests.netns import Host, one_host, require_netns, two_hosts

WITHOUT_NET_ADMIN = (
    "setpriv",
    "--inh-caps=-net_admin",
    "--bounding-set=-net_admin",
    "--reuid",
    "65534",
    "--clear-groups",
)


@pytest.fixture
def tmp_path(open_folder: Path) -> Path:
    """Where the terminal is: some commands here are another user's."""
    return open_folder


@pytest.fixture
def host() -> Iterator[Host]:
    """A namespace."""
    require_netns()
    with one_host() as host:
        yield host


@pytest.fixture
def kernel(terminal: Terminal, host: Host) -> Iterator[Terminal]:
    """A terminal with the ipset backend, all of whose commands run in a namespace."""
    terminal.env["MCBAN_FIREWALL"] = "ipset"
    with host.entered():
        yield terminal


def entries(host: Host, jail: str) -> set[str]:
    """What the jail's IPv4 set holds."""
    lines = host.run("ipset", "list", jail).splitlines()
    return {line.split()[0] for line in lines[lines.index("Members:") + 1 :] if line}


def test_a_ban_is_in_the_kernel_and_drift_is_told(kernel: Terminal, host: Host) -> None:
    """`ban` and `unban` reach the kernel at once; `sync --check` exits 1 on drift and mends nothing; `sync` mends."""
    kernel.does("sync")
    kernel.does("ban", "-j", "mc-exim", "-i", "203.0.113.7", "-i", "198.51.100.0/24")
    assert entries(host, "mc-exim-1y") == {"203.0.113.7", "198.51.100.0/24"}
    assert kernel.does("sync", "--check") == ["the kernel holds what SQL says"]
    assert kernel.json("sync", "--check")["in_sync"] is True
    assert {jail["enforced"] for jail in kernel.json("show", "203.0.113.7")["jails"]} == {True}
    host.run("ipset", "flush", "mc-exim-1y")
    assert "missing in the kernel" in kernel.does("show", "203.0.113.7")[3]
    drift = kernel.json("sync", "--check", status=1)
    assert (drift["in_sync"], drift["applied"]) == (False, False)
    assert drift["add"] == {"mc-exim-1y": ["198.51.100.0/24", "203.0.113.7"]}
    answer = kernel.type("sync", "--check")
    assert (answer.status, answer.err) == (1, "")
    assert answer.lines[0] == "to do: add 2 to mc-exim-1y"
    assert kernel.process("sync", "--check", before=UNHEARD).status == 1
    assert entries(host, "mc-exim-1y") == set()
    assert kernel.does("sync") == ["done: add 2 to mc-exim-1y"]
    assert entries(host, "mc-exim-1y") == {"203.0.113.7", "198.51.100.0/24"}
    kernel.does("unban", "-i", "203.0.113.7")
    assert entries(host, "mc-exim-1y") == {"198.51.100.0/24"}


def test_what_sync_does_not_mend_it_does_not_promise(kernel: Terminal, host: Host) -> None:
    """A set of somebody else's has the name of a jail's: `sync --check` and `show` say that, and what to do, as `sync`
    does; of what else is missing, that `sync` mends it."""
    host.run("ipset", "create", "mc-exim-1w", "hash:ip,port")
    said = (
        "set mc-exim-1w is there, but not as mcban makes it (hash:ip,port without timeouts): it is not ours to change"
    )
    kernel.refuses(69, "sync")
    assert kernel.type("ban", "-j", "mc-exim", "-i", "203.0.113.7").status == 69
    answer = kernel.type("sync", "--check")
    assert answer.status == 1 and said in answer.err
    assert answer.lines[-1] == "kernel and SQL differ, and mcban sync does not mend it"
    shown = kernel.does("show", "203.0.113.7")
    assert [said in line for line in shown if line.startswith("mc-exim-1")] == [False, True, False, False]
    assert not any("mcban sync" in line for line in shown)
    host.run("ipset", "flush", "mc-exim-1d")
    assert kernel.type("sync", "--check").lines[-1].startswith("kernel and SQL differ: mcban sync mends the rest")
    assert said in kernel.type("sync", "--check", "--json").document["not_mended"]["mc-exim-1w"]
    host.run("ipset", "destroy", "mc-exim-1w")
    assert kernel.type("sync", "--check").lines[-1].startswith("kernel and SQL differ: mcban sync mends it")
    kernel.does("sync")
    assert kernel.json("sync", "--check")["not_mended"] == {}


def test_a_full_list_is_one_line_of_each_command(kernel: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bans that a full list does not take some are named and all are counted, as `status` has it; `sync --json` has
    each."""
    monkeypatch.setitem(wiring._BACKENDS, "ipset", lambda _: IpsetFirewall(maxelem=2, most=2))
    kernel.does("sync")
    ips = [f"203.0.113.{n}" for n in range(1, 8)]
    answer = kernel.type("ban", "-j", "mc-exim-1d", *(word for ip in ips for word in ("-i", ip)))
    assert answer.status == 1 and len(answer.lines) == 7
    synced = kernel.type("sync")
    assert (synced.status, synced.lines) == (1, [])
    for said in (answer.err, synced.err):
        (line,) = said.splitlines()
        assert line.startswith("mcban: not enforced: 203.0.113.") and "2 more in mc-exim-1d: the set is full" in line
    document = kernel.type("sync", "--json").document
    refused = document["not_enforced"]
    assert (document["in_sync"], document["add"]) == (False, {})
    assert len({one["entry"] for one in refused}) == 5 and {one["jail"] for one in refused} == {"mc-exim-1d"}
    kernel.does("unban", *(word for one in refused for word in ("-i", one["entry"])))
    assert kernel.json("sync")["not_enforced"] == []


def test_what_is_refused_leaves_the_kernel_alone(kernel: Terminal, host: Host) -> None:
    """Bad input changes neither SQL nor sets nor rules."""
    kernel.does("sync")
    before = [host.run("ipset", "save", "-sorted"), host.run("iptables-save")]
    for status, typed in (
        (2, "ban -j mc-exmi -i 203.0.113.7"),
        (2, "ban -j mc-exim -i 203.0.113.7 -i nonsense"),
        (3, "ban -j mc-exim -i 203.0.113.7 -i 127.0.0.1"),
        (3, "ban -j mc-exim -i 203.0.113.7 -i 10.0.0.0/8"),
        (3, "jail change -j mc-exim-1d --option maxretry -v 99"),
        (65, "jail change -j mc-exim --option port -v 99999"),
        (65, "jail add -j mine --filter nope --logpath /x --port 25"),
    ):
        kernel.refuses(status, *typed.split())
    after = [host.run("ipset", "save", "-sorted"), host.run("iptables-save")]
    assert [_without_counters(text) for text in after] == [_without_counters(text) for text in before]


def _without_counters(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(("#", ":"))]


@pytest.mark.parametrize(
    "command",
    [
        "ban -j mc-exim -i 203.0.113.9",
        "unban -i 203.0.113.7",
        "whitelist add -i 203.0.113.7",
        "blacklist add -j mc-exim -i 203.0.113.7",
        "jail disable -j mc-exim",
        "general disable",
        "sync",
        "sync --check",
        "run",
        "run --once",
    ],
)
def test_without_net_admin(kernel: Terminal, command: str) -> None:
    """Whoever lacks CAP_NET_ADMIN gets 77, the capability's name and how a container gets it; SQL is not changed."""
    kernel.does("ban", "-j", "mc-exim", "-i", "203.0.113.7")
    open_to_all(kernel)
    before = kernel.dump()
    answer = kernel.process(*command.split(), before=WITHOUT_NET_ADMIN)
    last = answer.err.splitlines()[-1]
    assert (answer.status, answer.out) == (77, "")
    assert last.startswith("mcban: ")
    assert "CAP_NET_ADMIN" in last
    assert "--cap-add=NET_ADMIN" in last
    assert "Traceback" not in answer.err
    assert kernel.dump() == before


def test_looking_needs_no_net_admin(kernel: Terminal) -> None:
    """`show` says that it is not known what the kernel holds, and exits 0; lists and `status` need no kernel."""
    kernel.does("ban", "-j", "mc-exim-1d", "-i", "203.0.113.7")
    open_to_all(kernel)
    shown = kernel.process("show", "203.0.113.7", "--json", before=WITHOUT_NET_ADMIN)
    assert (shown.status, shown.err) == (0, "")
    assert [jail["enforced"] for jail in shown.document["jails"]] == [None]
    people = kernel.process("show", "203.0.113.7", before=WITHOUT_NET_ADMIN)
    assert people.lines[1].startswith("not known whether it is enforced: ")
    assert "CAP_NET_ADMIN" in people.lines[1]
    for command, status in (("banned", 0), ("whitelist list", 0), ("jail list", 0), ("db check", 0), ("status", 1)):
        answer = kernel.process(*command.split(), before=WITHOUT_NET_ADMIN)
        assert (answer.status, answer.err) == (status, ""), command


def open_to_all(terminal: Terminal) -> None:
    """Let everybody write the state directory, so that only the capability is missing."""
    terminal.database.parent.chmod(0o777)
    for file in terminal.database.parent.iterdir():
        file.chmod(0o666)


def test_the_hosts_own_addresses_and_gateways_are_protected(terminal: Terminal) -> None:
    """Addresses on any interface, and the gateway of any default route, simple, of several hops or by way of the
    other family, cannot be banned without --force."""
    require_netns()
    with two_hosts() as (server, _):
        server.run("ip", "route", "add", "default", "nexthop", "via", "192.0.2.77", "nexthop", "via", "192.0.2.78")
        server.run("ip", "route", "add", "default", "via", "192.0.2.79", "table", "77")
        server.run("ip", "route", "add", "default", "via", "inet6", "2001:db8::7a", "dev", "wire", "metric", "9")
        server.run("ip", "-6", "route", "add", "default", "via", "2001:db8::7b")
        server.run("ip", "addr", "add", "198.18.0.1", "peer", "198.18.0.2/32", "dev", "wire")
        with server.entered():
            for own in ("192.0.2.1", "2001:db8::1", "198.18.0.1", "127.0.0.9"):
                assert "protected (" in terminal.refuses(3, "ban", "-j", "mc-exim-1d", "-i", own)
            for gateway in ("192.0.2.77", "192.0.2.78", "192.0.2.79", "2001:db8::7a", "2001:db8::7b"):
                said = terminal.refuses(3, "ban", "-j", "mc-exim-1d", "-i", gateway)
                assert "protected (a default gateway)" in said
            assert terminal.does("ban", "-j", "mc-exim-1d", "-i", "198.18.0.2")


def test_picking_a_backend_opens_nothing(terminal: Terminal, host: Host) -> None:
    """A context for ipset can be made and closed by whoever may not use it."""
    from mcban.config import Config

    with host.entered():
        context = wire(Config(state_dir=terminal.folder / "state"))
        assert (context.firewall.name, context.firewall.enforces) == ("ipset", True)
        context.firewall.close()
        context.database.dispose()
