"""What the rules of a filter say of a line: the offender, the login, the date; what is no hit."""

from datetime import UTC

import pytest

from mcban.filters import Filter, Match, Scanner, load_filter
from tests.filters.conftest import RULE, Write


def hit(one: Filter, line: str) -> Match:
    """What a filter finds in a line without its date, which must be something."""
    match = one.match(line)
    assert match is not None
    return match


def test_words_in_angle_brackets_are_text(folder: Write) -> None:
    """What is no tag and no option is text of the log."""
    one = load_filter("x", [folder("x.conf", "[Definition]\nfailregex = ^ <none> from=<<HOST>> <X-ID>$\n")])
    assert one.match(" <none> from=<192.0.2.1> <X-ID>")


def test_a_tag_may_stand_in_several_branches(folder: Write) -> None:
    """Of tags in branches of one rule the one in the branch that matched counts."""
    rule = r"^ (?:a <HOST> <F-USER>\w+</F-USER>|b <F-USER>\w+</F-USER> <HOST>|(c) <ADDR>|(?(3)x|d) <ADDR>)$"
    one = load_filter("x", [folder("x.conf", f"[Definition]\nfailregex = {rule}\n")])
    assert one.match(" a 192.0.2.1 joe") == Match(1, "192.0.2.1", "joe")
    assert one.match(" b ann 2001:db8::2") == Match(1, "2001:db8::2", "ann")
    assert one.match(" c 192.0.2.3") == Match(1, "192.0.2.3", None)
    assert one.match(" d 192.0.2.4") == Match(1, "192.0.2.4", None)


def test_an_alternative_may_stand_in_several_branches(folder: Write) -> None:
    """<F-ALT_IP4> and its kin, too, each in more than one branch; an address in the tag itself comes before them,
    wherever that stands. A group that is called as ours are is the author's own."""
    rule = (
        r"^ (?:a <F-ALT_IP4>\S+</F-ALT_IP4>|b <F-ALT_IP4>\S+</F-ALT_IP4>)"
        r"(?: c <ADDR>| (?P<x__again2>d) <ADDR>)? <F-ALT_USER>\w+</F-ALT_USER>$"
    )
    one = load_filter("x", [folder("x.conf", f"[Definition]\nfailregex = {rule}\n")])
    lines = [" a 192.0.2.1 joe", " b 192.0.2.1 joe", " a 192.0.2.2 c 192.0.2.1 joe", " b 192.0.2.2 d 192.0.2.1 joe"]
    for line in lines:
        assert one.match(line) == Match(1, "192.0.2.1", "joe")
    block = "".join(f"2026-11-22 13:00:00{line}\n" for line in lines).encode()
    assert [hit.ip for hit in Scanner([one], UTC).scan(block, 1_795_352_400)] == ["192.0.2.1"] * 4


def test_flags_inside_a_rule_hold_for_their_group_or_for_all_of_it(folder: Write) -> None:
    """`(?i)` at the beginning of a group holds for that group, elsewhere in a rule for the whole, as older Pythons took
    it; what only looks like it is left alone."""
    a = folder(
        "x.conf",
        "[Definition]\nfailregex = ^ a ((?i)LOGIN|PLAIN) [(?s)]\\(?i\\) <HOST>$\n"
        "            ^ b (?:(?i)expn|vrfy|(?:x)) \\((?i) <HOST>$\n",
    )
    one = load_filter("x", [a])
    assert one.match(" a login si) 192.0.2.1")
    assert one.match(" a Plain ((i) 192.0.2.1")
    assert not one.match(" A login si) 192.0.2.1")
    assert not one.match(" a Plain x(i) 192.0.2.1")
    assert hit(one, " B Vrfy ( 192.0.2.1").rule == 2


def test_who_is_banned_may_be_another_than_the_peer(folder: Write) -> None:
    """<F-ID> decides when it holds an address: behind a proxy the peer is the proxy."""
    one = load_filter("x", [folder("x.conf", "[Definition]\nfailregex = ^ <ADDR>:<F-PORT/> for <F-ID>\\S+</F-ID>$\n")])
    assert hit(one, " 192.0.2.1:http for 198.51.100.2").ip == "198.51.100.2"
    assert hit(one, " 192.0.2.1:80 for unknown").ip == "192.0.2.1"


