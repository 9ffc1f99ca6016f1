"""mcban beside fail2ban itself, whose modules are asked: options come together alike, sessions are joined alike."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.errors import FilterError
from mcban.filters import load_filter
from mcban.filters.reader import read_definition
from tests.fail2ban_package import FILTERS
from tests.filters.conftest import Ask

PARAMETERS = [
    {},
    {"mode": "normal"},
    {"mode": "aggressive"},
    {"mode": "ddos"},
    {"mode": "extra"},
    {"mode": "auth"},
    {"logtype": "short"},
    {"logtype": "journal"},
    {"logtype": "rfc5424"},
    {"logging": "syslog"},
    {"logging": "webapp"},
    {"publickey": "any"},
    {"_daemon": "other", "__prefix_line": "x <HOST>"},
    {"failregex": "^own <HOST>$", "maxlines": "3"},
]


def lines(text: str) -> list[str]:
    """The lines that say something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_options_come_together_alike(package: Path, ask_fail2ban: Ask) -> None:
    """With whatever parameters, a filter's expressions are those that fail2ban makes of the same files."""
    compared = 0
    for path in sorted((package / FILTERS).glob("*.conf")):
        if path.stem.endswith("common"):
            continue  # only included by others
        for parameters in PARAMETERS:
            spec = f"{path.stem}[{','.join(f'{key}={value!r}' for key, value in parameters.items())}]"
            theirs = ask_fail2ban({"read": path.stem, "options": parameters, "folder": str((package / FILTERS).parent)})
            try:
                ours = read_definition(spec, [package / FILTERS]).options
            except FilterError as error:
                # A mode that the filter lacks becomes text with fail2ban, and is refused here.
                assert "asks for" in str(error), spec
                continue
            for option in ("failregex", "ignoreregex", "prefregex", "datepattern", "maxlines"):
                assert lines(ours.get(option, "")) == lines("\n".join(theirs.get(option, []))), (spec, option)
                compared += 1
    assert compared > 4_000


