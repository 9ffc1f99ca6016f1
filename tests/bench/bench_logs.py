"""What reading logs takes, from start to end: lines a CPU second, memory, beside fail2ban, sshguard and grep.

    python -m tests.bench.bench_logs [lines]

The very commands, as an administrator starts them: `mcban run --once` with SQLite and the memory backend, start-up and
writing included; fail2ban's server with four jails on a shorter log of the same kind, since it takes its time; the
parser of sshguard, which only recognises; `grep`, which only looks. The peers are measured when they are installed, or
unpacked from their packages into FAIL2BAN_ROOT and SSHGUARD_ROOT. The exim log has 20 000 addresses, and is made anew.
"""

from __future__ import annotations

import compileall
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mcban
from mcban.shipped import shipped
from tests.bench import exim_log, fail2ban

LINES = 2_000_000
SHARES = (0.1, 0.01)
ADDRESSES = 20_000
PEERS_LINES = 200_000
MORE_JAILS = 60
ROUNDS = 3
LITERALS = "authenticator failed|relay not permitted|sender verify fail|too many nonmail commands"
MCBAN = str(Path(sys.executable).with_name("mcban"))


@dataclass
class Taken:
    """What a child took: seconds of CPU, its largest memory in MB."""

    processor: float
    memory: float


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    with tempfile.TemporaryDirectory(prefix="mcban-bench-") as name:
        for share in SHARES:
            measure(Path(name), count, share)


def measure(folder: Path, count: int, share: float) -> None:
    """All of them on one log, in turns: what a shared machine does meanwhile is spread over them, and the least
    counts."""
    log, short = folder / "mainlog", folder / "short"
    write_log(log, count, share)
    write_log(short, PEERS_LINES, share)
    print(f"\n{count:,} lines of exim's, {share:.0%} failures, {ADDRESSES:,} addresses; lines a CPU second")
    parser = sshguard()
    ours, more, looked, parsed, theirs = (list[Taken]() for _ in range(5))
    for _ in range(ROUNDS):
        ours.append(run_once(folder, log))
        more.append(run_once(folder, log, MORE_JAILS))
        looked.append(run(["grep", "-cE", LITERALS, str(log)]))
        if parser:
            parsed.append(run([str(parser)], log))
        if fail2ban.client():
            with tempfile.TemporaryDirectory(dir=folder) as apart:
                theirs.append(Taken(*fail2ban.caught_up(Path(apart), short)))
    own = least(ours)
    say("mcban run --once", count, ours)
    say(f"the same with {MORE_JAILS} more jails", count, more, f"{least(more) / own:.2f} times as long")
    say("grep -cE of four literals", count, looked, f"mcban takes {own / least(looked):.1f} times as long")
    if parsed:
        say("sshguard's parser", count, parsed, f"mcban is {least(parsed) / own:.1f} times as fast")
    else:
        print("sshguard is not installed: no figure of its parser (apt-get download it, dpkg -x, SSHGUARD_ROOT)")
    if theirs:
        told = count / own * least(theirs) / PEERS_LINES
        say(f"fail2ban, four jails, {PEERS_LINES:,} lines", PEERS_LINES, theirs, f"mcban is {told:.0f} times as fast")
    else:
        print("fail2ban is not installed: no figure of its own (apt-get download it, dpkg -x, FAIL2BAN_ROOT)")


def least(taken: list[Taken]) -> float:
    """Seconds of CPU."""
    return min(one.processor for one in taken)


def say(what: str, lines: int, taken: list[Taken], beside: str = "") -> None:
    """One row."""
    largest = max(one.memory for one in taken)
    memory = f"{largest:4.0f} MB" if largest else " " * 7
    each = " ".join(f"{one.processor:.2f}" for one in taken)
    print(f"{what:40} {lines / least(taken):11,.0f}  {memory}  {beside:32} ({each} s)", flush=True)


def write_log(path: Path, count: int, share: float) -> None:
    """The log, anew: its times end now. Whoever reads it first shall not pay for its way to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(exim_log.lines(count, share, ADDRESSES))
    os.sync()


def run_once(folder: Path, log: Path, more: int = 0) -> Taken:
    """`mcban run --once` on a new database in which the exim jails read `log`, and so do `more` jails besides. Python
    finds the modules compiled, as an installation has them."""
    compileall.compile_dir(Path(mcban.__file__).parent, quiet=2)
    state = folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    (state / "mcban.toml").touch()
    env = {"MCBAN_CONFIG": str(state / "mcban.toml"), "MCBAN_STATE_DIR": str(state), "MCBAN_FIREWALL": "memory"}
    subprocess.run([MCBAN, "db", "upgrade"], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
    with sqlite3.connect(state / "mcban.sqlite") as database:
        database.execute("UPDATE fail2ban_jail SET enabled = name LIKE 'mc-exim%', logpath = ?", (str(log),))
        for number, name in enumerate(other_filters(folder, more)):
            database.execute(
                "INSERT INTO fail2ban_jail (name, maxretry, findtime, bantime, port, filter, logpath, max_count) "
                "VALUES (?, 5, 600, 3600, '25', ?, ?, 0)",
                (f"more-{number}", name, str(log)),
            )
    if more:
        folders = f'"{shipped("etc") / "filter.d"}", "{folder / "more"}"'
        (state / "mcban.toml").write_text(f"filter_path = [{folders}]\n", "utf-8")
    return run([MCBAN, "run", "--once"], env=env)


def other_filters(folder: Path, count: int) -> list[str]:
    """So many filters of other services, each with words of its own, made in `folder`."""
    place = folder / "more"
    place.mkdir(exist_ok=True)
    for number in range(count):
        program = f"^ \\S+ service{number}(?:\\[\\d+\\])?:"
        rules = "\n            ".join(
            f"{program} {verb} for (?:user )?<F-USER>\\S+</F-USER> from <HOST>(?: port \\d+)?$"
            for verb in (f"denied-{number}", f"wrong password {number}", f"no such mailbox {number}")
        )
        (place / f"service{number}.conf").write_text(f"[Definition]\nfailregex = {rules}\n", "utf-8")
    return [f"service{number}" for number in range(count)]


def run(command: list[str], log: Path | None = None, env: dict[str, str] | None = None) -> Taken:
    """What a command takes, from start to end; `log` is its standard input. What it says goes into a file: for
    /dev/null grep would look no further than the first match."""
    there = {**os.environ, **(env or {})}
    with Path(log or os.devnull).open("rb") as given, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=given, stdout=said, stderr=said, env=there)
        _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed: {os.waitstatus_to_exitcode(status)}")
    return Taken(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def sshguard() -> Path | None:
    """sshguard's parser, unpacked or installed."""
    path = Path(os.environ.get("SSHGUARD_ROOT", "/"), "usr/libexec/sshguard/sshg-parser")
    return path if path.exists() else None


if __name__ == "__main__":
    main()