@pytest.mark.parametrize(
    ("rule", "line", "ip"),
    [
        ("<HOST>", "192.0.2.1", "192.0.2.1"),
        ("<HOST>", "::ffff:192.0.2.1", "192.0.2.1"),
        ("<HOST>", "2001:DB8:0:0::1", "2001:db8::1"),
        ("<HOST>", "[2001:db8::1]", "2001:db8::1"),
        ("<HOST>", "[192.0.2.1]", "192.0.2.1"),
        ("<HOST>", "64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
        ("<HOST>:\\d+", "2001:db8::1:58430", "2001:db8::1"),
        ("<F-ADDR/>", "192.0.2.1", "192.0.2.1"),
        ("<F-IP4>\\S+</F-IP4>", "192.0.2.1", "192.0.2.1"),
        ("<HOST>", "host.example.net", None),
        ("<HOST>", "999.1.1.1", None),
        ("<HOST>", "1:2", None),
        ("<ADDR>", "host.example.net", None),
        ("<ADDR>", "2001:db8::", "2001:db8::"),
        ("<IP4>", "2001:db8::1", None),
        ("<IP6>", "192.0.2.1", None),
        ("<IP6>", "2001:db8::1", "2001:db8::1"),
        ("<SUBNET>", "192.0.2.77/24", "192.0.2.0/24"),
        ("<SUBNET>", "192.0.2.77", "192.0.2.77"),
        ("<SUBNET>", "192.0.2.77/16", "192.0.0.0/16"),
        ("<SUBNET>", "192.0.2.77/15", None),
        ("<SUBNET>", "0.0.0.0/0", None),
        ("<ADDR>/<CIDR>", "2001:db8::1/32", "2001:db8::/32"),
        ("<ADDR>/<CIDR>", "2001:db8::1/31", None),
        ("<F-ID>\\S+</F-ID>", "::/0", None),
        ("<F-ID>\\S+</F-ID>", "::ffff:0.0.0.0/96", None),
        ("<F-IP4>\\S+</F-IP4>", "192.0.2.1/8", None),
        ("<ADDR>/<CIDR>", "2001:db8::1/64", "2001:db8::/64"),
        ("<ADDR>/<CIDR>", "192.0.2.1/99", None),
        ("<DNS>", "host.example.net", None),
        ("<F-ID>\\S+</F-ID>", "192.0.2.1", "192.0.2.1"),
        ("<F-ID>\\S+</F-ID>", "session-17", None),
        ("(?P<host>\\S+)", "192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_offender_is_an_address(folder: Write, rule: str, line: str, ip: str | None) -> None:
    """Every tag for an address gives it in canonical form; a name, what only looks like an address, or a network so
    wide that it is everybody, is no hit: neither for one line nor for the engine."""
    one = load_filter("x", [folder("x.conf", f"[Definition]\nfailregex = ^ at {rule}$\n")])
    match = one.match(f" at {line}")
    assert (match and match.ip) == ip
    assert [found.ip for found in Scanner([one], UTC).scan(f" at {line}\n".encode(), 0)] == [ip] * (ip is not None)


def test_the_login_is_kept(folder: Write) -> None:
    """<F-USER> names the login, <F-ALT_USER> the one that counts when the first is empty; at most 255 characters."""
    a = folder(
        "x.conf",
        "[Definition]\nfailregex = ^ <F-USER>\\w*</F-USER>/<F-ALT_USER>\\w*</F-ALT_USER> <HOST>$\n"
        "            ^ short <F-USER/> <HOST>$\n",
    )
    one = load_filter("x", [a])
    assert hit(one, " a/b 192.0.2.1").user == "a"
    assert hit(one, " /b 192.0.2.1").user == "b"
    assert hit(one, " / 192.0.2.1").user is None
    assert hit(one, " short x 192.0.2.1").user == "x"
    assert hit(one, f" {'a' * 9999}/b 192.0.2.1").user == "a" * 255


@pytest.mark.parametrize("every_line", [False, True])
def test_alternative_logins_count_by_their_names(folder: Write, every_line: bool) -> None:
    """Of <F-ALT_USER>, <F-ALT_USER_1>… the first that is not empty is the login, wherever it stands in the line.
    <F-ALT_USER1> is none: fail2ban's filters put there who runs the daemon."""
    a = folder(
        "x.conf",
        "[Definition]\nfailregex = ^ run=<F-ALT_USER1>\\w*</F-ALT_USER1> b=<F-ALT_USER_2>\\w*</F-ALT_USER_2>"
        " a=<F-ALT_USER>\\w*</F-ALT_USER> u=<F-USER>\\w*</F-USER> <HOST>$\n" + "maxlines = 2\n" * every_line,
    )

    def login(line: str) -> str | None:
        scanner = Scanner([load_filter("x", [a])])
        [match] = scanner.scan(f"{line} 192.0.2.1\n".encode(), 1_795_352_400)
        assert hit(load_filter("x", [a]), f"{line} 192.0.2.1").user == match.user
        return match.user

    assert login(" run=root b=x a=y u=z") == "z"
    assert login(" run=root b=x a=y u=") == "y"
    assert login(" run=root b=x a= u=") == "x"
    assert login(" run=root b= a= u=") is None


def test_prefregex_comes_first(folder: Write) -> None:
    """A prefregex must match, rules see its <F-CONTENT>, and an address found there counts."""
    a = folder(
        "x.conf",
        "[Definition]\nprefregex = ^ app <ADDR>: <F-CONTENT>.+</F-CONTENT>$\nfailregex = ^bad <F-USER>.*</F-USER>$\n",
    )
    one = load_filter("x", [a])
    match = hit(one, " app 192.0.2.1: bad boy")
    assert (match.ip, match.user) == ("192.0.2.1", "boy")
    assert not one.match(" other 192.0.2.1: bad boy")
    assert not one.match(" app 192.0.2.1: good boy")


def test_ignoreregex_overrules(folder: Write) -> None:
    """A line that an ignoreregex matches is no hit, and the explanation says which one."""
    a = folder(
        "x.conf", f"[Definition]\nfailregex = ^ a <HOST>$\n    {RULE}\nignoreregex = ^ z\n    192\\.0\\.2\\.9$\n"
    )
    one = load_filter("x", [a])
    assert not one.match(" failed from 192.0.2.9")
    explained = one.explain("2026-11-22 13:00:00 failed from 192.0.2.9", 0)
    assert (explained.outcome, explained.ignored_by, explained.rule) == ("ignored", 2, 2)
    explained = one.explain("2026-11-22 13:00:00+00:00 failed from 192.0.2.8\n", 0)
    assert (explained.outcome, explained.rule, explained.at) == ("hit", 2, 1795352400)
    assert (explained.date, explained.rest) == ("2026-11-22 13:00:00+00:00", " failed from 192.0.2.8")
    explained = one.explain("x", 0)
    assert (explained.outcome, explained.rule, explained.date) == ("missed", None, None)


def test_case_is_ignored_where_the_rule_says_so(folder: Write) -> None:
    """`(?i)` at the start of a rule holds for it alone."""
    one = load_filter("x", [folder("x.conf", "[Definition]\nfailregex = (?i)^ FAILED <HOST>$\n  ^ Bad <HOST>$\n")])
    assert one.match(" fAiled 192.0.2.1")
    assert not one.match(" bAD 192.0.2.1")


@pytest.mark.parametrize(
    ("pattern", "line", "at"),
    [
        ("%%Y-%%m-%%d %%H:%%M:%%S %%z", "2026-11-22 13:00:00 +0000 x 192.0.2.1", 1795352400),
        ("^%%b %%d %%H:%%M:%%S %%Y %%z", "Nov 22 13:00:00 2026 +0100 x 192.0.2.1", 1795348800),
        ("{^LN-BEG}%%s", "1795352400 x 192.0.2.1", 1795352400),
        ("^[^\\[]*\\[({DATE})", "who [2026-11-22 13:00:00Z] x 192.0.2.1", 1795352400),
        ("^{EPOCH}", "1795352400.5 x 192.0.2.1", 1795352400),
        ("{^LN-BEG}%%Y%%m%%dT%%H%%M%%SZ?\n  {^LN-BEG}", "2026-11-22T13:00:00Z x 192.0.2.1", 1795352400),
        ("{NONE}", "2026-11-22 13:00:00 x 192.0.2.1", None),
    ],
)
def test_a_filter_says_how_its_dates_look(folder: Write, pattern: str, line: str, at: int | None) -> None:
    """`datepattern` takes strptime's directives, expressions, and the usual words in braces."""
    a = folder("x.conf", f"[Definition]\nfailregex = x <HOST>$\ndatepattern = {pattern}\n")
    explained = load_filter("x", [a]).explain(line, 1795352400)
    assert explained.outcome == "hit"
    assert explained.at == at
