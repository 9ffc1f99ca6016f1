"""The rules: which lines our chain should have, which it has, and one atomic call per family to make them so.

Owns the text that `iptables-save` prints and `iptables-restore` takes. All of ours is a chain `mcban` and one jump to
it, at the first place of each chain that the settings name, so that packets of established connections come by too.
Works with iptables-nft and iptables-legacy: what `iptables` is on this host is the host's choice.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mcban.core.model import Ports
from mcban.core.plan import Rule
from mcban.errors import FirewallError, NoPermissionError, printable
from mcban.firewall.base import LIST_SUFFIX

CHAIN = "mcban"
PORTS_IN_A_RULE = 15
"""What iptables' multiport takes; a range counts as two."""
PATIENCE = 20
"""Seconds that a program may take, waiting for iptables' lock included."""
_TRIES = 5
"""Times that it is started, when somebody presses Ctrl-C again and again."""
NO_RAW_SOCKETS = (
    "no permission to change the firewall: CAP_NET_RAW is missing, which iptables needs beside CAP_NET_ADMIN; run as "
    "root, or give a container --cap-add=NET_ADMIN --cap-add=NET_RAW (compose: cap_add: [NET_ADMIN, NET_RAW])"
)
BUILT_IN = ("INPUT", "FORWARD", "OUTPUT")


@dataclass(frozen=True, slots=True)
class Family:
    """The programs and words of one address family."""

    name: str
    program: str
    unreachable: str


IPV4 = Family("IPv4", "iptables", "icmp-port-unreachable")
IPV6 = Family("IPv6", "ip6tables", "icmp6-port-unreachable")

_Line = frozenset[str]
"""A rule as its parts, whatever order a version of iptables prints them in."""


@dataclass(frozen=True, slots=True)
class Table:
    """What stands in a family's `filter` table. `rules` are the groups whose lines are exactly as we write them, with
    no word on their jails; `broken` are groups of which something else stands, `strange` lines are of nobody."""

    chain: bool = False
    first: frozenset[str] = frozenset()
    chains: frozenset[str] = frozenset(BUILT_IN)
    jumps: tuple[str, ...] = ()
    rules: Mapping[str, Rule] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    strange: tuple[str, ...] = ()
    conditional: tuple[str, ...] = ()
    nft: bool = False

    def jump_stands(self, chain: str) -> bool:
        """Whether `chain` begins with the jump to ours."""
        return chain in self.first


def _port_lists(ports: Ports) -> list[str]:
    """The ports as multiport takes them, one text for each rule that they need."""
    lists: list[list[str]] = []
    room = 0
    for low, high in ports.ranges:
        cost = 1 if low == high else 2
        if cost > room:
            lists.append([])
            room = PORTS_IN_A_RULE
        lists[-1].append(str(low) if low == high else f"{low}:{high}")
        room -= cost
    return [",".join(some) for some in lists]


def lines(family: Family, group: str, rule: Rule) -> list[str]:
    """The lines of our chain for one group."""
    match = f"-m set --match-set {group}{LIST_SUFFIX} src"
    reset = "-j DROP" if rule.drop else "-j REJECT --reject-with tcp-reset"
    if rule.ports.everything:
        if rule.drop:
            return [f"-A {CHAIN} {match} -j DROP"]
        rest = f"-A {CHAIN} {match} -j REJECT --reject-with {family.unreachable}"
        return [f"-A {CHAIN} -p tcp {match} {reset}", rest]
    return [f"-A {CHAIN} -p tcp {match} -m multiport --dports {some} {reset}" for some in _port_lists(rule.ports)]


def _parts(line: str) -> _Line:
    """The options of a rule with their values. Which match module an option belongs to is left out, and one port
    may be printed as `--dport`."""
    found: list[list[str]] = []
    negated = ""
    for word in line.split()[2:]:
        if word == "!":
            negated = "! "
        elif word.startswith("-") or not found:
            found.append([negated + ("--dports" if word == "--dport" else word)])
            negated = ""
        else:
            found[-1].append(word)
    return frozenset(" ".join(option) for option in found if option[0] != "-m")


def _group_of(line: str) -> str | None:
    words = line.split()
    if "--match-set" not in words[:-1]:
        return None
    name = words[words.index("--match-set") + 1]
    return name.removesuffix(LIST_SUFFIX) if name.endswith(LIST_SUFFIX) else None


def _guess(found: Sequence[str]) -> Rule:
    """The rule that some lines of a group seem to be; whether they are it is compared afterwards."""
    ranges: list[tuple[int, int]] = []
    for line in found:
        for option in _parts(line):
            if option.startswith("--dports "):
                for text in option.removeprefix("--dports ").split(","):
                    low, _, high = text.partition(":")
                    if low.isdigit() and (high or low).isdigit():
                        ranges.append((int(low), int(high or low)))
    return Rule((), Ports(tuple(ranges)), drop="-j DROP" in _parts(found[0]))


