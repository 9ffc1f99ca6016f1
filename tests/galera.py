"""Three private `mariadbd` as one Galera cluster, each in a network namespace of its own, on one bridge.

The first founds the cluster and stops; the others begin with copies of its files. So none needs to have them sent, and
all are there within seconds: what a node missed it gets as changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.debian import unpacked
from tests.mariadb import install, sql
from tests.netns import Host
from tests.patience import PATIENCE

LIBRARY = "usr/lib/galera/libgalera_smm.so"
NODES = 3

# A node that does not answer is given up after two seconds, not five.
_PROVIDER = ";".join(
    (
        "evs.keepalive_period=PT0.5S",
        "evs.suspect_timeout=PT2S",
        "evs.inactive_timeout=PT8S",
        "evs.inactive_check_period=PT0.5S",
        "evs.install_timeout=PT8S",
        "gcache.size=64M",
    )
)

# How a joiner gets the others' files: never, since it has them. All that passes is the place from which on it wants
# the changes. (The protocol of these programs: MariaDB's wsrep_sst_rsync.)
_TRANSFER = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --role) role=$2; shift ;; --address) address=$2; shift ;; --datadir) data=$2; shift ;;
    --gtid) gtid=$2; shift ;; --gtid-domain-id) domain=$2; shift ;; --bypass) bypass=1 ;;
  esac
  shift
done
place="$data/../../from-$address"
if [ "$role" = joiner ]; then
  rm -f "$place"
  echo "ready $address"
  for _ in $(seq 2400); do [ -f "$place" ] && cat "$place" && exit 0; sleep 0.05; done
  exit 110
fi
[ "$bypass" ] || { echo "this node's files are wanted, which no test does" >&2; exit 95; }
echo continue
echo "$gtid ${domain:-0}" >"$place.new" && mv "$place.new" "$place"
echo "done $gtid ${domain:-0}"
"""


def library(cache: Path) -> Path:
    """Galera itself: the one installed, else unpacked into `cache`. Raises MissingPackageError."""
    installed = Path("/", LIBRARY)
    return installed if installed.exists() else unpacked(cache, "galera-4") / LIBRARY


class Node:
    """One server of the cluster."""

    def __init__(self, number: int, folder: Path, bridge: Host) -> None:
        self.number, self.folder = number, folder
        self.socket = folder / "s"
        self.address = f"10.99.0.{number}"
        self.host = Host(f"{bridge.name}n{number}", self.address)
        self._wire = f"g{number}"
        self._bridge = bridge
        self._process: subprocess.Popen[str] | None = None

    def url(self, name: str) -> str:
        """The URL of a database, by way of this node's socket."""
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.socket}"

    def sql(self, statement: str, database: str = "", *, check: bool = True) -> str:
        """Run `statement` here, in the `mariadb` client."""
        return sql(self.socket, statement, database, check=check).stdout

    def connect(self) -> None:
        """The namespace, and a wire from it to the bridge."""
        self.folder.mkdir()
        _ip("netns", "add", self.host.name)
        _ip("-n", self._bridge.name, "link", "add", self._wire, "type", "veth", "peer", "eth0", "netns", self.host.name)
        _ip("-n", self._bridge.name, "link", "set", self._wire, "master", "bridge0", "up")
        for command in ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up"):
            _ip("-n", self.host.name, *command.split())

    def cut_off(self, *, cut: bool = True) -> None:
        """Pull the wire, or put it back."""
        _ip("-n", self._bridge.name, "link", "set", self._wire, "down" if cut else "up")

    def start(self, provider: Path, *, first: bool = False, recover: bool = False) -> None:
        """Start the server; `first` founds the cluster, `recover` goes on from where it was killed. See
        `await_synced`."""
        others = "" if first else ",".join(f"10.99.0.{n}" for n in range(1, NODES + 1))
        command = [
            *(["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []),
            shutil.which("mariadbd") or "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            "--bind-address=0.0.0.0",
            "--user=root",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=16M",
            "--performance-schema=OFF",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={provider}",
            f"--wsrep-provider-options={_PROVIDER}",
            "--wsrep-cluster-name=mcban",
            f"--wsrep-cluster-address=gcomm://{others}",
            f"--wsrep-node-address={self.address}",
            f"--wsrep-node-name=n{self.number}",
            "--wsrep-sst-method=copied",
            "--wsrep-slave-threads=2",
        ]
        if recover:
            # As `galera_recovery`, which Debian's unit runs: the log of the storage says how far it came.
            done = subprocess.run([*command, "--wsrep-recover"], capture_output=True, text=True, check=True)
            position = (done.stderr + done.stdout).rpartition("Recovered position: ")[2].split()[0]
            command.append(f"--wsrep-start-position={position}")
        with (self.folder / "log").open("ab") as log:
            path = f"{self.folder.parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
            self._process = self.host.popen(*command, stdout=log, stderr=log, env={**os.environ, "PATH": path})

    def await_synced(self) -> None:
        """Until it takes part; raises RuntimeError with its log when it does not."""
        end = time.monotonic() + PATIENCE
        ask = "SHOW STATUS LIKE 'wsrep_local_state_comment'"
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            if "Synced" in self.sql(ask, check=False):
                return
            time.sleep(0.05)
        log = (self.folder / "log").read_text(errors="replace")
        raise RuntimeError(f"node {self.number} did not join:\n{log[-3000:]}")

    def stop(self) -> None:
        """As an administrator does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def kill(self) -> None:
        """As a power failure does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Whatever happened, nothing is left."""
        self.kill()
        subprocess.run(["ip", "netns", "del", self.host.name], check=False, capture_output=True)


class Cluster:
    """The nodes, and the way to start one again."""

    def __init__(self, nodes: list[Node], provider: Path) -> None:
        self.nodes, self._provider = nodes, provider

    def new_database(self) -> str:
        """The name of a database that all nodes have."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.nodes[0].sql(f"CREATE DATABASE `{name}`")
        return name

    def restart(self, node: Node) -> None:
        """Start a node again that was killed."""
        node.start(self._provider, recover=True)
        node.await_synced()


@contextmanager
def private_cluster(folder: Path, provider: Path) -> Iterator[Cluster]:
    """A cluster that runs; it is gone afterwards."""
    bridge = Host(f"mcban-g{uuid.uuid4().hex[:6]}")
    script = folder / "wsrep_sst_copied"
    script.write_text(_TRANSFER)
    script.chmod(0o755)
    with ExitStack() as stack:
        _ip("netns", "add", bridge.name)
        stack.callback(subprocess.run, ["ip", "netns", "del", bridge.name], check=False, capture_output=True)
        _ip("-n", bridge.name, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", bridge.name, "link", "set", "bridge0", "up")
        nodes = [Node(number, folder / f"n{number}", bridge) for number in range(1, NODES + 1)]
        for node in nodes:
            stack.callback(node.remove)
            node.connect()
        founder, *others = nodes
        install(founder.folder / "data")
        founder.start(provider, first=True)
        founder.await_synced()
        founder.stop()
        for node in others:
            shutil.copytree(founder.folder / "data", node.folder / "data")
            (node.folder / "data/gvwstate.dat").unlink(missing_ok=True)
        founder.start(provider, first=True)
        founder.await_synced()
        for node in others:
            node.start(provider)
        for node in others:
            node.await_synced()
        yield Cluster(nodes, provider)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, env={**os.environ})
