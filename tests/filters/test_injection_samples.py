# ruff: noqa: E501  # templates of log lines stand in one piece
"""Lines in which an attacker wrote the address of another wherever he could, for our filters and for Debian's.

`samples/injection/DAEMON` holds them as the daemon writes them. `# read by: LETTER SPEC` names the filters. Above each
line stands `# him: LETTERS`, the filters that count it, and then for the attacker; `-` for none. Where a filter of
Debian's, which is used as it is, lets the attacker name another, `# hole: LETTERS: WHY` says so: such a hole is known,
told in docs/filters.md, and must be taken from the list when it is gone. `# only fail2ban:` is a hole of that filter
which is none here. `# note:` is for people.

`ATTACKERS` connected; whoever else is found did not.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mcban.filters import Filter, Scanner, load_filter, load_journal_filter
from mcban.logs.journal_export import ExportReader
from mcban.service.sources import Intake, Source
from tests.fail2ban_package import FILTERS
from tests.filters.conftest import Ask

OURS = Path(__file__).parents[2] / "etc" / "filter.d"
SAMPLES = Path(__file__).parent / "samples" / "injection"
DAEMONS = ["dovecot", "exim", "postfix", "sasl", "sshd", "web"]
ATTACKERS = {"203.0.113.66", "2001:db8:66::66"}
VICTIM = re.compile(r"192\.0\.2\.1|192-0-2-1|2001:db8::1|MTkyLjAuMi4x|PDE5Mi4wLjIuMUBtYWlsPg==")
NOW = int(datetime(2026, 11, 22, 13, 1, tzinfo=UTC).timestamp())
_HEAD = re.compile(r"# (him|hole|only fail2ban): (\w+|-)(?:: (.+))?")


@dataclass(frozen=True)
class Sample:
    """A line, and by filter what it comes to."""

    where: str
    line: str
    him: frozenset[str]
    holes: frozenset[str]
    holes_of_fail2ban: frozenset[str]
    specs: tuple[str, ...]


@cache
def read_samples(daemon: str) -> list[Sample]:
    """The samples of a daemon; fails where an expectation or a reason is missing."""
    specs: dict[str, str] = {}
    heads: dict[str, str] = {}
    samples = []
    for number, line in enumerate((SAMPLES / daemon).read_text("utf-8").splitlines(), start=1):
        where = f"{daemon}:{number}"
        if found := re.fullmatch(r"# read by: (\w) (\S+)", line):
            specs[found[1]] = found[2]
        elif found := _HEAD.fullmatch(line):
            assert found[1] == "him" or found[3], f"{where}: a hole without a reason"
            heads[found[1]] = found[2].strip("-")
        elif not line.startswith("# note: "):
            assert "him" in heads, f"{where}: no expectation above this line"
            him, holes, theirs = (
                frozenset(specs[letter] for letter in heads.get(kind, "")) for kind in ("him", "hole", "only fail2ban")
            )
            samples.append(Sample(where, line, him, holes, theirs, tuple(specs.values())))
            heads = {}
    return samples


Load = Callable[[str], Filter]


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest) -> Load:
    """Loads a filter, ours or Debian's."""

    @cache
    def load(spec: str) -> Filter:
        folder = OURS if spec.startswith("mc-") else request.getfixturevalue("package") / FILTERS
        return load_filter(spec, [folder])

    return load


def scan(load: Load, spec: str, text: str) -> list[str]:
    """Whom a filter finds in a log that holds nothing else."""
    return [match.ip for match in Scanner([load(spec)], UTC).scan(text.encode() + b"\n", NOW)]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_there_are_twenty_lines_for_each_filter(daemon: str) -> None:
    """Every filter is tried with at least twenty lines in which the attacker wrote another's address."""
    samples = read_samples(daemon)
    lines = Counter(spec for sample in samples if VICTIM.search(sample.line) for spec in sample.specs)
    assert set(lines) == set(samples[-1].specs)
    assert min(lines.values()) >= 20


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_line_names_the_attacker_or_nobody(load: Load, daemon: str) -> None:
    """In no line, but for the known holes, is anybody else the offender; the attacker is, where that can be told."""
    wrong = []
    for sample in read_samples(daemon):
        found = {spec: set(scan(load, spec, sample.line)) for spec in sample.specs}
        him = {spec for spec, ips in found.items() if ips & ATTACKERS}
        holes = {spec for spec, ips in found.items() if ips - ATTACKERS}
        if him != sample.him or holes != sample.holes:
            wrong.append((sample.where, found))
    assert not wrong, "a hole is new, or a known one is gone"