ODD: dict[str, tuple[dict[str, str], list[dict[str, str]], list[str]]] = {
    "an option chosen by two others": (
        {
            "x.conf": "[Definition]\nmode = b\nlevel = 2\na-b-1 = ^ flat <HOST>$\na-b-2 = ^ deep <HOST>$\n"
            "failregex = <a-<mode>-<level>>\n"
        },
        [{}, {"level": "1"}],
        [" deep 192.0.2.1", " flat 192.0.2.1"],
    ),
    "a rule for each kind of log": (
        {
            "base.conf": "[DEFAULT]\nlogtype = file\nkind = <lt_<logtype>/kind>\nfailregex = ^ %(kind)s banned <HOST>\n"
            "[lt_file]\nkind = F\n[lt_short]\nkind = S\nfailregex = ^ %(kind)s (?:banned )?<HOST>\n"
            "[lt_journal]\nkind = %(lt_short/kind)sJ\nfailregex = <lt_short/failregex>\n",
            "x.conf": "[INCLUDES]\nbefore = base.conf\n[Definition]\nfailregex = <lt_<logtype>/failregex>\n"
            "[lt_file]\nkind = %(known/kind)sX\n",
        },
        [{}, {"logtype": "short"}, {"logtype": "journal"}, {"kind": "row"}],
        [" F banned 192.0.2.1", " FX banned 192.0.2.2", " S 192.0.2.3", " SJ 192.0.2.4", " row banned 192.0.2.5"],
    ),
    "what percent and angles see": (
        {"x.conf": "[Definition]\nword = one\nfailregex = ^ %(word)s <word> <HOST>$\n[Init]\nword = two\n"},
        [{}, {"word": "row"}],
        [" one two 192.0.2.1", " two two 192.0.2.1", " row row 192.0.2.1"],
    ),
    "files that include one another": (
        {
            "x.conf": "[INCLUDES]\nbefore = sub/y.conf\n[Definition]\nfailregex = %(theirs)s\n  ^ x <HOST>$\n",
            "sub/y.conf": "[INCLUDES]\nbefore = z.conf\n[Definition]\ntheirs = %(zs)s\n",
            "sub/z.conf": "[INCLUDES]\nbefore = y.conf\n  z.conf\n[Definition]\nzs = ^ z <HOST>$\n",
        },
        [{}],
        [" z 192.0.2.1", " x 192.0.2.2"],
    ),
    "comments between a rule and the next": (
        {
            "x.conf": "[Definition]\r\nfailregex =\r\n    ^ a;b <HOST>$\r\n# margin\r\n    # inner\r\n\r\n"
            "      ^ b #c <HOST>$   ; behind\r\n\t^ 100%% <HOST>$\r\n ; all\r\nignoreregex =\r\n"
        },
        [{}],
        [" a;b 192.0.2.1", " b #c 192.0.2.2", " 100% 192.0.2.3", " # inner"],
    ),
    "flags within a rule": (
        {
            "x.conf": "[Definition]\nfailregex = ^ ((?i)login|plain) ((a|b)\\2) failed <HOST>$\n"
            "  ^ (?:(?i)expn|(?:(?i)vrfy)) [(?i)] (?-i:done) <HOST>$\n  (?i)^ any CASE <HOST>$\n"
        },
        [{}],
        [
            " LOGIN aa failed 192.0.2.1",
            " Plain bb FAILED 192.0.2.2",
            " Vrfy i done 192.0.2.3",
            " VRFY i Done 192.0.2.4",
            " ANY case 192.0.2.5",
        ],
    ),
    "who else may be the login": (
        {
            "x.conf": "[Definition]\nfailregex = ^ by=<F-ALT_USER1>\\S*</F-ALT_USER1>"
            " c=<F-ALT_USER_2>\\S*</F-ALT_USER_2> b=<F-ALT_USER>\\S*</F-ALT_USER> u=<F-USER>\\S*</F-USER> <HOST>$\n"
        },
        [{}],
        [
            " by=x c=y b=z u=w 192.0.2.1",
            " by=x c=y b=z u= 192.0.2.1",
            " by=x c=y b= u= 192.0.2.1",
            " by=x c= b= u= 192.0.2.1",
        ],
    ),
    "a quotation mark if there was one": (
        {
            "x.conf": "[Definition]\nprefregex = ^ app: (?=script|stderr)<F-CONTENT>.+</F-CONTENT>$\n"
            "path = /\\S*\\.(?:php|cgi)\nfailregex = ^(?:stderr |script (?P<_q>'))<path>(?(_q)'|) from <ADDR>\\b\n"
            "ignoreregex = <path> from <IP4>$\n  from <SUBNET>,\n"
        },
        [{}, {"path": "/x"}],
        [
            " app: script '/a.php' from 192.0.2.1",
            " app: stderr /a.cgi from 2001:db8::1",
            " app: script '/a.php from ::1",
            " app: stderr /x from 192.0.2.1",
            " app: stderr /a.php from 192.0.2.1",
        ],
    ),
    "parts in a folder of its own": (
        {
            "x.conf": "[Definition]\nfailregex = ^ <a> <b> <c> <d> <e> <HOST>$\na = x\nb = x\nc = x\nd = x\ne = x\n",
            "x.local": "[Definition]\nd = local\ne = local\n",
            "x.d/9.conf": "[Definition]\nc = nine\nd = nine\ne = nine\n",
            "x.d/10.conf": "[Definition]\nb = ten\nc = ten\nd = ten\ne = ten\n",
            "x.d/a.local": "[Definition]\ne = last\n",
        },
        [{}],
        [" x ten nine local last 192.0.2.1", " x x x local local 192.0.2.1"],
    ),
    "a whole line ignored where rules are many": (
        {
            "x.conf": "[Definition]\nprefregex = ^ app: <F-CONTENT>.+</F-CONTENT>$\nrules = \n"
            "failregex = ^a <HOST>$\n  ^b <HOST>$\n  <rules>\nignoreregex = ^ app: b\n  ^a \\S*9$\n"
        },
        [
            {},
            {"rules": "^c <HOST>$"},
            {"rules": "^c <HOST>$\n^d <HOST>$"},
            {"rules": "^c <HOST>$\n^d <HOST>$\n^e <HOST>$"},
        ],
        [" app: a 192.0.2.1", " app: b 192.0.2.1", " app: a 192.0.2.9", " app: b 192.0.2.9"],
    ),
    "where else the offender may stand": (
        {
            "x.conf": "[Definition]\nfailregex = ^ peer (?:<ADDR>|-) for=<F-ALT_IP4>\\S*</F-ALT_IP4>$\n"
            "  ^ id <F-ALT_ID_2>\\S*</F-ALT_ID_2> <F-ALT_ID_1>\\S*</F-ALT_ID_1> <F-ID>\\S*</F-ID>$\n"
        },
        [{}],
        [
            " peer 192.0.2.1 for=192.0.2.2",
            " peer - for=192.0.2.2",
            " peer 2001:db8::1 for=",
            " id 192.0.2.2 192.0.2.1 192.0.2.3",
            " id 192.0.2.2  192.0.2.3",
            " id 192.0.2.2 192.0.2.1 ",
            " id 192.0.2.2  ",
        ],
    ),
    "names that look like something else": (
        {
            "x.conf": "[Definition]\n_DAEMON = app\n2fa = code\nmode = 2\n2-x = deep\n"
            "failregex = ^ <_DAEMON> <2fa> <<mode>-x> </F-USER> %(__name__)s <HOST>$\n  ^ in <where> <HOST>$\n"
            "[DEFAULT]\nwhere = %(__name__)s\n"
        },
        [{}, {"mode": "3", "3-x": "flat"}],
        [
            " app code deep </F-USER> Definition 192.0.2.1",
            " app code flat </F-USER> Definition 192.0.2.1",
            " in Definition 192.0.2.1",
            " in DEFAULT 192.0.2.1",
        ],
    ),
    "an address before the content and one within": (
        {
            "x.conf": "[Definition]\nprefregex = ^ proxy(?: <ADDR>)?: <F-CONTENT>.+</F-CONTENT>$\n"
            "failregex = ^bad login$\n  ^refused <HOST>$\n  ^relayed for <ADDR>, <F-USER>\\w+</F-USER>$\n"
        },
        [{}],
        [
            " proxy 192.0.2.1: bad login",
            " proxy 192.0.2.1: refused 2001:db8::2",
            " proxy 2001:db8::1: refused 192.0.2.2",
            " proxy 2001:db8::1: relayed for 192.0.2.2, joe",
            " proxy 192.0.2.1: relayed for 2001:db8::2, joe",
            " proxy: relayed for 2001:db8::2, joe",
        ],
    ),
    "groups counted behind an address": (
        {
            "x.conf": "[Definition]\nfailregex = ^ (\\d+) <HOST> (\\w+) \\5 \\1$\n  ^ <ADDR> <F-MY_TAG>\\w+</F-MY_TAG>"
            " (?P=my_tag) <b>(x)</b> \\4$\n"
        },
        [{}],
        [" 7 192.0.2.1 joe joe 7", " 7 192.0.2.1 joe joe 8", " 2001:db8::1 a a <b>x</b> x"],
    ),
}
"""Filters that use the format to its ends: their files, parameters to try, lines without a date."""


