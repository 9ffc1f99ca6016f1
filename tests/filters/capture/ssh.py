"""sshd and those who abuse it, with rsyslog writing its lines in two formats."""

import os
import subprocess
import textwrap
import time
from contextlib import suppress
from pathlib import Path

from tests.filters.capture.client import CLIENTS, OTHER, Script, run, server, talk

RSYSLOG = """
module(load="imuxsock" SysSock.Name="/dev/log")
template(name="classic" type="string"
  string="%TIMESTAMP% %HOSTNAME% %syslogtag%%msg:::sp-if-no-1st-sp%%msg:::drop-last-lf%\\n")
*.* action(type="omfile" file="{folder}/syslog-classic" template="classic")
*.* action(type="omfile" file="{folder}/syslog-iso" template="RSYSLOG_FileFormat")
"""


def capture_ssh(folder: Path) -> None:
    """sshd behind rsyslog."""
    home = folder / "ssh"
    home.mkdir()
    (home / "rsyslog.conf").write_text(RSYSLOG.format(folder=home))
    syslog = subprocess.Popen(["rsyslogd", "-n", "-f", str(home / "rsyslog.conf"), "-i", str(home / "rsyslog.pid")])
    time.sleep(1)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "host"))
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "mine"))
    config = f"""
        HostKey {home}/host
        Port 2222
        ListenAddress 0.0.0.0
        ListenAddress ::
        UsePAM yes
        PermitRootLogin prohibit-password
        MaxAuthTries 3
        LoginGraceTime 5
        DenyUsers games
        PidFile {home}/sshd.pid
        AuthorizedKeysFile none
    """
    (home / "sshd_config").write_text(textwrap.dedent(config))
    daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(home / "sshd_config")])
    (home / "askpass").write_text("#!/bin/sh\necho wrong\n")
    (home / "askpass").chmod(0o755)
    time.sleep(1)
    for client in CLIENTS:
        ssh_sessions(client, home)
    time.sleep(6)
    daemon.terminate()
    syslog.terminate()


def ssh(client: str, home: Path, user: str, *options: str, methods: str = "password") -> None:
    """One try to log in."""
    known = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={home}/known")
    asked = ("-b", client, "-p", "2222", "-l", user, "-o", f"PreferredAuthentications={methods}")
    command = ["ssh", "-F", "none", *known, *asked, *options, server(client), "true"]
    environment = os.environ | {"SSH_ASKPASS": str(home / "askpass"), "SSH_ASKPASS_REQUIRE": "force"}
    with suppress(subprocess.TimeoutExpired):
        run(*command, env=environment, timeout=20, stdin=subprocess.DEVNULL)


def ssh_sessions(client: str, home: Path) -> None:
    """Everything that our filter should see, and some that it should not."""
    once = ("-o", "NumberOfPasswordPrompts=1")
    ssh(client, home, "root", *once)
    ssh(client, home, "root", "-o", "NumberOfPasswordPrompts=2")
    ssh(client, home, "admin", "-o", "NumberOfPasswordPrompts=5")
    ssh(client, home, "nobody", *once, methods="keyboard-interactive")
    ssh(client, home, "mary", *once, methods="keyboard-interactive")
    ssh(client, home, "games", *once)
    ssh(client, home, "root", "-i", str(home / "mine"), "-o", "IdentitiesOnly=yes", methods="publickey")
    ssh(client, home, "guest", "-i", str(home / "mine"), "-o", "IdentitiesOnly=yes", methods="publickey")
    ssh(client, home, "root", "-o", "KexAlgorithms=diffie-hellman-group1-sha1", *once)
    ssh(client, home, "root", "-o", "Ciphers=aes128-cbc", *once)
    for user in (
        f"x from {OTHER} port 22 ssh2",
        f"root from {OTHER} port 22",
        f"a [preauth] from {OTHER}",
        " ",
        "é ü",
        f"x port 1 ssh2: RSA {OTHER}",
        "%s%n",
        f"root {OTHER} port 22 [preauth]",
    ):
        ssh(client, home, user, *once)
    scripts: list[Script] = [
        [b"", None],
        [b"GET / HTTP/1.0\r\n\r\n"],
        [b"\x16\x03\x01\0\x05hello\n"],
        [b"SSH-1.5-old\r\n"],
        [b"SSH-2.0-x\r\n", None],
        [f"SSH-2.0-Connection from {OTHER} port 22\r\n".encode(), b"\0" * 64],
        [b"", 6.0],
    ]
    for script in scripts:
        talk(client, 2222, script)