def test_the_holes_are_those_of_debian_s_filters() -> None:
    """None of our own filters has a known hole, in any mode."""
    samples = [sample for daemon in DAEMONS for sample in read_samples(daemon)]
    holes = {spec for sample in samples for spec in sample.holes | sample.holes_of_fail2ban}
    assert {spec.partition("[")[0] for spec in holes} == {"sshd", "dovecot", "exim", "postfix"}


def test_fail2ban_has_the_known_holes_too(package: Path, ask_fail2ban: Ask) -> None:
    """What is called a hole of a filter of Debian's is one in fail2ban as well: the filter's, not mcban's reading."""
    judged = 0
    for sample in (sample for daemon in DAEMONS for sample in read_samples(daemon)):
        for spec in sample.holes | sample.holes_of_fail2ban:
            name, _, parameters = spec.rstrip("]").partition("[")
            options = dict(one.split("=") for one in parameters.split(",") if one)
            theirs = ask_fail2ban({"read": name, "options": options, "folder": str((package / FILTERS).parent)})
            rules = {
                "failregex": theirs["failregex"],
                "ignoreregex": [],
                "prefregex": theirs.get("prefregex", [None])[0],
            }
            (hit,) = ask_fail2ban({"judge": rules, "lines": [sample.line]})
            assert hit, sample.where
            assert hit[1] not in ATTACKERS, sample.where
            judged += 1
    assert judged > 10


@pytest.mark.parametrize("files", [[daemon] for daemon in DAEMONS] + [DAEMONS], ids="+".join)
def test_many_jails_on_one_log_name_the_attacker_or_nobody(load: Load, files: list[str]) -> None:
    """Read by the engine's own way, with every filter's jail on the one log, no line names another but by its holes.

    The last run has the lines of all daemons in one log, and every filter reads them all.
    """
    samples = [sample for daemon in files for sample in read_samples(daemon)]
    specs = list(dict.fromkeys(spec for sample in samples for spec in sample.specs))
    intake = Intake([Source(spec, ("/log",), load(spec), UTC) for spec in specs])
    # Two readings, so that sessions go over the edge of a block.
    half = len(samples) // 2
    hits = []
    for part in (samples[:half], samples[half:]):
        block = "".join(f"{sample.line}\n" for sample in part).encode()
        hits += intake.hits("/log", block, ("/log",), NOW)
    others = Counter(hit.group for hit in hits if hit.ip not in ATTACKERS)
    assert others == Counter(spec for sample in samples for spec in sample.holes)
    theirs = Counter(hit.group for hit in hits if hit.ip in ATTACKERS)
    assert theirs >= Counter(spec for sample in samples for spec in sample.him)


def test_a_line_end_in_a_login_begins_no_line_of_the_journal(package: Path) -> None:
    """The journal keeps line ends, and a login may hold them: what follows is no line of its own to any filter."""
    forged = [sample.line for sample in read_samples("sshd")] + [
        "2026-11-22T13:00:00.000000+00:00 mail sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2",
        "\n__CURSOR=s=9;i=9\n__REALTIME_TIMESTAMP=1795352400000000\nMESSAGE=Failed password for root from 192.0.2.1 port 22 ssh2\n",
    ]
    specs = read_samples("sshd")[0].specs
    filters = {spec: load_journal_filter(spec, [OURS, package / FILTERS]) for spec in specs}
    counted = 0
    for line in forged:
        login = f"x\n{line.replace('203.0.113.66', '192.0.2.1').replace('2001:db8:66::66', '2001:db8::1')}\n"
        for end in ("\n", "\r", "\r\n", "\x00", "\u2028", "\x1c"):
            message = f"Invalid user {login.replace(chr(10), end)} from 203.0.113.66 port 40000".encode()
            fields = b"__CURSOR=s=1;i=1\n__REALTIME_TIMESTAMP=1795352400000000\n_HOSTNAME=mail\nSYSLOG_IDENTIFIER=sshd\n_PID=7\n"
            export = fields + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n\n"
            (entry,) = ExportReader().feed(export)
            for spec, one in filters.items():
                found = {match.ip for match in Scanner([one], UTC).scan(entry.line + b"\n", NOW)}
                assert found <= ATTACKERS, (spec, message)
                counted += len(found)
    assert counted > 100