@pytest.mark.parametrize("title", ODD)
def test_odd_filters_are_read_alike(ask_fail2ban: Ask, tmp_path: Path, title: str) -> None:
    """What a filter's author may write but seldom does means what it means to fail2ban."""
    files, choices, log = ODD[title]
    for name, text in files.items():
        path = tmp_path / "filter.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    log = [f"2026-11-22 13:00:00{line}" for line in log]
    matched = 0
    for parameters in choices:
        theirs = ask_fail2ban({"read": "x", "options": parameters, "folder": str(tmp_path)})
        options: dict[str, Any] = {"prefregex": None, "failregex": [], "ignoreregex": []}
        options |= {name: theirs[name] for name in ("failregex", "ignoreregex") if name in theirs}
        if "prefregex" in theirs:
            options["prefregex"] = "\n".join(theirs["prefregex"])
        expected = ask_fail2ban({"judge": options, "lines": log})
        given = ",".join(f'{key}="{value}"' for key, value in parameters.items())
        one = load_filter(f"x[{given}]", [tmp_path / "filter.d"])
        found = [one.explain(line, 1_795_360_000).match for line in log]
        assert [match and [match.rule, match.ip, match.user] for match in found] == expected, parameters
        matched += len(log) - expected.count(None)
    assert matched


