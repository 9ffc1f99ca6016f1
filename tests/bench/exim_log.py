"""Write an exim main log with known failures to standard output, for benchmarks.

usage: python -m tests.bench.exim_log LINES FAILING_SHARE ADDRESSES [SECONDS]

The log's times end now and span SECONDS (3600). The random numbers are seeded: the same arguments give the same
lines, times apart.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

TLS = "X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=yes"


def failure(rng: random.Random, ip: str) -> str:
    """A line that the shipped filter takes for a hit."""
    user, helo = rng.randrange(500), rng.randrange(99)
    refused = f"authenticator failed for (User) [{ip}]: 535 Incorrect authentication data"
    relay = "rejected RCPT <b@example.net>: relay not permitted"
    return rng.choice(
        (
            f"login {refused} (set_id=user{user}@example.com)",
            f"H=mail.example.net (helo{helo}) [{ip}] F=<a{helo}@example.org> {relay}",
            f"H=(helo{helo}) [{ip}]:4242 sender verify fail for <x@example.com>: Unrouteable address",
            f'SMTP call from mail.example.org [{ip}]:25 dropped: too many nonmail commands (last was "NOOP")',
        )
    )


def ordinary(rng: random.Random, ip: str, number: int) -> str:
    """A line of everyday mail."""
    size = f"S=48213 id=abc{number}@example.org"
    route, answer = "R=dnslookup T=remote_smtp H=mx.example.com [198.51.100.7]", 'C="250 2.0.0 Ok: queued as 4XYZ"'
    mid = f"1tE{number & 0xFFFF:04x}-{number:06x}-{number & 255:02x}"
    return rng.choice(
        (
            f"{mid} <= sender{number % 1000}@example.org H=mail.example.org [{ip}] P=esmtps {TLS} {size}",
            f"{mid} => user{number % 500}@example.com {route} {TLS} {answer}",
            f"{mid} Completed",
            f"no host name found for IP address {ip}",
        )
    )


def lines(count: int, share: float, addresses: int, seconds: float = 3600) -> Iterator[str]:
    """`count` lines, of which `share` are failures, from so many `addresses`."""
    rng = random.Random(7)
    start = datetime.now().astimezone() - timedelta(seconds=seconds)
    ips = [f"203.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}" for _ in range(addresses)]
    for number in range(count):
        at = start + timedelta(seconds=number * seconds / count)
        ip = rng.choice(ips)
        text = failure(rng, ip) if rng.random() < share else ordinary(rng, ip, number)
        yield f"{at:%Y-%m-%d %H:%M:%S} {text}\n"


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    sys.stdout.writelines(lines(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:])))