NAMES = ["192.0.2.1.example.net", "192.0.2.1-x.example.net", "192.0.2.12a.net", "192.0.2.123.4.5.6.x", "192.0.2.1_x", "192.0.2.1x"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_host_name_that_begins_like_an_address_is_none(tmp_path: Path, name: str) -> None:
    """A reverse zone's name may begin with another's address: it bans nobody, whatever a rule lets follow."""
    (tmp_path / "x.conf").write_text("[Definition]\nfailregex = ^ login from <HOST>\n")
    one = load_filter("x", [tmp_path])
    explained = one.explain(f"2026-11-22 13:00:00 login from {name} port 22", NOW, matcher=one.matcher())
    assert (explained.outcome, explained.match, explained.name) == ("name", None, name)


@pytest.mark.parametrize("behind", ["", ".", ":", ": no", ".4242", "-4242;x", ", x", "] x", "#53", "/24", "\tx"])
def test_an_address_is_one_with_whatever_daemons_write_behind_it(tmp_path: Path, behind: str) -> None:
    """Ports, ends of sentences and brackets behind an address make no name of it."""
    (tmp_path / "x.conf").write_text("[Definition]\nfailregex = ^ login from <HOST>\n")
    one = load_filter("x", [tmp_path])
    match = one.explain(f"2026-11-22 13:00:00 login from 192.0.2.1{behind}", NOW, matcher=one.matcher()).match
    assert match is not None
    assert match.ip == "192.0.2.1"


# What follows is made of pieces of the samples: every cut of every line may stand in every field.
LINES = [sample.line for daemon in DAEMONS for sample in read_samples(daemon)]
CUTS = [cut.start() for cut in re.finditer(r"(?<=\W)|(?=\W)", max(LINES, key=len))]
MARKS = [" from ", " rhost=192.0.2.1", ", rip=192.0.2.1", "client=x[192.0.2.1]", "192.0.2.1", "2001:db8::1", "[192.0.2.1]: ", " port 22", " ssh2", " [preauth]", " on ", " ", ">", "<", "(", ")", "[", "]", ",", ":", ": ", '"', "'", "\\", "%s", "é", "aaaaaaaaaaaaaaaa"]  # fmt: skip
SLICES = st.builds(
    lambda line, first, length: line[first : first + length],
    st.sampled_from(LINES),
    st.sampled_from(CUTS),
    st.integers(1, 80),
)
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS), SLICES), max_size=5).map("".join)


def login_of_sshd(text: str) -> str:
    """Cut at the colon, octal for what is not ASCII, as OpenSSH logs it; not the known hole of Debian's filter."""
    text = text.partition(":")[0].replace("\\", "\\\\")
    text = "".join(c if " " <= c <= "~" else "".join(f"\\{byte:03o}" for byte in c.encode()) for c in text)
    return text[:-1] + "f" if text.endswith(" on") else text


def printable(text: str) -> str:
    """What postfix and dovecot make of control characters."""
    return "".join(c if c >= " " and c != "\x7f" else "?" for c in text)


def login_of_dovecot(text: str) -> str:
    """A login with auth_username_chars emptied; not the known hole of Debian's filter."""
    return printable(text).replace("): ", ")")


