# ruff: noqa: E501  # lines of logs stand in one piece
"""`successregex`: logins that succeed, on lines of exim 4.96 and OpenSSH 9.2 and on the documented form of others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.errors import FilterError
from mcban.filters import Scanner, load_filter

FOLDERS = [Path(__file__).parents[2] / "etc" / "filter.d"]
OTHER = "203.0.113.9"
LOGINS = {
    "mc-exim-filter": [
        ("2026-11-22 16:34:34 1xVAWQ-0008UI-1j <= bob@example.org H=(pc) [192.0.2.9]:51234 U=root P=esmtpa A=plain_server:bob@example.org S=288 T=\"hello [9.9.9.9] A=login:x\" for x@example.org", "192.0.2.9", "bob@example.org"),
        ("2026-11-22 16:34:34 1xVAWQ-0008UO-1m <= \"b ob\"@example.org H=([192.0.2.77]) [2001:db8::9]:51234 U=root P=esmtpa A=plain_server:bob@example.org S=303 T=\"hello\" for x@example.org", "2001:db8::9", "bob@example.org"),
        ("2026-11-22 16:34:34 1xVAWQ-0008UW-1p <= <> H=(host.example.org) [192.0.2.9]:51234 P=esmtpsa X=TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256 CV=no SNI=\"mail.example.net\" A=login:bob S=267", "192.0.2.9", "bob"),
        ("2026-11-22 16:34:34 1tE0ab-000000001aB-2F4d <= bob@example.org H=pc.example.org (pc) [192.0.2.9] I=[192.0.2.1]:587 P=esmtpa A=login:bob K S=267 id=x@y", "192.0.2.9", "bob"),
        ("Nov 22 16:34:34 mail dovecot: imap-login: Login: user=<bob@example.org>, method=PLAIN, rip=192.0.2.9, lip=192.0.2.1, mpid=12, TLS, session=<abc/def+>", "192.0.2.9", "bob@example.org"),
        ("2026-11-22T16:34:34.123456+01:00 mail dovecot[12]: pop3-login: Login: user=<bob>, rip=2001:db8::9, lip=::1", "2001:db8::9", "bob"),
        ("Nov 22 16:34:34 mail postfix/submission/smtpd[123]: 4F2A1C: client=host.example.org[192.0.2.9], sasl_method=PLAIN, sasl_username=bob@example.org", "192.0.2.9", "bob@example.org"),
    ],
    "mc-sshd-filter": [
        ("Nov 22 13:35:40 mail sshd[30]: Accepted password for root from 192.0.2.7 port 56269 ssh2", "192.0.2.7", "root"),
        ("Nov 22 13:35:40 mail sshd-session[30]: Accepted publickey for bob from 2001:db8::7 port 1 ssh2: ED25519 SHA256:abc", "2001:db8::7", "bob"),
    ],
}  # fmt: skip
OTHERS = {
    "mc-exim-filter": [
        "2026-11-22 16:34:34 1xVAWQ-0008Uf-1r <= \"x H=[203.0.113.9] P=esmtpa A=login:b S=1\"@example.org H=(pc) [192.0.2.66]:44 U=root P=esmtp S=264 T=\"hello\" for x@example.org",
        "2026-11-22 16:34:34 1xVAWQ-0008Uf-1r <= a@example.org H=(pc) [192.0.2.66]:44 P=esmtp S=264 id=x A=login:b S=1",
        "2026-11-22 16:34:34 1xVAWQ-0008Uf-1r => a@example.org R=smarthost T=remote_smtp H=mx [203.0.113.9] X=TLS A=plain C=\"250 ok\"",
        "Nov 22 16:34:34 mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<imap-login: Login: user=<x>, rip=203.0.113.9, lip=::1>, method=PLAIN, rip=192.0.2.66, lip=192.0.2.1",
        "Nov 22 16:34:34 mail postfix/smtpd[123]: 4F2A1C: client=unknown[192.0.2.66]",
        "Nov 22 16:34:34 mail postfix/smtpd[123]: warning: unknown[192.0.2.66]: SASL PLAIN authentication failed: client=unknown[203.0.113.9], sasl_method=PLAIN, sasl_username=bob",
    ],
    "mc-sshd-filter": [
        "Nov 22 13:35:40 mail sshd[30]: Failed password for invalid user Accepted password for root from 203.0.113.9 port 1 ssh2 from 192.0.2.66 port 2 ssh2",
        "Nov 22 13:35:40 mail sshd[30]: Invalid user Accepted password for root from 203.0.113.9 from 192.0.2.66 port 2",
        "Nov 22 13:35:40 mail sshd[30]: Accepted password for root from host.example.org port 56269 ssh2",
    ],
}  # fmt: skip


def successes(name: str) -> Scanner:
    """What finds the logins of a filter."""
    one = load_filter(name, FOLDERS).of_successes()
    assert one is not None
    return Scanner([one])


@pytest.mark.parametrize("name", LOGINS)
def test_logins_are_recognised(name: str) -> None:
    """Each line of a login that succeeded gives address and login; what is none, or only tells of one, gives none."""
    scanner = successes(name)
    for line, ip, user in LOGINS[name]:
        (found,) = scanner.scan(line.encode() + b"\n", 1_790_000_000)
        assert (found.ip, found.user) == (ip, user)
        assert found.at is not None
    assert [line for line in OTHERS[name] if scanner.scan(line.encode() + b"\n", 1_790_000_000)] == []


@pytest.mark.parametrize("name", LOGINS)
def test_a_login_that_succeeds_is_no_hit(name: str) -> None:
    """The rules that ban see nothing in these lines."""
    block = "".join(line + "\n" for line, *_ in LOGINS[name]).encode()
    assert Scanner([load_filter(name, FOLDERS)]).scan(block, 1_790_000_000) == []


PIECES = [
    f"[{OTHER}]", f") [{OTHER}]", f" H=[{OTHER}]", f"H=(x) [{OTHER}] P=esmtpa A=login:b S=1", " A=login:b", " S=1", " P=esmtpa",
    "(", ")", " ", '"', "\\", "@example.org", "x", "<", ">", " <= ", "] ", "[", " id=", 'T="', "1tE0ab-000001-2F",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
)
def test_nobody_makes_another_a_customer(helo: str, subject: str, identifier: str) -> None:
    """Whatever a client writes into HELO, subject and message id, with a login or without: the other never logged in,
    and who did not log in did not."""
    scanner = successes("mc-exim-filter")
    for login in ("", " A=plain:bob"):
        line = f'2026-11-22 16:34:34 1xVAWQ-0008Uf-1r <= a@example.org H=({helo}) [192.0.2.66]:44 P=esmtp{login} S=26 id={identifier} T="{subject}"\n'
        found = scanner.scan(line.encode(), 1_790_000_000)
        assert {match.ip for match in found} <= ({"192.0.2.66"} if login else set()), line


def test_a_success_without_an_address_is_refused(tmp_path: Path) -> None:
    """A successregex that tells no address is a fault of the filter, by its number."""
    (tmp_path / "x.conf").write_text("[Definition]\nfailregex = ^ no <HOST>$\nsuccessregex = ^ yes$\n")
    with pytest.raises(FilterError, match="successregex 1 has no <ADDR>"):
        load_filter("x", [tmp_path])
    (tmp_path / "x.conf").write_text("[Definition]\nfailregex = ^ no <HOST>$\n")
    assert load_filter("x", [tmp_path]).of_successes() is None
