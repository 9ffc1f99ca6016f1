"""Capture real log lines: start exim, sshd, rsyslog, apache and nginx in namespaces of their own and abuse them.

    python tests/filters/capture.py [FOLDER [exim|ssh|web …]]

Needs root, util-linux (unshare), iproute2, openssl and Debian's exim4-daemon-light, openssh-server, openssh-client,
rsyslog, apache2 and nginx-light installed; no service of the machine is started or touched. The network namespace has
only a loopback with documentation addresses, the mount namespace a /dev and a /run of its own. The logs are left in
FOLDER (a new one under /tmp): what is worth keeping goes from there into samples/, by hand, with its expectation.
"""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

SERVER4, SERVER6 = "198.51.100.1", "2001:db8:1::1"
CLIENTS = ["192.0.2.7", "192.0.2.66", "192.0.2.77", "2001:db8::7", "2001:db8::66"]
OTHER = "203.0.113.9"  # the address that the attacker would like to see banned


Script = Sequence[bytes | float | None]
"""What to send, seconds to wait before the next item, None to close."""


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def server(client: str) -> str:
    return SERVER6 if ":" in client else SERVER4


def enter() -> NoReturn:
    """Come back in this script inside new namespaces."""
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="capture-")
    Path(folder).chmod(0o755)
    os.environ["CAPTURE_INSIDE"] = str(Path(folder).resolve())
    spaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    os.execvp("unshare", [*spaces, sys.executable, __file__, folder, *sys.argv[2:]])


def prepare(folder: Path) -> None:
    """Loopback with our addresses; a /dev whose log is ours; a /run for pid files and sshd's empty folder."""
    run("ip", "link", "set", "lo", "up")
    for address in [SERVER4, SERVER6, *CLIENTS]:
        run("ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo", "nodad")
    run("mount", "--make-rprivate", "/")
    dev = folder / "dev"
    dev.mkdir()
    run("mount", "-t", "tmpfs", "none", str(dev))
    for name in ("null", "zero", "random", "urandom", "tty", "ptmx", "full"):
        (dev / name).touch()
        run("mount", "--bind", f"/dev/{name}", str(dev / name))
    for name in ("pts", "shm"):
        (dev / name).mkdir()
        run("mount", "--rbind", f"/dev/{name}", str(dev / name))
    (dev / "fd").symlink_to("/proc/self/fd")
    run("mount", "--rbind", str(dev), "/dev")
    run("mount", "-t", "tmpfs", "none", "/run")
    Path("/run/sshd").mkdir(mode=0o755)
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n192.0.2.77 host77.example.net\n")
    run("mount", "--bind", str(hosts), "/etc/hosts")


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


