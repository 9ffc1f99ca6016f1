"""`make demo`: in a private network namespace an attacker climbs the ladder, and real connections are refused.

Nothing outside is touched: the namespaces, their firewall and a temporary folder go with this process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

SERVER, ATTACKER = "192.0.2.1", "203.0.113.7"
PORTS = (25, 80)
MCBAN = str(Path(sys.executable).with_name("mcban"))
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
DEADLINE = 10.0
attacker_host: list[subprocess.Popen[bytes]] = []


def main() -> None:
    """Enter a private namespace, then play."""
    if os.environ.get("MCBAN_DEMO") != "inside":
        enter_namespace()
    with tempfile.TemporaryDirectory(prefix="mcban-demo-") as name:
        folder = Path(name)
        os.environ |= {
            "MCBAN_CONFIG": str(folder / "mcban.toml"),
            "MCBAN_STATE_DIR": str(folder),
            "MCBAN_FIREWALL": "ipset",
        }
        os.environ.pop("MCBAN_DATABASE_URL", None)
        (folder / "mcban.toml").write_text("", "utf-8")
        processes: list[subprocess.Popen[bytes]] = []
        try:
            play(folder, processes)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(60)


def enter_namespace() -> None:
    """Start again inside `unshare`, as root of a user namespace of our own when we are not root."""
    lacking = [tool for tool in ("unshare", "ip", "ipset", "iptables-restore") if shutil.which(tool) is None]
    if lacking:
        sys.exit(f"demo: not installed: {', '.join(lacking)} (Debian: apt-get install iproute2 ipset iptables)")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    flags = ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*flags, "true"], capture_output=True, check=False).returncode != 0:
        sys.exit("demo: this system lets us make no namespaces: run it as root (in a container, a privileged one)")
    done = subprocess.run([*flags, sys.executable, __file__], env=os.environ | {"MCBAN_DEMO": "inside"}, check=False)
    sys.exit(done.returncode)


def play(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """The story, told as it happens."""
    log = folder / "mainlog"
    # iptables wants to lock a file that only root of the machine may open.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    wire(processes)
    say("A gateway with a mail port and a web port, and an attacker on the other end of a wire.")
    run("mcban db upgrade")
    run(f"mcban jail change -j mc-exim --option logpath -v {log}", quiet=True)
    engine_log = (folder / "engine.log").open("wb")
    processes.append(subprocess.Popen([MCBAN, "run"], stderr=engine_log))
    wait_for(lambda: subprocess.run([MCBAN, "status"], capture_output=True, check=False).returncode == 0)
    wait_for(lambda: b"ready" in (folder / "engine.log").read_bytes())
    expect(25, "accepted")
    for tier, hits in (("1d", 5), ("1w", 10), ("1m", 15), ("1y", 20)):
        say(f"It fails to log in five times more, {hits} in all:")
        fail(log, 5)
        wait_for(partial(banned, f"mc-exim-{tier}"))
        run(f"ipset list mc-exim-{tier}", only=f"{ATTACKER} ")
    expect(25, "refused")
    expect(80, "accepted")
    say("Somebody takes pity, three times, and each time it fails five times again. The fourth ban is for ever:")
    for turn in range(3):
        run(f"mcban unban -j mc-exim -i {ATTACKER}", only="mc-exim-1d")
        fail(log, 5)
        wait_for(partial(banned, "mc-exim-1d" if turn < 2 else "mc-exim-bl"))
    run(f"mcban show {ATTACKER}")
    run("ipset list mc-exim-bl", only=f"{ATTACKER} ")
    expect(25, "refused")
    say("And let back in by hand:")
    run(f"mcban unban -j mc-exim -i {ATTACKER}")
    expect(25, "accepted")
    say("That was all; nothing of it is left.")


def wire(processes: list[subprocess.Popen[bytes]]) -> None:
    """A second namespace for the attacker, joined to ours by a pair of interfaces; two services here."""
    # The attacker's host is a process that makes connections on demand: port and answer, a line each.
    attacker = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", CONNECTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    processes.append(attacker)
    attacker_host.append(attacker)
    assert attacker.stdout is not None
    attacker.stdout.readline()
    for command in (
        "ip link set lo up",
        f"ip link add gate type veth peer name away netns {attacker.pid}",
        f"ip address add {SERVER}/24 dev gate",
        "ip link set gate up",
        f"ip route add {ATTACKER}/32 dev gate",
        f"nsenter --net --target {attacker.pid} ip link set lo up",
        f"nsenter --net --target {attacker.pid} ip address add {ATTACKER}/32 dev away",
        f"nsenter --net --target {attacker.pid} ip link set away up",
        f"nsenter --net --target {attacker.pid} ip route add {SERVER}/32 dev away",
    ):
        subprocess.run(shlex.split(command), check=True)
    processes += [subprocess.Popen([sys.executable, "-c", LISTENER, str(port)]) for port in PORTS]
    wait_for(lambda: all(connect(port) == "accepted" for port in PORTS))


CONNECTOR = f"""
import socket, sys
print("here", flush=True)
for line in sys.stdin:
    try:
        socket.create_connection(("{SERVER}", int(line)), 2).close()
        print("accepted", flush=True)
    except ConnectionRefusedError:
        print("refused", flush=True)
    except OSError as error:
        print(error, flush=True)
"""
LISTENER = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


def connect(port: int) -> str:
    """What becomes of a connection from the attacker to `port`: accepted, refused, or the error."""
    host = attacker_host[0]
    assert host.stdin is not None and host.stdout is not None
    host.stdin.write(f"{port}\n".encode())
    host.stdin.flush()
    return host.stdout.readline().decode().strip()


def expect(port: int, answer: str) -> None:
    """Try a real connection and say how it went; anything else than `answer` ends the demo."""
    found = connect(port)
    say(f"A connection from {ATTACKER} to port {port} is {BOLD}{found}{PLAIN}.")
    if found != answer:
        sys.exit(f"demo: it should have been {answer}")


def fail(log: Path, times: int) -> None:
    """Write to the mail log what exim writes when a login fails."""
    with log.open("a", encoding="utf-8") as file:
        for _ in range(times):
            at = datetime.now().strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ005  # exim writes local time without a zone
            file.write(
                f"{at} login authenticator failed for (User) [{ATTACKER}]: "
                "535 Incorrect authentication data (set_id=info@example.com)\n"
            )


def banned(name: str) -> bool:
    """Whether the kernel's list holds the attacker."""
    return subprocess.run(["ipset", "-q", "test", name, ATTACKER], check=False).returncode == 0


def run(command: str, *, only: str = "", quiet: bool = False) -> None:
    """Run a command as an administrator would type it, and show it with its answer, or the lines with `only`."""
    arguments = shlex.split(command)
    program = MCBAN if arguments[0] == "mcban" else arguments[0]
    done = subprocess.run([program, *arguments[1:]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"demo: {command}: {done.stderr}")
    if not quiet:
        print(f"  {BOLD}# {command}{PLAIN}")
        for line in done.stdout.splitlines():
            if only in line:
                print(f"  {line}", flush=True)


def say(text: str) -> None:
    """Tell the story on."""
    print(f"\n{text}", flush=True)


def wait_for(happened: Callable[[], bool]) -> None:
    """Until it has happened."""
    end = time.monotonic() + DEADLINE
    while not happened():
        if time.monotonic() > end:
            sys.exit("demo: the engine did not do its part in time")
        time.sleep(0.05)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
