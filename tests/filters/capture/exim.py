"""exim and those who abuse it: logins, relays, HELOs, broken protocol, over TLS too."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.filters.capture.client import CLIENTS, OTHER, SERVER4, SERVER6, b64, run, talk

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
    """A failing login and a refused relay under STARTTLS."""
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
    """exim with Debian's log selectors, and with all that add to the lines."""
    selectors = {
        "debian": "+smtp_protocol_error +smtp_syntax_error +tls_certificate_verified +tls_peerdn",
        "full": "+pid +millisec +incoming_port +incoming_interface +smtp_protocol_error +smtp_syntax_error +tls_sni"
        " +smtp_connection +lost_incoming_connection",
    }
    for index, (name, selector) in enumerate(selectors.items()):
        home = folder / f"exim-{name}"
        (home / "spool").mkdir(parents=True)
        kind = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mail.example.com")
        run("openssl", "req", *kind, "-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem"))
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