def parse(family: Family, text: str) -> Table:
    """What `iptables-save -t filter` printed, as far as it concerns us."""
    chains, jumps, first, conditional = set(BUILT_IN), [], set(), []
    seen: set[str] = set()
    ours: dict[str, list[str]] = {}
    strange: list[str] = []
    chain = False
    for line in text.splitlines():
        if line.startswith(":"):
            name = line[1:].split()[0]
            chains.add(name)
            chain = chain or name == CHAIN
        elif line.startswith(f"-A {CHAIN} "):
            group = _group_of(line)
            if group is None:
                strange.append(line)
            else:
                ours.setdefault(group, []).append(line)
        elif line.startswith("-A "):
            name = line.split()[1]
            if line == f"-A {name} -j {CHAIN}":
                jumps.append(name)
                if name not in seen:
                    first.add(name)
            elif line.endswith((f" -j {CHAIN}", f" -g {CHAIN}")):
                conditional.append(line)
            seen.add(name)
    rules = {group: _guess(found) for group, found in ours.items()}
    broken = {
        group
        for group, rule in rules.items()
        if list(map(_parts, lines(family, group, rule))) != list(map(_parts, ours[group]))
    }
    return Table(
        chain=chain,
        first=frozenset(first),
        chains=frozenset(chains),
        jumps=tuple(jumps),
        rules={group: rule for group, rule in rules.items() if group not in broken},
        broken=frozenset(broken),
        strange=tuple(strange),
        conditional=tuple(conditional),
        nft=text.startswith("#") and "(nf_tables)" in text.partition("\n")[0],
    )


def installation(family: Family, table: Table, chains: Iterable[str], rules: Mapping[str, Rule]) -> str:
    """The text that gives our chain exactly these rules, and each chain that is there its jump."""
    wanted = [f":{CHAIN} - [0:0]"]
    for chain in chains:
        if chain in table.chains and not (table.jump_stands(chain) and table.jumps.count(chain) == 1):
            wanted += [f"-D {chain} -j {CHAIN}"] * table.jumps.count(chain)
            wanted.append(f"-I {chain} 1 -j {CHAIN}")
    for group, rule in rules.items():
        wanted += lines(family, group, rule)
    return "\n".join(["*filter", *wanted, "COMMIT", ""])


def removal(table: Table) -> str:
    """The text that takes our chain away with its jumps; only empties it where a rule of others leads to it."""
    wanted = [f":{CHAIN} - [0:0]", *(f"-D {chain} -j {CHAIN}" for chain in table.jumps)]
    if not table.conditional:
        wanted.append(f"-X {CHAIN}")
    return "\n".join(["*filter", *wanted, "COMMIT", ""])


def read(family: Family) -> Table:
    """The family's table as it is. Raises FirewallError and NoPermissionError."""
    return parse(family, _run(f"{family.program}-save", ["-t", "filter"], ""))


def write(family: Family, text: str) -> None:
    """Hand a text to `iptables-restore`: all of it takes effect, or nothing. Raises FirewallError and
    NoPermissionError."""
    _run(f"{family.program}-restore", ["--noflush", f"--wait={PATIENCE // 2}"], text)


def _may_open_raw_sockets() -> bool:
    """Whether we have what iptables' set match needs beside CAP_NET_ADMIN: it asks for a set through a raw socket."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _run(program: str, arguments: list[str], text: str) -> str:
    """Run one of iptables' programs. They are in sbin, which the PATH of a service or of cron may lack."""
    path = ":".join(filter(None, [os.environ.get("PATH"), "/usr/sbin", "/sbin"]))
    try:
        for _ in range(_TRIES):
            done = subprocess.run(
                [program, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
                env={"PATH": path, "LC_ALL": "C"},
                process_group=0,  # Ctrl-C is for the engine, which ends in order, not for half of a change of rules
            )
            if done.returncode != -signal.SIGINT:  # which came before the child was in a group of its own
                break
    except FileNotFoundError as error:
        raise FirewallError(f"{program} not found; install Debian's package iptables") from error
    except subprocess.TimeoutExpired as error:
        raise FirewallError(
            f"{program} did not end within {PATIENCE} s; does another program hold its lock?"
        ) from error
    except OSError as error:
        raise FirewallError(f"{program} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        if not _may_open_raw_sockets():
            raise NoPermissionError(NO_RAW_SOCKETS)
        said = next((line for line in done.stderr.splitlines() if line.strip()), "it does not say why")
        raise FirewallError(f"{program} failed with status {done.returncode}: {printable(said.strip())}")
    return done.stdout
