"""Private network namespaces for tests: one alone, or two hosts on a wire that exchange real packets.

    with two_hosts() as (server, client):
        server.listen(25, 80)
        with server.entered():
            ...  # this thread, and what it starts, is on the server
        assert client.connect(server.ipv4, 25, source="203.0.113.9") == "accepted"

The client may connect from every address of 203.0.113.0/24, 198.51.100.0/24 and 2001:db8:1::/48. Nothing here touches
the namespace of the machine, and everything is taken away at the end, whatever happened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.missing import skip_or_fail
from tests.patience import PATIENCE, until

CLONE_NEWNET = 0x40000000
IPV6_FREEBIND = 78
IP_FREEBIND = 15
NO_ANSWER = 0.5
"""Seconds after which nobody is taken to answer, where that is what is expected."""
TOOLS = ("ip", "ipset", "iptables", "ip6tables", "iptables-legacy", "nft", "conntrack")


def why_not() -> str | None:
    """What this machine lacks for tests with the kernel; None when it lacks nothing."""
    if os.geteuid() != 0:
        return "namespaces need root"
    gone = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
    return f"not installed: {', '.join(gone)}" if gone else None


def require_netns() -> None:
    """Skip the test, saying why, where namespaces cannot be made; under CI that is a failure."""
    lacking = why_not()
    if lacking:
        skip_or_fail(lacking)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """A network namespace. `ipv4` and `ipv6` are its own addresses on the wire, empty for one that stands alone."""

    def __init__(self, name: str, ipv4: str = "", ipv6: str = "") -> None:
        self.name = name
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self._children: list[int] = []

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the processes that it starts, are on the host; sockets opened stay there for ever."""
        before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def run(self, *command: str, check: bool = True, text: str = "") -> str:
        """Run a command on the host with `text` as its input, and return what it printed."""
        done = self.process(*command, text=text)
        if check and done.returncode != 0:
            raise AssertionError(f"{command} failed with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def process(
        self, *command: str, text: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, whatever it returns."""
        with self.entered():
            return subprocess.run(
                list(command), input=text, capture_output=True, text=True, check=False, env=env, timeout=PATIENCE
            )

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process on the host; the caller ends it."""
        with self.entered():
            return subprocess.Popen(list(command), text=True, **options)

    def call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        """What a callable returns, or raises, on the host, in a child process: its result must be picklable."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._answer(write, do, arguments)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        good, value = pickle.loads(answer)
        if not good:
            raise value
        return value

    def _answer(self, write: int, do: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """The child's side of `call`: it never returns."""
        try:
            there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            _setns(there)
            os.close(there)
            answer = pickle.dumps((True, do(*arguments)))
        except BaseException as error:  # noqa: BLE001  # the parent raises it
            try:
                answer = pickle.dumps((False, error))
                pickle.loads(answer)
            except Exception:  # noqa: BLE001  # an error that cannot be pickled is told as text
                answer = pickle.dumps((False, AssertionError(traceback.format_exc())))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)

    def listen(self, *ports: int) -> None:
        """TCP listeners on these ports, for both families, in a process that echoes what it is sent."""
        with self.entered():
            listeners = [socket.create_server(("::", p), family=socket.AF_INET6, dualstack_ipv6=True) for p in ports]
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                _echo(listeners)
            os._exit(0)
        for listener in listeners:
            listener.close()
        self._children.append(child)

    def connection(
        self, address: str, port: int, source: str | None = None, patience: float = PATIENCE
    ) -> socket.socket:
        """An open TCP connection from this host; raises as `connect` does."""
        six = ":" in address
        with self.entered():
            sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(patience)
        try:
            if source is not None:
                level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if six else (socket.IPPROTO_IP, IP_FREEBIND)
                sock.setsockopt(level, option, 1)
                sock.bind((source, 0))
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self, address: str, port: int, source: str | None = None, patience: float = PATIENCE) -> str:
        """Try a TCP connection from this host: "accepted", "refused" or "timeout" (after `patience` seconds)."""
        try:
            self.connection(address, port, source, patience).close()
        except TimeoutError:
            return "timeout"
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return "timeout"
        return "accepted"

    def send_udp(self, address: str, port: int, source: str | None = None, patience: float = PATIENCE) -> str:
        """Send a datagram: "refused" when an ICMP answer comes within `patience` seconds, else "silence"."""
        with self.entered():
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.settimeout(patience)
            if source is not None:
                sock.bind((source, 0))
            sock.connect((address, port))
            sock.send(b"hello")
            try:
                sock.recv(1)
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return "silence"
        return "answered"

    def _end(self) -> None:
        for child in self._children:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.name)


def _echo(listeners: list[socket.socket]) -> None:
    open_now: list[socket.socket] = list(listeners)
    while True:
        for sock in select.select(open_now, [], [])[0]:
            if sock in listeners:
                open_now.append(sock.accept()[0])
                continue
            try:
                data = sock.recv(4096)
                if data:
                    sock.sendall(data)
            except OSError:
                data = b""
            if not data:
                open_now.remove(sock)
                sock.close()


@contextmanager
def one_host() -> Iterator[Host]:
    """A namespace by itself, with its loopback up."""
    host = Host(f"mcban-{uuid.uuid4().hex[:8]}")
    try:
        _ip("netns", "add", host.name)
        host.run("ip", "link", "set", "lo", "up")
        yield host
    finally:
        host._end()


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """A server and a client on a wire; see the module's example."""
    with one_host() as server, one_host() as client:
        server.ipv4, client.ipv4 = "192.0.2.1", "192.0.2.2"
        server.ipv6, client.ipv6 = "2001:db8::1", "2001:db8::2"
        _ip("-n", server.name, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", client.name)
        for host in (server, client):
            host.run("ip", "addr", "add", f"{host.ipv4}/24", "dev", "wire")
            host.run("ip", "-6", "addr", "add", f"{host.ipv6}/64", "dev", "wire", "nodad")
            host.run("ip", "link", "set", "wire", "up")
        for network in ("203.0.113.0/24", "198.51.100.0/24"):
            server.run("ip", "route", "add", network, "via", client.ipv4)
            client.run("ip", "route", "add", "local", network, "dev", "lo")
        server.run("ip", "-6", "route", "add", "2001:db8:1::/48", "via", client.ipv6)
        client.run("ip", "-6", "route", "add", "local", "2001:db8:1::/48", "dev", "lo")
        with client.entered():
            Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
        _await_wire(server, client)
        yield server, client


def _await_wire(server: Host, client: Host) -> None:
    """Until both families pass: a veth pair takes a moment to come up."""

    def answers(address: str) -> bool:
        return client.connect(address, 1, patience=0.3) == "refused"

    for address in (server.ipv4, server.ipv6):
        until(partial(answers, address), f"an answer of {address}")
