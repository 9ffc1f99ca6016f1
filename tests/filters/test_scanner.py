"""The scanner: whole blocks, the same results as line by line, and what it counts."""

import re
import time
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.filters import OVERLONG, LineMatch, Scanner, load_filter
from mcban.filters.literals import required_literals

FOLDERS = [Path(__file__).parents[2] / "etc" / "filter.d"]
NOW = 1_795_352_400  # 2026-11-22 13:00:00 UTC
HIT = b"2026-11-22 13:00:00 failed x from 192.0.2.1\n"


@pytest.fixture
def load(tmp_path):
    """A function that loads a filter with the given rules."""

    def load(*rules, **options):
        more = "".join(f"{name} = {value}\n" for name, value in options.items())
        text = "[Definition]\nfailregex = " + "\n            ".join(rules) + "\n" + more
        (tmp_path / "x.conf").write_text(text.replace("%", "%%"))
        return load_filter("x", [tmp_path])

    return load


@pytest.fixture
def failed(load):
    """A filter for HIT."""
    return load("^ failed <F-USER>.*</F-USER> from <ADDR>$")


def test_a_block_gives_its_hits_in_order(failed):
    """Each hit has the index of its line, of its filter, the moment, the address, the login and the rule."""
    block = b"2026-11-22 13:00:00 fine\n" + HIT + b"\n\n" + HIT.replace(b"0.2.1", b"0.2.2").replace(b":00 ", b":07 ")
    assert Scanner([failed], UTC).scan(block, NOW) == [
        LineMatch(1, 0, NOW, "192.0.2.1", "x", 1),
        LineMatch(4, 0, NOW + 7, "192.0.2.2", "x", 1),
    ]
    assert Scanner([failed], UTC).scan(b"", NOW) == []


def test_all_filters_of_a_log_share_one_pass(failed, load):
    """Every filter answers for itself, a line that two recognise gives two hits; the first rule of a filter counts."""
    other = load("^ never <HOST>$", "^ (?:failed|x) .* <HOST>$", "^ failed .* <HOST>$")
    matches = Scanner([failed, other, failed], UTC).scan(HIT, NOW)
    assert [(match.filter, match.rule, match.user) for match in matches] == [(0, 1, "x"), (1, 2, None), (2, 1, "x")]


def test_bytes_that_are_no_text_do_no_harm(failed):
    """Broken UTF-8, NUL bytes and carriage returns are matched like any other character, and never raise."""
    scanner = Scanner([failed], UTC)
    for user in (b"\xff\xfe", b"\0", b"a\rb", b"\xed\xa0\x80", "é\u2028".encode()):
        (match,) = scanner.scan(HIT.replace(b" x ", b" " + user + b" "), NOW)
        assert match.ip == "192.0.2.1"
        assert match.user == user.decode("utf-8", "replace")
    (match,) = scanner.scan(HIT.replace(b"\n", b"\r\n"), NOW)
    assert match.ip == "192.0.2.1"


def test_an_address_that_is_none_is_no_hit(failed):
    """What only looks like an address is not recognised, and the lines around it are."""
    block = HIT + HIT.replace(b"192.0.2.1", b"999.1.1.1") + HIT.replace(b"192.0.2.1", b"host.example.net") + HIT
    assert [match.line for match in Scanner([failed], UTC).scan(block, NOW)] == [0, 3]


def test_an_overlong_line_is_counted_and_left_alone(failed):
    """A line of more than 128 KiB is not matched but counted; the longest allowed one is matched."""
    scanner = Scanner([failed], UTC)
    room = OVERLONG - len(HIT) + 1
    longest = HIT.replace(b" x ", b" x" + b"y" * room + b" ")
    assert len(longest) == OVERLONG + 1
    too_long = HIT.replace(b" x ", b" xy" + b"y" * room + b" ")
    block = HIT + longest + too_long + b"z" * (1 << 20) + b"\n" + HIT
    assert [match.line for match in scanner.scan(block, NOW)] == [0, 1, 4]
    assert scanner.overlong == 2


def test_a_hit_without_a_date_is_counted(failed, load):
    """A hit whose line has no date that can be read has no moment, and is counted."""
    scanner = Scanner([failed], UTC)
    (match,) = scanner.scan(b" failed x from 192.0.2.1\n", NOW)
    assert match.at is None
    (match,) = scanner.scan(b"2026-02-30 00:00:00 failed x from 192.0.2.1\n", NOW)
    assert match.at is None
    scanner.scan(HIT, NOW)
    assert scanner.dateless == 2


def test_an_expression_of_which_nothing_is_certain_is_tried_everywhere(load):
    """A rule that demands no text of a line, or finds its date in its own way, misses nothing."""
    assert Scanner([load(r"^ \w+ <ADDR>$")], UTC).scan(b"2026-11-22 13:00:00 ab 192.0.2.1\n", NOW)
    own = load("^failed x from <ADDR>$", datepattern=r"on (%Y-%m-%d %H:%M:%S) ")
    (match,) = Scanner([own], UTC).scan(b"faion 2026-11-22 13:00:00 led x from 192.0.2.1\n", NOW) or (None,)
    assert match is None  # only the date is cut out, not what surrounds it
    cut = load("^failed x from <ADDR>$", datepattern=r"%Y-%m-%d %H:%M:%S**")
    (match,) = Scanner([cut], UTC).scan(b"2026-11-22 13:00:00failed x from 192.0.2.1\n", NOW)
    assert match.at == NOW


