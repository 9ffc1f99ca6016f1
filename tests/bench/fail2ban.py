"""fail2ban's own figure: how fast it puts its bans back after a restart, with its ipset action.

Its server runs in the namespace that is given, on a configuration and a database in a temporary folder; the files of
Debian's package are enough, wherever they were unpacked (`FAIL2BAN_ROOT`), and nothing of an installed one is touched.
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
    root = Path(os.environ.get("FAIL2BAN_ROOT", "/"))
    config = folder / "fail2ban"
    shutil.copytree(root / "etc/fail2ban", config)
    (config / "jail.local").write_text(
        f"[bench]\nenabled = true\nfilter = sshd\nlogpath = {folder / 'empty.log'}\nbackend = polling\n"
        "bantime = 1w\nbanaction = iptables-ipset\naction = iptables-ipset[type=multiport, port=25, maxelem=1000000]\n",
        "utf-8",
    )
    shutil.rmtree(config / "jail.d", ignore_errors=True)
    (folder / "empty.log").touch()
    (config / "fail2ban.local").write_text(
        f"[Definition]\ndbfile = {folder / 'fail2ban.sqlite3'}\nlogtarget = {folder / 'fail2ban.log'}\n", "utf-8"
    )
    # Debian's package has its modules in dist-packages, which is not on the path of a root of its own.
    env = {**os.environ, "PYTHONPATH": str(root / "usr/lib/python3/dist-packages")}
    command = [
        "/usr/bin/python3",
        str(program),
        "-c",
        str(config),
        "-s",
        str(folder / "sock"),
        "-p",
        str(folder / "pid"),
    ]

    def tell(*words: str) -> None:
        done = host.process(*command, *words, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"fail2ban-client {words[0]}: {done.stdout}{done.stderr}")

    server = [str(program.with_name("fail2ban-server")), *command[2:]]
    for turn in range(2):
        begun = time.perf_counter()
        process = host.popen("/usr/bin/python3", *server, "-f", "start", env=env, stderr=subprocess.DEVNULL)
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


def _entries(host: Host) -> int:
    found = re.search(r"Number of entries: (\d+)", host.process("ipset", "list", "-t", "f2b-bench").stdout)
    return int(found[1]) if found else 0


def _await(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise RuntimeError("fail2ban did not get there in time")
        time.sleep(0.05)
