# ruff: noqa: E501  # the pieces stand as in a table
"""Filter files and parameters that people broke: a filter loads and reads a log, or one line says what is wrong."""

from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.errors import FilterError
from mcban.filters import Filter, Scanner, load_filter, load_journal_filter

OURS = Path(__file__).parents[2] / "etc" / "filter.d"
WHOLE = [path.read_bytes() for path in sorted(OURS.glob("*.conf"))]
PIECES = [
    "[Definition]", "[Init]", "[Init?mode=x]", "[DEFAULT]", "[INCLUDES]", "[", "]", "\nbefore = x.conf", "\nafter = y.conf",
    "\nfailregex = ", "\nignoreregex = ", "\nprefregex = ", "\ndatepattern = ", "\nmaxlines = ", "\njournalmatch = ", "=", "\n ",
    "<HOST>", "<ADDR>", "<SUBNET>", "<CIDR>", "<IP6>", "<DNS>", "<SKIPLINES>", "<F-ID>", "</F-ID>", "<F-USER>", "</F-USER>",
    "<F-USER/>", "<F-MLFID>", "</F-MLFID>", "<F-NOFAIL>", "</F-NOFAIL>", "<F-CONTENT>.+</F-CONTENT>", "<F-TUPLE_A>", "<F-PORT/>",
    "<mode>", "<_x>", "<a/b>", "<a?b>", "a = <a>\n", "a = %(b)s\nb = %(a)s\n", "%(", "%(a)s", "%(known/a)s", "%%", "%s", "<", ">",
    "(", ")", "(?:", "(?=", "(?<=a+)", "(?P<user>", "(?P<ip4>", "(?P=host)", "(?(1)a|b)", "(?#", "(?i)", "(?L)", "(?x)", "(?-i:",
    "|", "+", "*", "?", "{3}", "{,}", "{1,99999999999}", "[^a]", "\\", "\\1", "\\d", "^", "$", "{^LN-BEG}", "{NONE}", "{EPOCH}", "{DATE}",
    "TAI64N", "%Y-%m-%d", "%ExY", "%Exm", "%z", "%Z", "**", "999999999999999999999", "-1", "0", "1e9", "²", "٣", "é", "\x00", "\r",
    "\x0b", "\x1c", "\u2028", "\ufeff", "# ", "; ", "_COMM=a + _COMM=b", "= =", "include <HOST>",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=5).map("".join)
OPTIONS = ["ignoreregex", "prefregex", "datepattern", "maxlines", "journalmatch", "successregex", "a", "mode"]
FILES = st.builds(
    lambda rule, options: "".join(
        [f"[Definition]\nfailregex = ^ x <HOST>{rule}\n", *(f"{name} = {value}\n" for name, value in options.items())]
    ).encode("utf-8", "surrogatepass"),
    TEXTS,
    st.dictionaries(st.sampled_from(OPTIONS), TEXTS, max_size=3),
)
SPECS = st.one_of(st.just("x"), TEXTS.map("x[{}]".format), TEXTS.map("x[mode={}]".format), st.text(max_size=8))
LINES = b"2026-11-22 13:00:00 x 192.0.2.1 2001:db8::1 a\xff\n\n[1] x 192.0.2.1\n"


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """One of our filters with pieces put in, in the place of what stood there."""
    text = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.one_of(TEXTS.map(lambda one: one.encode("utf-8", "surrogatepass")), st.binary(max_size=4)))
        text = text[:at] + piece + text[at + draw(st.integers(0, 40)) :]
    return text


@pytest.mark.parametrize("load", [load_filter, load_journal_filter])
@given(text=st.one_of(FILES, mutilated()), spec=SPECS)
@settings(max_examples=80)
def test_a_broken_filter_is_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, load: Callable[[str, list[Path]], Filter], text: bytes, spec: str
) -> None:
    """Whatever stands in a filter's file or in a jail's row, it works or is refused in one line; nothing else comes."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "x.conf").write_bytes(text)
    try:
        one = load(spec, [folder, OURS])
    except FilterError as error:
        assert str(error).strip()
        assert len(str(error).splitlines()) == 1
    else:
        Scanner([one], UTC).scan(LINES, 1_795_352_400)
