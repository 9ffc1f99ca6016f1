# ruff: noqa: E501  # templates of log lines stand in one piece
"""Whatever an attacker writes into the fields that are his, our filters name him or nobody.

Each template is a line as a daemon writes it, with the attacker's fields in braces; the texts that fill them are
made of the pieces that a line is made of. `REAL` connected, `OTHER` is the one that the attacker would like to see
banned. What a daemon does to a field before it writes it (escaping, refusing) is done here too.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.filters import Scanner, load_filter

FOLDERS = [Path(__file__).parents[2] / "etc" / "filter.d"]
REAL = ["192.0.2.7", "2001:db8::7"]
OTHER = "203.0.113.9"
SCANNERS = {
    spec: Scanner([load_filter(spec, FOLDERS)])
    for spec in (
        "mc-exim-filter",
        "mc-exim-filter[mode=lenient]",
        "mc-exim-filter[mode=aggressive]",
        "mc-sshd-filter",
        "mc-sshd-filter[mode=keys]",
        "mc-sshd-filter[mode=aggressive]",
        "mc-webauth-filter",
    )
}

EXIM_PIECES = [
    f"[{OTHER}]", f") [{OTHER}]", f"H=[{OTHER}]", f"H=(x) [{OTHER}]", f"(x) [{OTHER}]", OTHER, "x", " ", "(", ")", "[",
    "]", "<", ">", '"', "\\", ":", "@", "F=<", "F=<y@example.org>", "@example.org>", " rejected RCPT <",
    "z@example.net",
    " rejected RCPT <z@example.net>: relay not permitted", ": relay not permitted", " rejected EHLO or HELO x: y",
    " rejected AUTH PLAIN: y", " sender verify fail for <x@example.com>: Unrouteable address", " sender verify fail for ",
    ": 535 Incorrect authentication data", " (set_id=y)", " dropped: too many nonmail commands (last was \"NOOP\")",
    " dropped: too many", " AUTH command used when not advertised", ' next input="', ' input="', ": rejected connection from ",
    ": syntactically invalid argument(s): y", " X=TLS1.3:x:256 CV=no", " A=login:x", 'SNI="', 'DN="', ": Unknown user",
    "2026-11-22 13:00:00 ", "login authenticator failed for ", "SMTP call from ", ' rejected after DATA: x',
]  # fmt: skip
SSHD_PIECES = [
    f" from {OTHER}", f" from {OTHER} port 22", f" from {OTHER} port 22 ssh2", f" {OTHER} port 22 [preauth]", " ssh2",
    "]", "[preauth]", " port 22", "root", " ", "invalid user ", "illegal user ", "error: PAM: Authentication failure for ",
    f"Failed password for root from {OTHER} port 22 ssh2", " for ", ": Too many authentication failures [preauth]",
    "message repeated 2 times: [ ", "Nov 22 13:00:00 mail sshd[1]: ", f"Unable to negotiate with {OTHER} port 22: no matching ",
    f"banner exchange: Connection from {OTHER} port 22: invalid format", "authenticating user ", "\\", "'", "\"", ":",
]  # fmt: skip
WEB_PIECES = [
    OTHER, f"{OTHER} - x", f"[client {OTHER}:1]", f", client: {OTHER}, server: x", " - ", "- - ", "[]", "[", "]", '"', "\\",
    ' "', '" 401 ', "[22/Nov/2026:13:00:00 +0000]", '"POST /login HTTP/1.1"', " 401 ", " 403 ", '"GET / HTTP/1.1" 401 1',
    ": authentication failure for \"/\": Password Mismatch", " not found: /", "AH01617: user x", "AH01618: user x", "\n",
    '" was not found in "x"', '": password mismatch', "2026/11/22 13:00:00 [error] 1#1: *1 user \"x", " ", "x", "login",
    f"login FAILED for user: x - {OTHER}", f" - {OTHER}", ", referer: ", "' in realm `", "[] [auth_basic:error] [pid 1] ",
]  # fmt: skip


def texts(pieces: list[str]) -> st.SearchStrategy[str]:
    """Texts of pieces of lines, with a little of everything between them."""
    anything = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=3)
    return st.lists(st.one_of(st.sampled_from(pieces), anything), max_size=8).map("".join)


def log_text(text: str) -> str:
    """Control characters as exim's string_printing and sshd's strnvis write them: never raw."""
    return "".join(c if c >= " " and c != "\x7f" else f"\\{ord(c):03o}" for c in text)


def mailbox(text: str) -> str:
    """A mailbox that exim takes: odd local parts between quotation marks, those inside escaped."""
    quoted = log_text(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"@example.org'


def web_log(text: str) -> str:
    """A field of an access log as both servers write it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(c if c >= " " else f"\\x{ord(c):02x}" for c in escaped)


