"""Logs for tests: a small exim log with failures of known addresses, always the same but for its times."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

RELAY = "H=mail.example.net (helo) [{ip}] F=<a@example.org> rejected RCPT <b@example.net>: relay not permitted"
LOGIN = "login authenticator failed for (User) [{ip}]: 535 Incorrect authentication data (set_id=u{n}@example.com)"
FINE = "1tE{n:04x}-0000{n:02x}-00 <= s@example.org H=mail.example.org [{ip}] P=esmtps S=4821 id=abc@example.org"


def failure(ip: str, ago: timedelta = timedelta()) -> str:
    """One line of exim's log in which `ip` is refused, now or some time ago."""
    return f"{datetime.now() - ago:%Y-%m-%d %H:%M:%S} {RELAY.format(ip=ip)}\n"  # noqa: DTZ005  # exim logs local time


def write_log(file: Path, lines: int = 2_000, addresses: int = 40, over: timedelta = timedelta(days=3)) -> Path:
    """A log that ends now; a third of its lines are failures, some addresses failing more often than others."""
    rng = random.Random(7)
    ips = [f"203.0.113.{n}" for n in range(addresses // 2)] + [f"2001:db8::{n:x}" for n in range(addresses // 2)]
    start = datetime.now().replace(microsecond=0) - over  # noqa: DTZ005  # exim logs local time
    with file.open("w", encoding="utf-8") as log:
        for n in range(lines):
            ip = ips[int(rng.random() ** 3 * len(ips))]
            text = rng.choice((RELAY, LOGIN, FINE, FINE)).format(ip=ip, n=n)
            log.write(f"{start + over * n / lines:%Y-%m-%d %H:%M:%S} {text}\n")
    return file