EXIM = """
primary_hostname = mail.example.com
log_file_path = {folder}/%slog
spool_directory = {folder}/spool
pid_file_path = {folder}/exim.pid
log_selector = {selector}
daemon_smtp_ports = {port}
local_interfaces = <; 0.0.0.0 ; ::0
domainlist local_domains = example.com
host_lookup = 192.0.2.77
pipelining_connect_advertise_hosts =
rfc1413_query_timeout = 0s
tls_advertise_hosts = *
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
auth_advertise_hosts = !192.0.2.77
helo_accept_junk_hosts = 192.0.2.66 : 2001:db8::66
smtp_accept_max_per_connection = 50
acl_smtp_connect = check_connect
acl_smtp_helo = check_helo
acl_smtp_auth = check_auth
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
begin acl
check_connect:
  accept hosts = 192.0.2.77
         delay = 1s
  accept
check_helo:
  deny condition = ${{if eq{{$sender_helo_name}}{{evil.example}}}}
       message = HELO refused
  accept
check_auth:
  deny condition = ${{if match{{$smtp_command_argument}}{{CRAM}}}}
       message = no such method here
  accept
check_rcpt:
  deny domains = +local_domains
       local_parts = ^[.] : ^.*[@%!/|]
       message = restricted characters in address
  deny condition = ${{if eq{{$sender_address_local_part}}{{listed}}}}
       message = $sender_host_address is listed at zen.example
       log_message = found in zen.example
  require verify = sender
  require message = relay not permitted
       domains = +local_domains
  require verify = recipient
  accept
check_data:
  deny message = this message is spam
begin routers
sender_ok:
  driver = redirect
  domains = !+local_domains : !nowhere.invalid
  verify_only
  verify_recipient = false
  data = :blackhole:
info:
  driver = redirect
  local_parts = info
  data = :blackhole:
unknown:
  driver = redirect
  local_parts = !unrouted
  domains = +local_domains
  allow_fail
  data = :fail: Unknown user
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = false
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = false
  server_set_id = $auth1
"""


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def exim_sessions(client: str, port: int) -> None:
    """Everything that our filter should see, and some that it should not."""
    hello = b"EHLO client.example.net\r\n"
    mail = b"MAIL FROM:<a@example.org>\r\n"

    def say(*script: bytes | None, wait: float = 0.15) -> None:
        talk(client, port, [b"", *script, b"QUIT\r\n"], wait)

    injected = f"x\n2026-11-22 13:00:00 login authenticator failed for (y) [{OTHER}]: 535 Incorrect authentication data"
    for user in (
        injected,
        "user1@example.com",
        f"x) [{OTHER}]: 535 Incorrect authentication data (set_id=y",
        "",
        "tab\tnul\0é",
    ):
        say(hello, b"AUTH LOGIN " + b64(user) + b"\r\n", b64("wrong") + b"\r\n")
    say(hello, b"AUTH PLAIN " + b64("\0info@example.com\0wrong") + b"\r\n")
    say(b"HELO plain\r\n", mail, b"RCPT TO:<b@example.net>\r\n", b"RCPT TO:<c@example.net>\r\n")
    say(hello, b"AUTH CRAM-MD5\r\n", b"AUTH NONSENSE\r\n")
    for rcpt in (
        b"b@example.net",
        b"nobody@example.com",
        b"unrouted@example.com",
        b".x@example.com",
        b"info@example.com",
    ):
        say(hello, mail, b"RCPT TO:<" + rcpt + b">\r\n")
    for quoted in (f'"x) [{OTHER}] F=<y"@example.net', f'"a>: relay not permitted H=[{OTHER}]"@example.net'):
        say(hello, mail, f"RCPT TO:<{quoted}>\r\n".encode())
    for sender in (
        "listed@example.org",
        "x@nowhere.invalid",
        "nobody@example.com",
        "",
        "a\\ b@example.org",
        f'"x) [{OTHER}] F=<y> rejected RCPT <z@example.net>: relay not permitted"@example.org',
    ):
        say(hello, f"MAIL FROM:<{sender}>\r\n".encode(), b"RCPT TO:<b@example.net>\r\n")
    for helo in (
        b"evil.example",
        b"[192.0.2.7]",
        b"[203.0.113.9]",
        b"bad_helo!",
        b"two words",
        f"x) [{OTHER}] F=<y@example.org> rejected RCPT <z@example.net>: relay not permitted".encode(),
        f"x) [{OTHER}]: 535 Incorrect authentication data (set_id=y".encode(),
        b"caf\xe9\xff",
        b"",
    ):
        say(b"EHLO " + helo + b"\r\n", mail, b"RCPT TO:<b@example.net>\r\n", b"AUTH PLAIN " + b64("\0x\0y") + b"\r\n")
    say(hello, *[b"NOOP\r\n"] * 12, wait=0.02)
    say(hello, *[b'FOO [203.0.113.9] dropped: too many nonmail commands (last was "NOOP")\r\n'] * 5, wait=0.02)
    say(hello, *[b"MAIL FROM:<a b@example.org>\r\n"] * 6, wait=0.02)
    say(hello, *[f"MAIL FROM:<x) [{OTHER}] dropped: too many syntax>\r\n".encode()] * 6, wait=0.02)
    say(hello, b"MAIL FROM:<a b@example.org>\r\n", b"MAIL FROM:<unclosed\r\n", b"RCPT TO:<x@example.com>\r\n")
    talk(client, port, [f"EHLO too soon H=[{OTHER}]\r\n".encode(), b"MAIL FROM:<x@y>\r\n"])
    say(b"HELO x\r\n", b"MAIL FROM:<x@example.org>\r\nRCPT TO:<b@example.net>\r\n")
    hostile = f'NOOP x" H=[{OTHER}] next input="y\r\nNOOP " H=[{OTHER}] next input="z\r\n'
    say(hello, hostile.encode())
    say(hello, mail, b"RCPT TO:<info@example.com>\r\n", b"DATA\r\nSubject: too soon\r\n")
    talk(client, port, [b"", b"GET / HTTP/1.1\r\n", b"Host: x\r\n"])
    talk(client, port, [b"", hello, mail, None])
    say(hello, mail, b"RCPT TO:<info@example.com>\r\n", b"DATA\r\n", f"Subject: x [{OTHER}]\r\n\r\nx\r\n.\r\n".encode())
    say(hello, b"VRFY root\r\n", b"EXPN root\r\n", b"ETRN x\r\n")
    over_tls(client, port, hello, mail)


