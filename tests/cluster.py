"""Gateways on one database, each with a kernel of its own: network namespaces on a bridge, beside one MariaDB server.

    with cluster(folder, 3) as nodes:
        nodes.start()
        nodes[0].mcban("ban", "-j", "mc-exim", "-i", "203.0.113.7")
        until(nodes.agree, "the ban everywhere")

The server listens on 10.77.0.1, the nodes have 10.77.0.11 and so on. All have the same jails, whose logs are under the
same path; what stands there is each node's own, since its engine runs in a mount namespace of its own.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import overload

from mcban import config
from mcban.core.ladder import split_name
from mcban.firewall.ipset_sets import Sets
from mcban.service.context import Context
from mcban.store import schema
from mcban.store.database import Database
from mcban.wiring import wire
from tests.e2e.node import GROUPS, MCBAN, Node, direct_logs
from tests.mariadb import new_database, private_server, sql
from tests.netns import Host, one_host
from tests.patience import until
from tests.wrong_clock import wrong_clock

SERVER = "10.77.0.1"
NAME = "mcban"
FAMILIES = (("", AF_INET), ("-v6", AF_INET6))


class ClusterNode(Node):
    """One of several gateways. `logs` is where all of them have their logs; what is there is found in `folder`."""

    def __init__(self, host: Host, folder: Path, database_url: str, logs: Path) -> None:
        super().__init__(host, folder, database_url=database_url)
        self.name, self.logs = folder.name, logs
        self.configure()
        Path(self.env["MCBAN_STATE_DIR"]).mkdir()
        self._sets = Sets()
        self.ahead = 0
        """Seconds by which this node's clock was set wrong."""

    def configure(self, *lines: str) -> None:
        """Write the settings: the node's name, and `lines`."""
        (self.folder / "mcban.toml").write_text("\n".join([f'node = "{self.name}"', *lines, ""]), "utf-8")

    def set_clock(self, cache: Path, ahead: int) -> None:
        """From now on what this node runs, and what its logs say, is by a clock that is so far ahead."""
        self.ahead = ahead
        self.env |= wrong_clock(cache, ahead)
        self.apart = True  # the library is loaded when a program starts

    def fail(self, group: str, ip: str, times: int = 1, ago: timedelta = timedelta()) -> None:
        """Let `ip` fail at the group's service, now or some time ago, by the clock of this node."""
        super().fail(group, ip, times, ago - timedelta(seconds=self.ahead))

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command whose logs are this node's own; what it says goes to the engine's log."""
        here = f"mount --bind {shlex.quote(str(self.folder))} {shlex.quote(str(self.logs))} && exec "
        with (self.folder / "engine.log").open("a", encoding="utf-8") as said:
            return self.host.popen(
                *("unshare", "--mount", "sh", "-c", here + shlex.join([MCBAN, *arguments])),
                env=self.env,
                stderr=said,
                stdout=subprocess.DEVNULL,
            )

    def launch(self) -> subprocess.Popen[str]:
        """Start the engine; `await_ready` waits for it."""
        (self.folder / "engine.log").write_text("", "utf-8")
        self.engine = self.popen("run")
        return self.engine

    def await_ready(self) -> None:
        """Until the engine is ready."""
        engine = self.engine
        assert engine is not None
        until(lambda: "INFO ready" in self.engine_log or engine.poll() is not None, "readiness")
        assert engine.poll() is None, self.engine_log

    def start(self) -> None:
        """Start the engine and wait until it is ready."""
        self.launch()
        self.await_ready()

    @contextmanager
    def wired(self) -> Iterator[Context]:
        """What a command on this node works with; the thread is there meanwhile. For what would take a command a second
        to start each time."""
        context = wire(config.load(None, self.env))
        try:
            with self.host.entered():
                yield context
        finally:
            context.firewall.close()
            context.database.dispose()

    def all_read(self) -> bool:
        """Whether the engine has read every log to its end and committed it."""
        positions = self.database.read(lambda t: t.positions.all(self.name))
        read = {Path(position.path).name: position.offset for position in positions}
        ours = [self.log(group) for group in GROUPS if self.log(group).exists()]
        return all(read.get(log.name) == log.stat().st_size for log in ours)

    def held(self, jails: Collection[str]) -> dict[str, set[str]]:
        """What the kernel's lists hold, by jail; a jail without lists is left out. Quicker than `entries`."""
        found: dict[str, set[str]] = {}
        with self.host.entered():
            for jail in jails:
                lists = [self._sets.entries(jail + suffix, family, 0) for suffix, family in FAMILIES]
                if None not in lists:
                    found[jail] = {entry for entries in lists for entry in entries or ()}
        return found

    def end_of(self, jail: str, ip: str) -> int:
        """When the kernel's entry ends, in seconds since the epoch."""
        with self.host.entered():
            entries = self._sets.entries(jail, AF_INET, int(time.time()))
        assert entries is not None
        return entries[ip]

    def end(self) -> None:
        """Whatever happened: no engine is left."""
        super().end()
        self._sets.close()