RULES = [
    "^hello from <ADDR>$",
    "^<F-NOFAIL>connect</F-NOFAIL> <ADDR>$",
    r"^<F-NOFAIL>key</F-NOFAIL> <F-USER>\S+</F-USER>$",
    "^failed$",
    r"^failed for <F-USER>\S+</F-USER>$",
    "^failed from <ADDR>$",
    "^<F-MLFFORGET>closed</F-MLFFORGET>$",
    "^<F-NOFAIL><F-MLFFORGET>bye</F-MLFFORGET></F-NOFAIL> <ADDR>$",
    r"^<F-MLFGAINED>accepted</F-MLFGAINED> <F-USER>\S+</F-USER>$",
    r"^<F-MLFFORGET><F-MLFGAINED>granted</F-MLFGAINED></F-MLFFORGET> for <F-USER>\S+</F-USER> from <ADDR>$",
    r"^tried <F-ALT_USER>\S*</F-ALT_USER>/<F-USER>\S*</F-USER> at <HOST>$",
]
ADDRESSES = st.just("OWNER")
"""A session has one owner: where a second address comes in, mcban differs on purpose."""
USERS = st.sampled_from(["root", "bob", "ann"])
EVENTS = st.one_of(
    st.sampled_from(["failed", "closed", "noise"]),
    st.builds("{} {}".format, st.sampled_from(["hello from", "connect", "failed from", "bye"]), ADDRESSES),
    st.builds("{} {}".format, st.sampled_from(["key", "failed for", "accepted"]), USERS),
    st.builds("granted for {} from {}".format, USERS, ADDRESSES),
    st.builds("tried {}/{} at {}".format, USERS | st.just(""), USERS | st.just(""), ADDRESSES.map("[{}]".format)),
)


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Names for filters."""
    return count()


@settings(max_examples=60)
@given(
    rules=st.lists(st.sampled_from(RULES), min_size=2, unique=True),
    ignore=st.sampled_from([[], ["root$"]]),
    events=st.lists(st.tuples(st.integers(1, 3), EVENTS), max_size=40),
)
def test_sessions_are_joined_alike(
    ask_fail2ban: Ask,
    tmp_path_factory: pytest.TempPathFactory,
    numbers: Iterator[int],
    rules: list[str],
    ignore: list[str],
    events: list[tuple[int, str]],
) -> None:
    """Which line of a session is a failure, whose, and by which login, is as fail2ban says.

    But for what is told in docs/filters.md, which these lines keep clear of.
    """
    prefix = r"^ app\[<F-MLFID>\d+</F-MLFID>\]: <F-CONTENT>.+</F-CONTENT>$"
    log = [
        f"2026-11-22 13:00:{second:02d} app[{number}]: {text.replace('OWNER', f'192.0.2.{number}')}"
        for second, (number, text) in enumerate(events)
    ]
    options = {"prefregex": prefix, "failregex": rules, "ignoreregex": ignore}
    theirs = ask_fail2ban({"judge": options, "lines": log})

    name = f"f{next(numbers)}"
    file = tmp_path_factory.getbasetemp() / f"{name}.conf"
    text = "\n  ".join
    file.write_text(f"[Definition]\nprefregex = {prefix}\nfailregex = {text(rules)}\nignoreregex = {text(ignore)}\n")
    one = load_filter(name, [file.parent])
    matcher = one.matcher()
    found = [one.explain(line, 1_795_360_000, matcher=matcher).match for line in log]
    assert [match and [match.rule, match.ip, match.user] for match in found] == theirs
