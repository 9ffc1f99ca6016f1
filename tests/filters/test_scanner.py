"""The scanner: whole blocks, the same results as line by line, and what it counts."""

import re
import time
import warnings
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.filters import Filter, LineMatch, Scanner, load_filter
from mcban.filters.cut import BETWEEN_WORDS
from mcban.filters.demands import needle_expression, needle_text, required_needles
from mcban.filters.expression import Expression
from mcban.filters.prefilter import make_finder, make_plain_finder
from tests.filters.blocks import FINDERS, MakeFinder, in_blocks, one_by_one

FOLDERS = [Path(__file__).parents[2] / "etc" / "filter.d"]
NOW = 1_795_352_400  # 2026-11-22 13:00:00 UTC
HIT = b"2026-11-22 13:00:00 failed x from 192.0.2.1\n"


Load = Callable[..., Filter]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A function that loads a filter with the given rules."""

    def load(*rules: str, **options: object) -> Filter:
        more = "".join(f"{name} = {value}\n" for name, value in options.items())
        text = "[Definition]\nfailregex = " + "\n            ".join(rules) + "\n" + more
        (tmp_path / "x.conf").write_text(text.replace("%", "%%"))
        return load_filter("x", [tmp_path])

    return load


@pytest.fixture
def failed(load: Load) -> Filter:
    """A filter for HIT."""
    return load("^ failed <F-USER>.*</F-USER> from <ADDR>$")


def test_a_block_gives_its_hits_in_order(failed: Filter) -> None:
    """Each hit has the index of its line, of its filter, the moment, the address, the login and the rule."""
    block = b"2026-11-22 13:00:00 fine\n" + HIT + b"\n\n" + HIT.replace(b"0.2.1", b"0.2.2").replace(b":00 ", b":07 ")
    assert Scanner([failed], UTC).scan(block, NOW) == [
        LineMatch(1, 0, NOW, "192.0.2.1", "x", 1),
        LineMatch(4, 0, NOW + 7, "192.0.2.2", "x", 1),
    ]
    assert Scanner([failed], UTC).scan(b"", NOW) == []


def test_all_filters_of_a_log_share_one_pass(failed: Filter, load: Load) -> None:
    """Every filter answers for itself, a line that two recognise gives two hits; the first rule of a filter counts."""
    other = load("^ never <HOST>$", "^ (?:failed|x) .* <HOST>$", "^ failed .* <HOST>$")
    matches = Scanner([failed, other, failed], UTC).scan(HIT, NOW)
    assert [(match.filter, match.rule, match.user) for match in matches] == [(0, 1, "x"), (1, 2, None), (2, 1, "x")]


def test_bytes_that_are_no_text_do_no_harm(failed: Filter) -> None:
    """Broken UTF-8, NUL bytes and carriage returns are matched like any other character, and never raise."""
    scanner = Scanner([failed], UTC)
    for user in (b"\xff\xfe", b"\0", b"a\rb", b"\xed\xa0\x80", "é\u2028".encode()):
        (match,) = scanner.scan(HIT.replace(b" x ", b" " + user + b" "), NOW)
        assert match.ip == "192.0.2.1"
        assert match.user == user.decode("utf-8", "replace")
    (match,) = scanner.scan(HIT.replace(b"\n", b"\r\n"), NOW)
    assert match.ip == "192.0.2.1"


def test_an_address_that_is_none_is_no_hit(failed: Filter) -> None:
    """What only looks like an address is not recognised, and the lines around it are."""
    block = HIT + HIT.replace(b"192.0.2.1", b"999.1.1.1") + HIT.replace(b"192.0.2.1", b"host.example.net") + HIT
    assert [match.line for match in Scanner([failed], UTC).scan(block, NOW)] == [0, 3]


def test_an_overlong_line_is_counted_and_left_alone(failed: Filter) -> None:
    """A line of more than 128 KiB is not matched but counted; the longest allowed one is matched."""
    scanner = Scanner([failed], UTC)
    room = 128 * 1024 - len(HIT) + 1
    longest = HIT.replace(b" x ", b" x" + b"y" * room + b" ")
    assert len(longest) == 128 * 1024 + 1
    too_long = HIT.replace(b" x ", b" xy" + b"y" * room + b" ")
    block = HIT + longest + too_long + b"z" * (1 << 20) + b"\n" + HIT
    assert [match.line for match in scanner.scan(block, NOW)] == [0, 1, 4]
    assert scanner.overlong == 2


def test_a_hit_without_a_date_is_counted(failed: Filter, load: Load) -> None:
    """A hit whose line has no date that can be read has no moment, and is counted."""
    scanner = Scanner([failed], UTC)
    (match,) = scanner.scan(b" failed x from 192.0.2.1\n", NOW)
    assert match.at is None
    (match,) = scanner.scan(b"2026-02-30 00:00:00 failed x from 192.0.2.1\n", NOW)
    assert match.at is None
    scanner.scan(HIT, NOW)
    assert scanner.dateless == 2


def test_an_expression_of_which_nothing_is_certain_is_tried_everywhere(load: Load) -> None:
    """A rule that demands no text of a line, or finds its date in its own way, misses nothing."""
    assert Scanner([load(r"^ \w+ <ADDR>$")], UTC).scan(b"2026-11-22 13:00:00 ab 192.0.2.1\n", NOW)
    own = load("^failed x from <ADDR>$", datepattern=r"on (%Y-%m-%d %H:%M:%S) ")
    (match,) = Scanner([own], UTC).scan(b"faion 2026-11-22 13:00:00 led x from 192.0.2.1\n", NOW) or (None,)
    assert match is None  # only the date is cut out, not what surrounds it
    cut = load("^failed x from <ADDR>$", datepattern=r"%Y-%m-%d %H:%M:%S**")
    (match,) = Scanner([cut], UTC).scan(b"2026-11-22 13:00:00failed x from 192.0.2.1\n", NOW)
    assert match.at == NOW


@pytest.mark.parametrize("letter", ["i", "\u0131", "\u0130", "I", "k", "\u212a", "s", "\u017f"])
def test_letters_without_case_are_python_s(load: Load, letter: str) -> None:
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
    r"^\s[+-]\d{4} \S+ \d{3}0[1-9] <HOST>",
    r"(?:^ failed <HOST>|^ host: (?:<HOST>|<F-ALT_USER>x</F-ALT_USER>))",
    "refused <F-ID>\\S+</F-ID> <HOST>",
    "(?:abc|host)a?:? x <SUBNET>",
]
OPTIONS: list[dict[str, object]] = [
    {},
    {"ignoreregex": "foo <HOST>|x$"},
    {"prefregex": "^ (?:failed|host:)<F-CONTENT>.+</F-CONTENT>$"},
    {"prefregex": "^(?P<alt_user>.*?) from<F-CONTENT>.*</F-CONTENT>"},
    {"maxlines": 3},
    {"datepattern": "%Y-%m-%d %H:%M:%S"},
    {"datepattern": "{UNB}%Y-%m-%d %H:%M:%S**"},
    {"datepattern": "{NONE}"},
    {"datepattern": "^(?:.* )?(%Y-%m-%d %H:%M:%S)"},
]
STATEFUL = [
    "^ host: <F-MLFID>x</F-MLFID> from <ADDR>\n            ^ failed <F-MLFID>\\w+</F-MLFID> no$",
    "^ <F-NOFAIL>host:</F-NOFAIL> <F-MLFID>\\w+</F-MLFID> from <ADDR>\n            ^ failed <F-MLFID>\\w+</F-MLFID>",
]
WINDOWS = [r"^ failed x\n.*\n? from <ADDR>$", "^ host: x<SKIPLINES>^.* refused.* <ADDR>"]
WORDS = [
    " failed", " from", " x", " 192.0.2.1", " refused", " no", " kiss", " KISS", " k\u0131ss", " Kiss", "[] x[]y", "[",
    "] x[]y", "<34>1 ", " host:", "<34>", " hosta:", " hostbbc:", " a again", "[192.0.2.1]", " 'text'", " \"text\"",
    " abc", "abc", "abcabc", " xbc", " de", " def", "2001:db8::1", "2026-11-22 13:00:00", "[2026-11-22 13:00:00]",
    "[22/Nov/2026:13:00:00 +0000]", " - -", "192.0.2.1", ' "GET', " foo", "\0", "é", "\r", " ", "Nov 22 13:00:00",
    " fai", "led", " +0100", " 1", "101", "/24", " 2026-11-22", " 13:00:00", "\u0660", " x no", ": x",
]  # fmt: skip
HITS = [
    " failed x from 192.0.2.1", " refused 192.0.2.1", " Kiss 192.0.2.1", " K\u0131ss 192.0.2.1", "[] x[]y 192.0.2.1",
    "[ foo 192.0.2.1", "<34>1  host: 192.0.2.1", " hostabbc: 192.0.2.1", " tried again [192.0.2.1]", " 'text' ::1",
    " abcabc 192.0.2.1", " xbc de 192.0.2.1", '192.0.2.1 - x [] "GET', " +0100 x 10101 192.0.2.1", " host: 192.0.2.1",
    "refused 192.0.2.8 192.0.2.1", "hosta: x 192.0.2.0/24", " failed x", " from 192.0.2.1", " host: x", " failed x no",
    " host: x from 192.0.2.1", " x refused by 192.0.2.1",
]  # fmt: skip


def insert(line: str, word: str, at: float) -> str:
    """A line with a word in the midst of it."""
    at = int(at * len(line))
    return line[:at] + word + line[at:]


LINES = st.lists(
    st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=7).map("".join),
        st.sampled_from(HITS),
        st.builds(insert, st.sampled_from(HITS), st.sampled_from(WORDS), st.floats(0, 1)),
    ),
    max_size=9,
)
DATES = ["2026-11-22 13:00:00", "Nov 22 13:00:00", "<34>1 2026-11-22T13:00:00Z", ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Filter]:
    """Filters of many kinds: each rule with options of each kind, and rules that want several lines."""
    folder = tmp_path_factory.mktemp("rules")
    filters: list[Filter] = []

    def make(rule: str, options: dict[str, object]) -> None:
        text = f"[Definition]\nfailregex = {rule}\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
        (folder / f"r{len(filters)}.conf").write_text(text.replace("%", "%%"))
        filters.append(load_filter(f"r{len(filters)}", [folder]))

    for number, rule in enumerate(RULES):
        make(rule, {})
        make(rule, OPTIONS[number % len(OPTIONS)])
        make(rule, OPTIONS[(number // 2 + 5) % len(OPTIONS)])
    for rule in STATEFUL:
        make(rule, {})
    for rule in WINDOWS:
        make(rule, {"maxlines": 4})
    make(r"^.*\n refused.* <ADDR>", {"maxlines": 2})
    return filters


@pytest.mark.parametrize("finder", FINDERS)
@given(
    lines=LINES,
    dates=st.lists(st.sampled_from(DATES), min_size=9, max_size=9),
    cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(max_examples=100)
def test_a_block_gives_what_each_line_alone_would_give(
    made: list[Filter], finder: MakeFinder, lines: list[str], dates: list[str], cuts: tuple[int, int]
) -> None:
    """Searching whole blocks first never changes the result: it is that of the expressions, line by line, whichever
    way the blocks are searched and wherever they end."""
    dated = [(date + line).encode() for date, line in zip(dates, lines, strict=False)]
    first, second = sorted(cuts)
    parts = dated[:first], dated[first:second], dated[second:]
    blocks = [b"".join(line + b"\n" for line in part) for part in parts]
    assert in_blocks(Scanner(made, UTC, finder), blocks, NOW) == one_by_one(made, dated, NOW, UTC)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("abcdef", {b"abcdef"}),
        ("^ab.*cdefg$", {b"cdefg"}),
        ("(?:abcd|efgh)x*", {b"abcd", b"efgh"}),
        ("(?:abcd)?efg", {b"efg"}),
        (r"\[\] abcd", {b" abcd"}),
        (r"  12<\[abcd", {b"[abcd"}),
        ("x{3,5}abc", {b"xxxabc"}),
        ("(?:fo)+o", {b"foo"}),
        ("[ab]+", None),
        ("abcd|.", None),
        ("é", None),
    ],
)
def test_only_certain_texts_are_demanded(pattern: str, texts: set[bytes] | None) -> None:
    """What a line must hold for an expression to match is said only where it is certain, whatever date is cut out."""
    needles = required_needles((Expression(pattern),), frozenset((BETWEEN_WORDS,)))
    assert (needles and set(map(needle_text, needles))) == texts


ATOMS = [
    "a",
    "b",
    "k",
    "S",
    "é",
    "\u017f",
    "1",
    " ",
    "-",
    ".",
    r"\d",
    r"\w",
    r"\S",
    r"\s",
    "[a-c]",
    "[^a]",
    "[^\\w]",
    "K?",
    "1+",
]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["{2}", "{1,3}", "*", "+?", "{0}"])).map(
            lambda part: f"(?:{part[0]}){part[1]}"
        ),
        inner.map(lambda text: f"(?={text})"),
        inner.map(lambda text: f"(?>{text})"),
    ),
    max_leaves=14,
)


@given(EXPRESSIONS, st.booleans(), st.text("abckKsSé\u017f\u212a1 -.\ufffd", max_size=30))
@settings(max_examples=150)
def test_what_matches_holds_what_was_demanded(expression: str, folded: bool, text: str) -> None:
    """Whatever an expression is made of, a text in which it matches holds one of the needles that it demands."""
    one = Expression(expression, re.IGNORECASE if folded else 0)
    demand = required_needles((one,), frozenset())
    if demand and one.search(text):
        data = text.encode()
        assert any(re.search(needle_expression(needle), data) for needle in demand)
        assert make_finder(list(demand))(data + b"\n")
        assert make_plain_finder(list(demand))(data + b"\n")


@given(
    EXPRESSIONS,
    st.sampled_from(["", "^", "(?:^|x)", "(?:^a|^)", "(?m:^)", "(?=a)^", r"\A"]),
    st.text("ab1 \n", max_size=9),
)
@settings(max_examples=150)
def test_an_anchored_expression_matches_at_the_beginning_or_nowhere(expression: str, anchor: str, text: str) -> None:
    """Where `match` takes the place of `search`, both find the same."""
    pattern = re.compile(anchor + expression)
    found, bound = pattern.search(text), Expression(pattern.pattern).search(text)
    assert (found and found.span()) == (bound and bound.span())


DOUBTFUL = st.sampled_from(
    ["", "(?<=a)", "(?<!ab)", "(?<=a+)", "(?<=::)", "(?<=a|bc)", "(", "a{2,1}", "(?P<n>a)", "(?P=n)", "(?s)", "(?z)"]
)


@given(st.lists(st.one_of(EXPRESSIONS, DOUBTFUL), max_size=4).map("".join))
@settings(max_examples=150)
def test_an_expression_is_refused_at_once_or_compiles(source: str) -> None:
    """What Python does not take is said as a filter is loaded, though expressions are compiled when they are needed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(source)
    except re.error:
        with pytest.raises(re.error):
            Expression(source)
        return
    one = Expression(source)
    found, expected = one.search("ab ::k1 ab"), pattern.search("ab ::k1 ab")
    assert (found and found.regs) == (expected and expected.regs)
    assert (dict(one.groupindex), one.flags) == (dict(pattern.groupindex), pattern.flags)


def test_nesting_without_end_is_refused_as_a_filter_is_loaded() -> None:
    """An expression too deep for Python's compiler does not wait with its refusal for a line that could match."""
    with pytest.raises((RecursionError, re.error)):
        Expression("(?:a" * 5000 + ")*" * 5000)


def test_a_megabyte_is_scanned_at_once() -> None:
    """A block of a mebibyte of ordinary lines takes no noticeable time, let alone seconds."""
    line = b"2026-11-22 13:00:00 1tE0001-000001-01 <= a@example.org H=mail.example.org [192.0.2.7] P=esmtp S=1\n"
    scanner = Scanner([load_filter("mc-exim-filter", FOLDERS)], UTC)
    start = time.process_time()
    assert scanner.scan(line * ((1 << 20) // len(line)), NOW) == []
    assert time.process_time() - start < 10
