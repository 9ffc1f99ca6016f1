"""fail2ban's own figures: how fast it puts its bans back after a restart, with its ipset action, and what reading a
log takes it.

Its server runs on a configuration and a database in a temporary folder, where it touches a firewall in the namespace
that is given; the files of Debian's package are enough, wherever they were unpacked (`FAIL2BAN_ROOT`), and nothing of
an installed one is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.netns import Host

PATIENCE = 120.0


def client() -> Path | None:
    """fail2ban-client, unpacked or installed; None when there is none."""
    root = os.environ.get("FAIL2BAN_ROOT")
    if root:
        return Path(root, "usr/bin/fail2ban-client")
    found = shutil.which("fail2ban-client")
    return Path(found) if found else None


def restored_per_second(host: Host, folder: Path, bans: int) -> float:
    """Bans a second from the server's start until all of `bans` are in its list again."""
    program = client()
    assert program is not None
    command, env = _installation(
        folder,
        f"[bench]\nenabled = true\nfilter = sshd\nlogpath = {folder / 'empty.log'}\nbackend = polling\n"
        "bantime = 1w\nbanaction = iptables-ipset\naction = iptables-ipset[type=multiport, port=25, maxelem=1000000]\n",
    )

    def tell(*words: str) -> None:
        done = host.process(*command, *words, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"fail2ban-client {words[0]}: {done.stdout}{done.stderr}")

    server = [str(program.with_name("fail2ban-server")), *command[2:], "-f", "start"]
    for turn in range(2):
        begun = time.perf_counter()
        process = host.popen("/usr/bin/python3", *server, env=env, stderr=subprocess.DEVNULL)
        try:
            if turn == 0:
                _await(lambda: host.process(*command, "ping", env=env).returncode == 0)
                for start in range(0, bans, 500):
                    some = [f"11.0.{n >> 8 & 255}.{n & 255}" for n in range(start, min(start + 500, bans))]
                    tell("set", "bench", "banip", *some)
            _await(lambda: _entries(host) >= bans)
            took = time.perf_counter() - begun
            tell("stop")
            process.wait(PATIENCE)
        finally:
            process.kill()
    return bans / took


def caught_up(folder: Path, log: Path) -> tuple[float, float]:
    """Seconds of CPU from the server's start until four jails with the ladder's thresholds have read `log`, banning
    without an action, and its largest memory in MB."""
    program = client()
    assert program is not None
    jails = (
        f"[exim-{n}]\nenabled = true\nfilter = exim\nlogpath = {log}\nbackend = polling\nfindtime = 1w\n"
        f"bantime = 1w\nmaxretry = {n}\naction =\n"
        for n in (5, 10, 15, 20)
    )
    command, env = _installation(folder, "\n".join(jails))
    server = ["/usr/bin/python3", str(program.with_name("fail2ban-server")), *command[2:], "-f", "start"]
    process = subprocess.Popen(server, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # It reads while it takes CPU, and has nothing to do but look at the clock afterwards.
        taken, quiet = _processor(process.pid), 0
        end = time.monotonic() + PATIENCE
        while quiet < 4:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("fail2ban ended, or did not catch up in time")
            time.sleep(0.5)
            before, taken = taken, _processor(process.pid)
            quiet = quiet + 1 if taken - before < 0.1 and taken > 1 else 0
    finally:
        process.terminate()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return taken, used.ru_maxrss / 1024


def _installation(folder: Path, jails: str) -> tuple[list[str], dict[str, str]]:
    """fail2ban-client as a command, and its environment, for a configuration in `folder` that has these jails only."""
    program, root = client(), Path(os.environ.get("FAIL2BAN_ROOT", "/"))
    config = folder / "fail2ban"
    shutil.rmtree(config, ignore_errors=True)
    shutil.copytree(root / "etc/fail2ban", config)
    shutil.rmtree(config / "jail.d", ignore_errors=True)
    (config / "jail.local").write_text(jails, "utf-8")
    (folder / "empty.log").touch()
    (folder / "fail2ban.sqlite3").unlink(missing_ok=True)
    (config / "fail2ban.local").write_text(
        f"[Definition]\ndbfile = {folder / 'fail2ban.sqlite3'}\nlogtarget = {folder / 'fail2ban.log'}\n", "utf-8"
    )
    files = ("-c", config, "-s", folder / "sock", "-p", folder / "pid")
    # Debian's package has its modules in dist-packages, which is not on the path of a root of its own.
    env = {**os.environ, "PYTHONPATH": str(root / "usr/lib/python3/dist-packages")}
    return ["/usr/bin/python3", str(program), *map(str, files)], env


def _processor(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _entries(host: Host) -> int:
    found = re.search(r"Number of entries: (\d+)", host.process("ipset", "list", "-t", "f2b-bench").stdout)
    return int(found[1]) if found else 0


def _await(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise RuntimeError("fail2ban did not get there in time")
        time.sleep(0.05)