class Cluster(Sequence[ClusterNode]):
    """The nodes, and their database as `database` and in the client."""

    def __init__(self, nodes: list[ClusterNode], socket: Path, url: str) -> None:
        self._nodes, self.socket, self.url = nodes, socket, url
        self.database = Database(url)

    @overload
    def __getitem__(self, index: int) -> ClusterNode: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClusterNode]: ...
    def __getitem__(self, index: int | slice) -> ClusterNode | list[ClusterNode]:
        return self._nodes[index]

    def __len__(self) -> int:
        return len(self._nodes)

    def start(self) -> None:
        """Start every engine, and wait until all are ready."""
        for node in self:
            node.launch()
        for node in self:
            node.await_ready()

    def sql(self, statement: str) -> str:
        """Run `statement` in the client, as an administrator would type it; what it printed."""
        return sql(self.socket, statement, NAME).stdout

    def wanted(self) -> dict[str, set[str] | None]:
        """By jail, what SQL says the kernels should hold: the bans that run and that no row allows; None where the
        jail is disabled, and no list should be."""
        now = int(time.time())
        rows = self.database.read(lambda t: t.addresses.in_force(now))
        allowing = self.database.read(lambda t: t.addresses.allowing())
        jails = self.database.read(lambda t: t.jails.all())
        allowed = {(ip_network(row.ip), row.jail) for row in allowing}

        def is_allowed(ip: str, jail: str) -> bool:
            network = ip_network(ip)
            return any(
                jail == scope or scope in {"*", split_name(jail)[0]}
                for one, scope in allowed
                if one.version == network.version and one.overlaps(network)
            )

        def entries(jail: str) -> set[str]:
            return {row.ip for row in rows if row.jail == jail and not is_allowed(row.ip, jail)}

        return {jail.name: entries(jail.name) if jail.enabled else None for jail in jails}

    def differ(self) -> list[str]:
        """The nodes whose kernel does not hold what SQL says, each with how."""
        wanted = self.wanted()
        said = []
        for node in self:
            held = node.held(wanted)
            for jail, entries in wanted.items():
                if held.get(jail) != entries:
                    said.append(f"{node.name}: {jail} holds {held.get(jail)}, SQL says {entries}")
        return said

    def agree(self) -> bool:
        """Whether every node's kernel holds what SQL says."""
        return not self.differ()

    def end(self) -> None:
        """Whatever happened: no engine is left."""
        with ThreadPoolExecutor(len(self)) as pool:
            list(pool.map(ClusterNode.end, self))
        self.database.dispose()


@contextmanager
def cluster(folder: Path, count: int, *options: str) -> Iterator[Cluster]:
    """`count` nodes, their engines not started; `options` are the server's."""
    with ExitStack() as stack:
        middle = stack.enter_context(one_host())
        middle.run("ip", "link", "add", "net", "type", "bridge")
        middle.run("ip", "addr", "add", f"{SERVER}/24", "dev", "net")
        middle.run("ip", "link", "set", "net", "up")
        with middle.entered():
            listen = ("--skip-networking=0", "--port=3306", f"--bind-address={SERVER}", "--skip-name-resolve")
            socket = stack.enter_context(private_server(folder, *listen, *options))
        url = new_database(socket, NAME)
        sql(socket, f"CREATE USER mcban; GRANT ALL ON `{NAME}`.* TO mcban", NAME)
        logs = folder / "logs"
        logs.mkdir()
        _prepare(url, logs)
        nodes = []
        for number in range(1, count + 1):
            host = stack.enter_context(one_host())
            _connect(middle, host, number)
            node = ClusterNode(host, folder / f"node{number}", f"mysql+pymysql://mcban@{SERVER}/{NAME}", logs)
            node.database.dispose()
            node.database = Database(url)  # for the tests, which are not on that network
            nodes.append(node)
        made = Cluster(nodes, socket, url)
        stack.callback(made.end)
        yield made


def _prepare(url: str, logs: Path) -> None:
    database = Database(url)
    schema.upgrade(database)
    direct_logs(database, logs)
    database.dispose()


def _connect(middle: Host, host: Host, number: int) -> None:
    """Put `host` on the bridge."""
    host.ipv4 = f"10.77.0.{10 + number}"
    wire_name = f"node{number}"
    subprocess.run(
        ["ip", "-n", middle.name, "link", "add", wire_name, "type", "veth", "peer", "name", "wire", "netns", host.name],
        check=True,
    )
    middle.run("ip", "link", "set", wire_name, "master", "net", "up")
    host.run("ip", "addr", "add", f"{host.ipv4}/24", "dev", "wire")
    host.run("ip", "link", "set", "wire", "up")
