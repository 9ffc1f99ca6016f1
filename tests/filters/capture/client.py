"""The attackers: their addresses, and how they talk to a daemon."""

import base64
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

SERVER4, SERVER6 = "198.51.100.1", "2001:db8:1::1"
CLIENTS = ["192.0.2.7", "192.0.2.66", "192.0.2.77", "2001:db8::7", "2001:db8::66"]
OTHER = "203.0.113.9"  # the address that the attacker would like to see banned
Script = Sequence[bytes | float | None]
"""What to send, seconds to wait before the next item, None to close."""


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program, whatever it returns."""
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def server(client: str) -> str:
    """The daemons' address, of the client's family."""
    return SERVER6 if ":" in client else SERVER4


def talk(client: str, port: int, script: Script, wait: float = 0.15) -> bytes:
    """Send each item of a script after the answer to the one before, None closes; returns the last answer."""
    answer = b""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s, suppress(OSError):
        s.bind((client, 0))
        s.settimeout(3)
        s.connect((server(client), port))
        for item in script:
            if item is None:
                break
            if isinstance(item, float):
                time.sleep(item)
                continue
            with suppress(TimeoutError):
                if item != b"":
                    s.sendall(item)
            time.sleep(wait)
            s.settimeout(0.5 if item else 2)
            with suppress(TimeoutError):
                answer = s.recv(65536)
    return answer


def b64(text: str) -> bytes:
    """As names and passwords are sent."""
    return base64.b64encode(text.encode())