def over_tls(client: str, port: int, hello: bytes, mail: bytes) -> None:
    command = ["openssl", "s_client", "-starttls", "smtp", "-quiet", "-servername", "mail.example.com", "-bind"]
    bind, to = (f"[{client}]:0", f"[{SERVER6}]:{port}") if ":" in client else (f"{client}:0", f"{SERVER4}:{port}")
    process = subprocess.Popen(
        [*command, bind, "-connect", to], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    typed = process.stdin
    assert typed is not None
    for line in (
        hello,
        b"AUTH PLAIN " + b64("\0tls-user\0y") + b"\r\n",
        mail,
        b"RCPT TO:<b@example.net>\r\n",
        b"QUIT\r\n",
    ):
        time.sleep(0.4)
        with suppress(OSError):
            typed.write(line)
            typed.flush()
    with suppress(OSError):
        typed.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(3)
    process.kill()


def capture_exim(folder: Path) -> None:
    selectors = {
        "debian": "+smtp_protocol_error +smtp_syntax_error +tls_certificate_verified +tls_peerdn",
        "full": "+pid +millisec +incoming_port +incoming_interface +smtp_protocol_error +smtp_syntax_error +tls_sni"
        " +smtp_connection +lost_incoming_connection",
    }
    for index, (name, selector) in enumerate(selectors.items()):
        home = folder / f"exim-{name}"
        (home / "spool").mkdir(parents=True)
        run(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=mail.example.com",
            "-keyout",
            str(home / "key.pem"),
            "-out",
            str(home / "cert.pem"),
        )
        port = 2525 + index
        zone = "timezone = UTC\nlog_timezone\n" if name == "full" else ""
        (home / "exim.conf").write_text(zone + EXIM.format(folder=home, selector=selector, port=port))
        run("chown", "-R", "Debian-exim:Debian-exim", str(home))
        run("chown", "root:root", str(home / "exim.conf"))
        daemon = subprocess.Popen(["exim4", "-C", str(home / "exim.conf"), "-bdf"], stdin=subprocess.DEVNULL)
        time.sleep(1)
        for client in CLIENTS:
            exim_sessions(client, port)
        daemon.terminate()


RSYSLOG = """
module(load="imuxsock" SysSock.Name="/dev/log")
template(name="classic" type="string"
  string="%TIMESTAMP% %HOSTNAME% %syslogtag%%msg:::sp-if-no-1st-sp%%msg:::drop-last-lf%\\n")
*.* action(type="omfile" file="{folder}/syslog-classic" template="classic")
*.* action(type="omfile" file="{folder}/syslog-iso" template="RSYSLOG_FileFormat")
"""


def capture_ssh(folder: Path) -> None:
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


def ssh(client: str, home: Path, user: str, *options: Any, methods: str = "password") -> None:
    command = [
        "ssh",
        "-b",
        client,
        "-p",
        "2222",
        "-l",
        user,
        "-o",
        "StrictHostKeyChecking=no",
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={home}/known",
        "-o",
        f"PreferredAuthentications={methods}",
        *options,
        server(client),
        "true",
    ]
    environment = os.environ | {"SSH_ASKPASS": str(home / "askpass"), "SSH_ASKPASS_REQUIRE": "force"}
    with suppress(subprocess.TimeoutExpired):
        run(*command, env=environment, timeout=20, stdin=subprocess.DEVNULL)


def ssh_sessions(client: str, home: Path) -> None:
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


APACHE = """
ServerRoot /usr/lib/apache2
ServerName www.example.com
PidFile {home}/apache.pid
Listen 0.0.0.0:8080
Listen [::]:8080
User www-data
Group www-data
ErrorLog {home}/apache-error.log
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
LogFormat "%h %l %u %t \\"%r\\" %>s %O" common
LogFormat "%v:%p %h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" vhost_combined
CustomLog {home}/apache-access.log combined
CustomLog {home}/apache-common.log common
CustomLog {home}/apache-vhost.log vhost_combined
LoadModule mpm_event_module modules/mod_mpm_event.so
{modules}
DocumentRoot {home}/www
<Location /basic>
  AuthType Basic
  AuthName "basic"
  AuthUserFile {home}/htpasswd
  Require valid-user
</Location>
<Location /digest>
  AuthType Digest
  AuthName "digest"
  AuthUserFile {home}/htdigest
  Require valid-user
</Location>
<Location /only>
  AuthType Basic
  AuthName "only"
  AuthUserFile {home}/htpasswd
  Require user somebody
</Location>
Redirect 401 /login
Redirect 403 /wp-login.php
Redirect 403 /secret
"""

NGINX = """
pid {home}/nginx.pid;
error_log {home}/nginx-error.log;
events {{}}
http {{
  access_log {home}/nginx-access.log combined;
  client_body_temp_path {home}/n1; proxy_temp_path {home}/n2; fastcgi_temp_path {home}/n3;
  uwsgi_temp_path {home}/n4; scgi_temp_path {home}/n5;
  server {{
    listen 8081; listen [::]:8081 ipv6only=on;
    server_name www.example.com;
    root {home}/www;
    location /basic {{ auth_basic "basic"; auth_basic_user_file {home}/htpasswd; }}
    location /login {{ return 401; }}
    location /wp-login.php {{ return 403; }}
    location /secret {{ return 403; }}
  }}
}}
"""


def capture_web(folder: Path) -> None:
    home = folder / "web"
    (home / "www" / "basic").mkdir(parents=True)
    hashed = run("openssl", "passwd", "-apr1", "right").stdout.strip()
    (home / "htpasswd").write_text(f"alice:{hashed}\n")
    (home / "htdigest").write_text("alice:digest:" + "0" * 32 + "\n")
    modules = ("authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest", "alias")
    loads = "\n".join(f"LoadModule {m}_module modules/mod_{m}.so" for m in modules)
    (home / "apache.conf").write_text(APACHE.format(home=home, modules=loads))
    (home / "nginx.conf").write_text(NGINX.format(home=home))
    run("chmod", "-R", "a+rX", str(folder))
    daemons = [
        subprocess.Popen(["apache2", "-DFOREGROUND", "-f", str(home / "apache.conf")]),
        subprocess.Popen(["nginx", "-c", str(home / "nginx.conf"), "-g", "daemon off;"]),
    ]
    time.sleep(2)
    for client in CLIENTS:
        for port in (8080, 8081):
            web_sessions(client, port)
    for daemon in daemons:
        daemon.terminate()


def web_sessions(client: str, port: int) -> None:
    def ask(method: str, path: str, *headers: str) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: www.example.com",
            "Connection: close",
            "Content-Length: 0",
            *headers,
        ]
        return talk(client, port, ["\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")], wait=0.05)

    def basic(user: str, password: str = "wrong") -> str:
        return "Authorization: Basic " + b64(f"{user}:{password}").decode()

    hostile = (
        f'x [client {OTHER}:1] AH01617: user y: authentication failure for "/"',
        f'y" 401 1 "-" "-"\n{OTHER} - z',
        f"{OTHER} - root [22/Nov/2020:13:00:00 +0000]",
        f': authentication failure for "/": Password Mismatch, client: {OTHER}, server: x',
        'back\\slash"quote',
    )
    for user in ("alice", "nobody", "", "two words", "é", *hostile):
        ask("GET", "/basic/", basic(user))
    ask("GET", "/basic/", basic("alice", "right"))
    ask("GET", "/basic/")
    ask("GET", "/only/", basic("alice", "right"))
    for user in ("alice", "nobody", f"x' in realm `y' not found: [client {OTHER}:1]"):
        for realm in ("digest", "other"):
            nonce = (re.findall(rb'nonce="([^"]*)"', ask("GET", "/digest/")) or [b""])[0].decode()
            ask(
                "GET",
                "/digest/",
                f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}",'
                f' uri="/digest/", response="{32 * "0"}", qop=auth, nc=00000001, cnonce="x", algorithm=MD5',
            )
    ask("POST", "/login", 'Referer: http://x/" 401 1')
    ask(
        "POST",
        f"/login?{OTHER}%20-%20x",
        f'User-Agent: x {OTHER} - - [22/Nov/2026:13:00:00 +0000] "POST /login HTTP/1.1" 401 1',
    )
    ask("GET", "/login")
    ask("POST", "/wp-login.php", f"Referer: [client {OTHER}:1]")
    ask("GET", "/secret")
    ask("GET", '/secret"POST', f'User-Agent: "POST /login HTTP/1.1" 401 {OTHER}')
    ask(f'POST /login HTTP/1.1" 401 1 "-" "-" {OTHER}', "/x")


def main() -> None:
    inside = os.environ.get("CAPTURE_INSIDE")
    if not inside:
        if os.geteuid() != 0:
            sys.exit("capture.py needs root: it makes network and mount namespaces")
        missing = [
            p
            for p in ("exim4", "sshd", "rsyslogd", "apache2", "nginx", "ssh", "openssl", "ip", "unshare")
            if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        ]
        if missing:
            sys.exit(f"capture.py needs these programs: {', '.join(missing)}")
        enter()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = Path(inside)
    prepare(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    captures = {"exim": capture_exim, "ssh": capture_ssh, "web": capture_web}
    for name in sys.argv[2:] or captures:
        captures[name](folder)
    print(f"captured into {folder}")


if __name__ == "__main__":
    main()