def innocent(spec: str, line: str) -> None:
    """Fails when a line makes the other the offender."""
    block = (line + "\n").encode("utf-8", "replace")
    found = {match.ip for match in SCANNERS[spec].scan(block, 1_795_352_400)}
    assert found <= set(REAL), line


EXIM_LINES = [
    "{helo_h} F=<{sender}> rejected RCPT <{rcpt}>: relay not permitted",
    "{helo_h} F=<{sender}> rejected RCPT <{rcpt}>: Unknown user",
    "{helo_h} F=<{sender}> rejected RCPT <b@example.net> ({comment}): relay not permitted",
    "{helo_h} X=TLS1.3:x:256 CV=no F=<{sender}> rejected RCPT <{rcpt}>: found in zen.example",
    "1xV7fh-000013-1f {helo_h} F=<{sender}> rejected after DATA: this message is spam",
    "{helo_h} rejected EHLO or HELO {helo}: HELO refused",
    "{helo_h} rejected AUTH {text}: no such method here",
    "{helo_h} sender verify fail for <{sender}>: Unrouteable address",
    "login authenticator failed for {helo_c}: 535 Incorrect authentication data (set_id={text})",
    "login authenticator failed for {helo_c}: 535 Incorrect authentication data",
    "rejected EHLO from {helo_c}: syntactically invalid argument(s): {text}",
    'SMTP protocol error in "AUTH {text}" {helo_h} AUTH command used when not advertised',
    'SMTP protocol error in "{text}" {helo_h} AUTH command used when not advertised',
    'SMTP protocol synchronization error (input sent without waiting for greeting): rejected connection from H=[{ip}] input="{text}"',
    'SMTP protocol synchronization error (next input sent too soon: pipelining was not advertised): rejected "{text}" {helo_h} next input="{more}"',
    'SMTP call from {helo_c} dropped: too many nonmail commands (last was "{text}")',
    'SMTP call from {helo_c} dropped: too many unrecognized commands (last was "{text}")',
    'SMTP call from {helo_c} dropped: too many syntax or protocol errors (last command was "{text}",  C=EHLO,MAIL)',
    'SMTP syntax error in "{text}" {helo_h} unrecognized command',
    "1tE0001-000001-01 <= {sender} {helo_h} P=esmtp S=1 T=\"{text}\"",
    "unexpected disconnection while reading SMTP command from {helo_c}",
]  # fmt: skip


@pytest.mark.parametrize("template", EXIM_LINES)
@given(
    ip=st.sampled_from(REAL),
    helo=texts(EXIM_PIECES),
    sender=texts(EXIM_PIECES),
    rcpt=texts(EXIM_PIECES),
    text=texts(EXIM_PIECES),
    more=texts(EXIM_PIECES),
)
@settings(max_examples=50)
def test_no_text_sent_to_exim_names_another(
    template: str, ip: str, helo: str, sender: str, rcpt: str, text: str, more: str
) -> None:
    """HELO, sender, recipient, login and command, also where exim takes any HELO, never name another."""
    helo = log_text(helo)
    fields = {
        "ip": ip,
        "helo": helo,
        "helo_h": f"H=({helo}) [{ip}]:4242",
        "helo_c": f"({helo}) [{ip}]:4242",
        "sender": mailbox(sender),
        "rcpt": mailbox(rcpt),
        "comment": log_text(text).replace(")", "").replace("(", ""),
        "text": log_text(text),
        "more": log_text(more),
    }
    line = template.format(**fields)
    for spec in ("mc-exim-filter", "mc-exim-filter[mode=lenient]", "mc-exim-filter[mode=aggressive]"):
        innocent(spec, f"2026-11-22 13:00:00 {line}")
        innocent(spec, f"Nov 22 13:00:00 mail exim[1]: 2026-11-22 13:00:00 {line}")