@pytest.mark.parametrize("letter", ["i", "\u0131", "\u0130", "I", "k", "\u212a", "s", "\u017f"])
def test_letters_without_case_are_python_s(load, letter):
    """Where a rule ignores case, characters that Python takes for i, k and s are found too."""
    one = load("(?i)^ aiks iks <ADDR>$")
    line = f"2026-11-22 13:00:00 aiks {letter}ks 192.0.2.1".replace(
        "iks", f"i{letter}s" if letter in "k\u212a" else "iks", 1
    )
    expected = one.explain(line, NOW).outcome == "hit"
    assert bool(Scanner([one], UTC).scan(f"{line}\n".encode(), NOW)) == expected


RULES = [
    "^ failed <F-USER>.*</F-USER> from <ADDR>$",
    "^ (?:failed|refused|no) .*<ADDR>",
    "(?i)^ Kiss <ADDR>$",
    r"^\[\] x\[\]y <ADDR>$",
    r"^\[ foo <ADDR>",
    r"^<34>1  host: <ADDR>$",
    r"^(?:<34>)? host(?:a|b)+c?: <ADDR>$",
    r"^ (?!failed)\w+(?<!x) again \[<ADDR>\]$",
    r"^ (?P<q>['\"])text(?P=q) <ADDR>$",
    r"^ (?:abc){2,3} <ADDR>$",
    r"^ [^a]bc def? <IP4>$",
    r"^<ADDR> - \S+ \[\] \"GET",
]
WORDS = [
    " failed", " from", " x", " 192.0.2.1", " refused", " no", " kiss", " KISS", " k\u0131ss", " Kiss", "[] x[]y", "[",
    "] x[]y", "<34>1 ", " host:", "<34>", " hosta:", " hostbbc:", " a again", "[192.0.2.1]", " 'text'", " \"text\"",
    " abc", "abc", "abcabc", " xbc", " de", " def", "2001:db8::1", "2026-11-22 13:00:00", "[2026-11-22 13:00:00]",
    "[22/Nov/2026:13:00:00 +0000]", " - -", "192.0.2.1", ' "GET', " foo", "\0", "é", "\r", " ", "Nov 22 13:00:00",
]  # fmt: skip
LINES = st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map("".join), max_size=8)


@given(LINES, st.sampled_from(["2026-11-22 13:00:00", "Nov 22 13:00:00", "<34>1 2026-11-22T13:00:00Z", ""]))
@settings(deadline=None, max_examples=300)
def test_a_block_gives_what_each_line_alone_would_give(tmp_path_factory, lines, date):
    """Searching whole blocks first never changes the result: it is that of the expressions, line by line."""
    folder = tmp_path_factory.mktemp("rules", numbered=True)
    filters = []
    for index, rule in enumerate(RULES):
        (folder / f"r{index}.conf").write_text(f"[Definition]\nfailregex = {rule.replace('%', '%%')}\n")
        filters.append(load_filter(f"r{index}", [folder]))
    lines = [date + line for line in lines]
    block = "".join(line + "\n" for line in lines).encode()
    found = {(match.line, match.filter, match.ip) for match in Scanner(filters, UTC).scan(block, NOW)}
    expected = set()
    for number, line in enumerate(lines):
        for index, one in enumerate(filters):
            explained = one.explain(line, NOW, UTC)
            if explained.match:
                expected.add((number, index, explained.match.ip))
    assert found == expected


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("abcdef", {b"abcdef"}),
        ("^ab.*cdefg$", {b"cdefg"}),
        ("(?:abcd|efgh)x*", {b"abcd", b"efgh"}),
        ("(?:abcd)?efg", {b"efg"}),
        (r"\[\] abcd", {b" abcd"}),
        (r"  12<\[abcd", {b"[abcd"}),
        ("(?i)ABCD", {b"abcd"}),
        ("[ab]+", None),
        ("abcd|.", None),
        ("é", None),
    ],
)
def test_only_certain_texts_are_demanded(pattern, texts):
    """What a line must hold for an expression to match is said only where it is certain."""
    needles = required_literals(re.compile(pattern))
    assert (needles and set(needles.texts)) == texts


def test_a_megabyte_is_scanned_at_once():
    """A block of a mebibyte of ordinary lines takes well under a second."""
    line = b"2026-11-22 13:00:00 1tE0001-000001-01 <= a@example.org H=mail.example.org [192.0.2.7] P=esmtp S=1\n"
    scanner = Scanner([load_filter("mc-exim-filter", FOLDERS)], UTC)
    start = time.process_time()
    assert scanner.scan(line * ((1 << 20) // len(line)), NOW) == []
    assert time.process_time() - start < 0.5
