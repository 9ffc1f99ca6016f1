"""mcban beside fail2ban itself, whose modules are asked: options come together alike, sessions are joined alike."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.errors import FilterError
from mcban.filters import load_filter
from mcban.filters.reader import read_definition
from tests.fail2ban_package import FILTERS

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


def lines(text):
    """The lines that say something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_options_come_together_alike(package, ask_fail2ban):
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
def numbers():
    """Names for filters."""
    return count()


@settings(deadline=None, max_examples=150)
@given(
    rules=st.lists(st.sampled_from(RULES), min_size=2, unique=True),
    ignore=st.sampled_from([[], ["root$"]]),
    events=st.lists(st.tuples(st.integers(1, 3), EVENTS), max_size=40),
)
def test_sessions_are_joined_alike(ask_fail2ban, tmp_path_factory, numbers, rules, ignore, events):
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
