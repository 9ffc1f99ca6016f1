"""What the tests of the engine share: one that follows a log, lines for it, a jail in plain SQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mcban.daemon.engine import Engine
from mcban.daemon.presence import Presence
from mcban.daemon.signals import Signals
from mcban.service.context import Context
from tests.patience import PATIENCE
from tests.service.desk import IP, execute


def follow(context: Context, log: Path) -> Engine:
    """An engine that follows `log` for mc-ssh, and has looked around once."""
    log.write_text("")
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    engine = Engine(context, Presence(context.config.state_dir), Signals())
    engine.start()
    engine._tend()
    return engine


def failures(context: Context, number: int, ip: str = IP) -> str:
    """Lines of sshd, a login of `ip` that failed in each."""
    date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(context.now))
    return "".join(f"{date} h sshd[{n}]: Failed password for root from {ip} port 22 ssh2\n" for n in range(number))


def read_until(engine: Engine, done: Callable[[], bool]) -> None:
    """Read as the loop does."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        engine._guarded(engine._read_some)


CUSTOM_JAIL = (
    "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
    " max_count) VALUES (1, 'my-jail', 3, 3600, 86400, '25', 'mc-exim-filter', 'mc-custom', '/dev/null', 0)"
)
