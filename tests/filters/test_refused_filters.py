"""Filters that cannot be used, or not as they were meant: refused or warned of in one line that says what to do."""

from pathlib import Path

import pytest

from mcban.errors import FilterError
from mcban.filters import list_filters, load_filter
from tests.filters.conftest import RULE, Write


def refused(spec: str, *folders: Path) -> str:
    """The message with which a filter is refused."""
    with pytest.raises(FilterError) as error:
        load_filter(spec, list(folders))
    message = str(error.value)
    assert error.value.exit_status == 65
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Definition]\nfailregex = ^ ( <HOST>$\n", "failregex 1 does not compile"),
        (f"[Definition]\nfailregex = {RULE}\n  ^ nobody$\n", "failregex 2 has no <HOST>"),
        (f"[Definition]\nfailregex = {RULE}\nignoreregex = *\n", "ignoreregex 1 does not compile"),
        (f"[Definition]\nfailregex = {RULE}\nprefregex = [\n", "prefregex 1 does not compile"),
        ("[Definition]\nignoreregex =\n", "has no failregex"),
        ("[DEFAULT]\nx = 1\n", "has no [Definition]"),
        (f"[Definition]\nfailregex = {RULE}\nmaxlines = many\n", "maxlines = many"),
        (f"[Definition]\nfailregex = {RULE}\nmaxlines = 99999\n", "maxlines = 99999"),
        ("[Definition]\nfailregex = ^<F-TUPLE_USER>\\d+</F-TUPLE_USER> <HOST>$\n", "<F-TUPLE_USER>"),
        (
            "[Definition]\nfailregex = ^ x <HOST><SKIPLINES>y$\n",
            "put maxlines = 10 under [Definition], or [maxlines=10]",
        ),
        ("[Definition]\nfailregex = ^ <_port> <HOST>$\n", "<_port>"),
        (
            "[Definition]\nfailregex = ^ <re-<mode>> <HOST>$\n[Init]\nmode = odd\n",
            "no option re-odd, which <re-<mode>>",
        ),
        ("[Definition]\nfailregex = ^ <HOTS>$\n", "has no <HOST>"),
        ("[Definition]\nfailregex = ^ <HOST >$\n", "<HOST > is none, write <HOST>"),
        ("[Definition]\nfailregex = ^ from [<HOST>(?:, .*)?]$\n", "<HOST> cannot stand in brackets"),
        ("[Definition]\nfailregex = ^ <x?a:b> <HOST>$\n", "<x?a:b>"),
        ("[Definition]\nfailregex = ^ <HOST> <HOST>$\n", "two <HOST> can match at once: keep one"),
        ("[Definition]\nfailregex = ^ %(nowhere)s <HOST>$\n", "%(nowhere)s is defined nowhere: define it"),
        ("[Includes]\nbefore = a.conf\n[Definition]\nfailregex = ^ %(b)s <HOST>$\n", "[Includes]: write [INCLUDES]"),
        ("[definition]\nfailregex = ^ <HOST>$\n", "[definition]: write [Definition]"),
        ("[Definition]\nfailregex = ^ 5% <HOST>$\n", "a lone %"),
        ("[Definition]\na = %(b)s\nb = %(a)s\nfailregex = %(a)s<HOST>\n", "circles"),
        ("[Definition]\na = <b><b>\nb = <a>\nfailregex = <a><HOST>\n", "circles"),
        ("[INCLUDES]\nbefore = ../a/x.conf\n[Definition]\n", "circles"),
        (
            "[INCLUDES]\nbefore = gone.conf\n[Definition]\nfailregex = ^%(__prefix_line)s <HOST>\n",
            "gone.conf, which does not exist",
        ),
        (f"[INCLUDES]\nbefore = {'x' * 300}.conf\n[Definition]\n", "cannot look for"),
        ("failregex = x\n", "cannot be read"),
        (f"[Definition]\nfailregex = {RULE}\ndatepattern = %%Q\n", "%Q, which is no directive"),
        (f"[Definition]\nfailregex = {RULE}\ndatepattern = x {{NONE}}\n", "{NONE} where it has no meaning"),
        (f"[Definition]\nfailregex = {RULE}\ndatepattern = (\n", "datepattern does not compile"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(folder: Write, text: str, said: str) -> None:
    """A filter that cannot work is refused in one line with its name, the file and what is wrong."""
    a = folder("x.conf", text)
    message = refused("x", a)
    assert said in message
    assert "filter x" in message
    assert str(a / "x.conf") in message


def test_what_stands_in_a_filters_place_is_named(folder: Write, tmp_path: Path) -> None:
    """A folder, or a link that leads nowhere, under a filter's name is named, and not offered as what was meant."""
    a = folder("y.conf", f"[Definition]\nfailregex = {RULE}\n")
    (a / "x.conf").symlink_to(tmp_path / "gone")
    (a / "z.conf").mkdir()
    assert refused("x", a) == f"filter x: {a / 'x.conf'} is no file, or a link that leads nowhere"
    assert "is no file" in refused("z", a)


def test_a_missing_filter_is_named_with_its_neighbour(folder: Write) -> None:
    """An unknown filter is refused with the folders that were searched and the name that comes nearest."""
    a = folder("mc-exim-filter.conf", f"[Definition]\nfailregex = {RULE}\n")
    message = refused("mc-exim-filtre", a)
    assert str(a) in message
    assert "did you mean mc-exim-filter?" in message
    assert "no folder at all" in refused("x")


@pytest.mark.parametrize(
    "spec", ["", "../x", "/etc/passwd", "a/b", "x\0", "x\ny", ".x", "x[", "x[mode]", "x[a=b", "x y"]
)
def test_a_name_is_only_a_name(folder: Write, spec: str) -> None:
    """A filter's name never leads out of the folders, and brackets must hold parameters."""
    refused(spec, folder("x.conf", f"[Definition]\nfailregex = {RULE}\n"))


def test_a_file_that_is_no_text_is_refused(folder: Write) -> None:
    """A filter file that is no UTF-8 is refused, not half read."""
    a = folder("x.conf", "")
    (a / "x.conf").write_bytes(b"[Definition]\nfailregex = \xff <HOST>\n")
    assert "cannot be read" in refused("x", a)


def test_an_include_that_does_not_exist_is_passed_over_and_said(folder: Write) -> None:
    """As fail2ban does: a filter that needs nothing of it works; which file is missing, and in which, is a warning."""
    a = folder("x.conf", f"[INCLUDES]\nbefore = gone.conf\nafter = x-gone.local\n[Definition]\nfailregex = {RULE}\n")
    one = load_filter("x", [a])
    assert [rule.text for rule in one.rules] == [RULE]
    assert [f"{a / 'x.conf'} includes gone.conf, which does not exist" in line for line in one.warnings] == [True]


def test_who_defines_what_is_missing_is_said(folder: Write) -> None:
    """Where a common file beside the filter has what the filter refers to, the message says how to bring it in."""
    a = folder("x.conf", "[Definition]\nfailregex = ^%(__start)sfailed <HOST>$\n")
    folder("a-common.conf", "[DEFAULT]\n__begin = 1\n")
    folder("common.conf", "[DEFAULT]\n__Start = \\s*\n")
    assert "%(__start)s is defined nowhere: put `before = common.conf`, which defines it" in refused("x", a)


def test_what_stands_twice_counts_as_it_stands_last_and_is_said(folder: Write) -> None:
    """An option that one section has twice does not lose its first value in silence; neither does a section."""
    a = folder("x.conf", "[Definition]\nfailregex = ^ first <HOST>$\nfailregex = ^ last <HOST>$\n")
    one = load_filter("x", [a])
    assert [rule.text for rule in one.rules] == ["^ last <HOST>$"]
    assert one.warnings == (
        f"filter x: {a / 'x.conf'}: line 3 has failregex in [Definition] once more: only the last counts",
    )
    folder("x.conf", "[Definition]\nfailregex = ^ %(a)s <HOST>$\n[Definition]\na = b\n")
    one = load_filter("x", [a])
    assert one.match(" b 192.0.2.1")
    assert ["line 3 has [Definition] once more" in line for line in one.warnings] == [True]


@pytest.mark.parametrize("part", ["x.local", "x.d/1.conf", "x.d/x.conf", "x.d/1.local"])
def test_what_extends_a_filter_of_another_folder_says_that_it_hides_it(folder: Write, part: str) -> None:
    """The files of a filter stand in one folder: of a part of it elsewhere the message says where it belongs."""
    b = folder("x.conf", f"[Definition]\nfailregex = {RULE}\n", inside="b")
    a = folder("other.conf", f"[Definition]\nfailregex = {RULE}\n")
    (a / "x.d").mkdir()
    (a / part).write_text("[Definition]\nignoreregex = ^ monitor\n")
    assert f"{part}: has no failregex, and hides {b / 'x.conf'}: put it beside that" in refused("x", a, b)
    assert [file.path for file in list_filters([a, b])] == [a / "other.conf", a / part]
    (a / "x.conf").write_text(f"[Definition]\nfailregex = {RULE}\n")
    assert load_filter("x", [a, b]).path == a / "x.conf"
    assert [file.path for file in list_filters([a, b])] == [a / "other.conf", a / "x.conf"]