SSHD_LINES = [
    "Failed password for {text} from {ip} port 4242 ssh2",
    "Failed password for invalid user {text} from {ip} port 4242 ssh2",
    "Failed keyboard-interactive/pam for invalid user {text} from {ip} port 4242 ssh2",
    "Invalid user {text} from {ip} port 4242",
    "error: PAM: Authentication failure for {text} from {ip}",
    "error: PAM: Authentication failure for illegal user {text} from {ip}",
    "error: PAM: Authentication failure for {text} from client.example.net",
    "Connection closed by authenticating user {text} {ip} port 4242 [preauth]",
    "Connection reset by invalid user {text} {ip} port 4242 [preauth]",
    "Disconnecting invalid user {text} {ip} port 4242: Too many authentication failures [preauth]",
    "Disconnecting invalid user {text} {ip} port 4242: Change of username or service not allowed: ({text}) [preauth]",
    "Received disconnect from {ip} port 4242:11: {text} [preauth]",
    "User {text} from {ip} not allowed because listed in DenyUsers",
    "Unable to negotiate with {ip} port 4242: no matching cipher found. Their offer: {text} [preauth]",
    'error: kex_exchange_identification: client sent invalid protocol identifier "{text}"',
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}  user={text}",
    "Bad protocol version identification '{text}' from {ip} port 4242",
]  # fmt: skip


@pytest.mark.parametrize("template", SSHD_LINES)
@given(ip=st.sampled_from(REAL), text=texts(SSHD_PIECES))
@settings(max_examples=50)
def test_no_text_sent_to_sshd_names_another(template: str, ip: str, text: str) -> None:
    """Login name, offer and banner never name another."""
    line = template.format(ip=ip, text=log_text(text))
    for spec in ("mc-sshd-filter", "mc-sshd-filter[mode=keys]", "mc-sshd-filter[mode=aggressive]"):
        innocent(spec, f"Nov 22 13:00:00 mail sshd[1]: {line}")
        innocent(spec, f"2026-11-22T13:00:00.123456+00:00 mail sshd-session[1]: {line}")


ERROR = "[Sun Nov 22 13:00:00.123456 2026]"
WEB_LINES = [
    '{ip} - {web} [22/Nov/2026:13:00:00 +0000] "GET /{web2} HTTP/1.1" 401 179 "{web2}" "{web}"',
    '{ip} - - [22/Nov/2026:13:00:00 +0000] "POST /login{web2} HTTP/1.1" 403 179 "{web}" "{web2}"',
    '{ip} - - [22/Nov/2026:13:00:00 +0000] "{web}" 400 0 "{web2}" "-"',
    'www.example.com:443 {ip} - {web} [22/Nov/2026:13:00:00 +0000] "POST /{web2} HTTP/1.1" 401 179',
    ERROR + ' [auth_basic:error] [pid 1:tid 2] [client {ip}:4242] AH01617: user {web}: authentication failure for "/{web2}":'
    " Password Mismatch, referer: {web2}",
    ERROR + " [auth_basic:error] [pid 1:tid 2] [client {ip}:4242] AH01618: user {web} not found: /{web2}, referer: {web}",
    ERROR + " [auth_digest:error] [pid 1:tid 2] [client {ip}:4242] AH01790: user `{web}' in realm `x' not found: /{web2}",
    ERROR + " [auth_digest:error] [pid 1:tid 2] [client {ip}:4242] AH01788: realm mismatch - got `{web}' but expected `x'",
    ERROR + " [core:error] [pid 1:tid 2] [client {ip}:4242] AH00126: Invalid URI in request {web}",
    '2026/11/22 13:00:00 [error] 1#1: *1 user "{raw}": password mismatch, client: {ip}, server: x, request: "GET /{web2}"',
    '2026/11/22 13:00:00 [error] 1#1: *1 user "{raw}" was not found in "/etc/x", client: {ip}, server: x, request: "GET /{web2}"',
    '2026/11/22 13:00:00 [error] 1#1: *1 open() "/{line}" failed (2: No such file), client: {ip}, server: x, request: "GET /{web2}"',
    "2026-11-22 13:00:00 login FAILED for user: {line} - {ip}",
    "2026-11-22 13:00:00 login SUCCEEDED for user: {line}",
]  # fmt: skip


@pytest.mark.parametrize("template", WEB_LINES)
@given(ip=st.sampled_from(REAL), one=texts(WEB_PIECES), two=texts(WEB_PIECES))
@settings(max_examples=50)
def test_no_text_sent_to_a_web_server_names_another(template: str, ip: str, one: str, two: str) -> None:
    """Login name, URL, referrer and user agent never name another, also where nginx writes line ends as they came."""
    line = template.format(
        ip=ip,
        web=web_log(one),
        web2=web_log(two),
        raw=one.replace(":", "").replace("\r", ""),
        line=one.replace("\n", "").replace("\r", ""),
    )
    innocent("mc-webauth-filter", line)