TEMPLATES = {
    "sshd": (login_of_sshd, [
        "mail sshd[7]: Invalid user {one} from {ip} port 40000",
        "mail sshd[7]: Failed password for invalid user {one} from {ip} port 40000 ssh2",
        "mail sshd[7]: Failed publickey for invalid user {one} from {ip} port 40000 ssh2: RSA SHA256:47DEQpj8HBSa",
        "mail sshd[7]: Failed none for invalid user {one} from {ip} port 40000 ssh2",
        "mail sshd[7]: error: PAM: Authentication failure for illegal user {one} from {ip}",
        "mail sshd[7]: error: maximum authentication attempts exceeded for invalid user {one} from {ip} port 40000 ssh2 [preauth]",
        "mail sshd[7]: Connection closed by invalid user {one} {ip} port 40000 [preauth]",
        "mail sshd[7]: Disconnected from invalid user {one} {ip} port 40000 [preauth]",
        "mail sshd[7]: Disconnecting invalid user {one} {ip} port 40000: Too many authentication failures [preauth]",
        "mail sshd[7]: Disconnecting invalid user {one} {ip} port 40000: Change of username or service not allowed: ({one},{two}) -> ({two},{one}) [preauth]",
        "mail sshd[7]: Received disconnect from {ip} port 40000:3: {two}: Auth fail [preauth]",
        "mail sshd[7]: Received disconnect from {ip} port 40000:11: {two} [preauth]",
        "mail sshd[7]: Unable to negotiate with {ip} port 40000: no matching cipher found. Their offer: {two} [preauth]",
        "mail sshd[7]: Bad protocol version identification '{two}' from {ip} port 40000",
        'mail sshd[7]: error: kex_exchange_identification: client sent invalid protocol identifier "{two}"',
    ]),
    "dovecot": (login_of_dovecot, [
        "mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<{one}>, method=PLAIN, rip={ip}, lip=198.51.100.1, session=<aJq0v1+uWtvLAHFC>",
        "mail dovecot: pop3-login: Aborted login: Connection closed (tried to use disallowed plaintext auth): user=<{one}>, rip={ip}, lip=198.51.100.1, TLS",
        "mail dovecot: auth-worker(312): pam({one},{ip},<aJq0v1+uWtvLAHFC>): pam_authenticate() failed: Authentication failure (password mismatch?)",
        "mail dovecot: auth: passwd-file({one},{ip},<aJq0v1+uWtvLAHFC>): unknown user",
        "mail dovecot: auth: sql({one},{ip}): Password mismatch (given password: {two})",
        "mail dovecot: auth: plain(?,{ip},<aJq0v1+uWtvLAHFC>): Username character disallowed by auth_username_chars: 0x20 (username: {one})",
        "mail dovecot: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser={one} rhost={ip}  user={one}",
        "mail dovecot: lmtp(bob)<77><aJq0v1>: sieve: msgid=<{two}>: stored mail into mailbox 'INBOX'",
    ]),
    "postfix": (printable, [
        "mail postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[{ip}]: 554 5.7.1 <{one}>: Relay access denied; from=<{two}> to=<{one}> proto=ESMTP helo=<{two}>",
        "mail postfix/smtpd[7]: NOQUEUE: reject: MAIL from unknown[{ip}]: 450 4.1.8 <{one}>: Sender address rejected: Domain not found; from=<{one}> proto=ESMTP helo=<{two}>",
        "mail postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[{ip}]: 504 5.5.2 <{one}>: Helo command rejected: need fully-qualified hostname; from=<{two}> to=<b@example.org> proto=ESMTP helo=<{one}>",
        "mail postfix/smtpd[7]: improper command pipelining after EHLO from unknown[{ip}]: {one}",
        "mail postfix/smtpd[7]: warning: unknown[{ip}]: SASL LOGIN authentication failed: {one}, sasl_username={two}",
        "mail postfix/smtpd[7]: warning: non-SMTP command from unknown[{ip}]: {one}",
        "mail postfix/smtpd[7]: warning: Illegal address syntax from unknown[{ip}] in RCPT command: {one}",
        "mail postfix/postscreen[7]: PREGREET 41 after 0.11 from [{ip}]:40000: {one}",
        "mail postfix/cleanup[7]: 4F2A1C0DE: reject: header Subject: {one} from unknown[{ip}]; from=<{two}> to=<b@example.org> proto=ESMTP helo=<{two}>: 5.7.1 rejected",
        "mail postfix/cleanup[7]: 4F2A1C0DE: message-id=<{one}>",
    ]),
    "sasl": (printable, [
        "mail postfix/smtpd[7]: warning: unknown[{ip}]: SASL PLAIN authentication failed: (reason unavailable), sasl_username={one}",
        "mail cyrus/imap[7]: badlogin: x [{ip}] plaintext {one} SASL(-13): authentication failure: checkpass failed",
        "mail cyrus/imap[7]: badlogin: x [{ip}] {two} [SASL(-13): user not found: user: {one}@mail property: cmusaslsecretPLAIN not found in sasldb]",
        "mail saslauthd[7]: do_auth         : auth failure: [user={one}] [service=smtp] [realm={two}] [mech=pam] [reason=PAM auth error]",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("daemon", TEMPLATES)
@given(data=st.data())
@settings(max_examples=40)
def test_no_text_names_another_to_debian_s_filters(load: Load, daemon: str, data: st.DataObject) -> None:
    """Logins, senders, HELOs and texts made of pieces of log lines never name anybody but who wrote them."""
    write, templates = TEMPLATES[daemon]
    template = data.draw(st.sampled_from(templates))
    one, two = write(data.draw(TEXTS)), printable(data.draw(TEXTS))
    assume("reject: header" not in template or "SASL" not in one)  # the known hole
    for ip in ATTACKERS:
        line = "Nov 22 13:00:00 " + template.format(ip=ip, one=one, two=two)
        for spec in read_samples(daemon)[-1].specs:
            assert set(scan(load, spec, line)) <= ATTACKERS, (spec, line)


@pytest.mark.parametrize("spec", read_samples("sshd")[-1].specs)
@given(data=st.data())
@settings(max_examples=40)
def test_no_connection_pays_for_another_s(load: Load, spec: str, data: st.DataObject) -> None:
    """Connections that go on side by side, and later ones under the same process id: who logs in rightly is never
    counted, whatever others wrote into their logins before."""
    log = []
    open_lines: list[list[str]] = []
    for _ in range(data.draw(st.integers(1, 5))):
        pid = data.draw(st.integers(10, 12))
        if data.draw(st.booleans()):
            login = login_of_sshd(
                data.draw(TEXTS | st.sampled_from(["mail sshd[10]", "sshd[11]", "bob", "10", "bob from 192.0.2.1"]))
            )
            lines = [
                "Connection from 203.0.113.66 port 40000 on 198.51.100.1 port 22",
                f"Invalid user {login} from 203.0.113.66 port 40000",
                f"Failed password for invalid user {login} from 203.0.113.66 port 40000 ssh2",
                f"Connection closed by invalid user {login} 203.0.113.66 port 40000 [preauth]",
            ]
            lines = lines[: data.draw(st.integers(1, 4))]  # killed, or cut off: a connection need not tell its end
        else:
            lines = [
                "Connection from 192.0.2.1 port 50000 on 198.51.100.1 port 22",
                "Failed publickey for bob from 192.0.2.1 port 50000 ssh2: RSA SHA256:47DEQpj8HBSa",
                "Accepted publickey for bob from 192.0.2.1 port 50000 ssh2: RSA SHA256:47DEQpj8HBSb",
            ]
        lines = [f"mail sshd[{pid}]: {line}" for line in lines]
        same = [other for other in open_lines if other[0].startswith(f"mail sshd[{pid}]")]
        for other in same:  # a process id is given again only after its owner has ended
            log += other
            open_lines.remove(other)
        open_lines.append(lines)
        for _ in range(data.draw(st.integers(0, 3))):
            going = data.draw(st.sampled_from(open_lines))
            if len(going) > 1:
                log.append(going.pop(0))
    for rest in open_lines:
        log += rest
    text = "\n".join(f"Nov 22 13:00:00 {line}" for line in log)
    assert set(scan(load, spec, text)) <= ATTACKERS, text
