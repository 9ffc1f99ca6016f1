"""How a filter comes together: the folder that has it, its files, layers, includes and parameters."""

import pytest

from mcban.errors import FilterError
from mcban.filters import list_filters, load_filter
from tests.filters.conftest import RULE, Write


def test_the_first_folder_that_has_a_filter_wins(folder: Write) -> None:
    """A filter in an earlier folder hides the one of the same name in a later folder."""
    one = folder("x.conf", f"[Definition]\nfailregex = {RULE}\n", "one")
    two = folder("x.conf", "[Definition]\nfailregex = ^ other <HOST>$\n", "two")
    folder("y.conf", f"[Definition]\nfailregex = {RULE}\n", "two")
    assert load_filter("x", [one, two]).match(" failed from 192.0.2.1")
    assert [(file.name, file.path.parent) for file in list_filters([one, two])] == [("x", one), ("y", two)]
    assert list_filters([one / "missing"]) == []


def test_local_extends_conf(folder: Write) -> None:
    """What NAME.local says replaces the same option of NAME.conf, and `known/` brings the former value back."""
    a = folder("x.conf", f"[Definition]\nfailregex = {RULE}\nignoreregex = ^ never$\n")
    folder("x.local", "[Definition]\nfailregex = %(known/failregex)s\n            ^ also <HOST>$\n")
    one = load_filter("x", [a])
    assert [rule.text for rule in one.rules] == [RULE, "^ also <HOST>$"]
    assert len(one.ignore) == 1
    assert one.rules[0].path == a / "x.local"


def test_a_lone_local_is_a_filter(folder: Write) -> None:
    """A filter may exist as NAME.local only."""
    assert load_filter("x", [folder("x.local", f"[Definition]\nfailregex = {RULE}\n")]).name == "x"


def test_includes_come_before_and_after(folder: Write) -> None:
    """`before` gives values that the file may replace, `after` replaces the file's; a missing .local is no fault."""
    folder("common.conf", "[DEFAULT]\nword = one\n[Definition]\nplace = from\n")
    folder("later.conf", "[Definition]\nplace = by\n")
    a = folder(
        "x.conf",
        "[INCLUDES]\nbefore = common.conf\nafter = later.conf\n  x-more.local\n"
        "[Definition]\nfailregex = ^ %(word)s %(place)s <HOST>$\n",
    )
    assert load_filter("x", [a]).match(" one by 192.0.2.1")


def test_files_may_include_one_another(folder: Write) -> None:
    """A file that is being read already is passed over: its own include, or a .local's of the .conf that it extends."""
    folder("x.conf", f"[INCLUDES]\nbefore = y.conf\n[Definition]\nfailregex = {RULE}\n  %(other)s\n")
    folder("y.conf", "[INCLUDES]\nbefore = x.conf y.conf\n[Definition]\nother = ^ other <HOST>$\n")
    a = folder("x.local", "[INCLUDES]\nbefore = x.conf\n[Definition]\nfailregex = %(known/failregex)s\n  ^ l <HOST>$\n")
    one = load_filter("x", [a])
    assert [rule.text for rule in one.rules] == [RULE, "^ other <HOST>$", "^ l <HOST>$"]
    assert set(one.files) == {a / "x.conf", a / "x.local", a / "y.conf"}


def test_an_editor_s_byte_order_mark_is_no_fault(folder: Write) -> None:
    """A filter that was written on Windows may begin with a byte order mark, and end its lines as there."""
    text = f"\ufeff[Definition]\nfailregex = {RULE}\n  ^ b <HOST>$\n".replace("\n", "\r\n")
    assert [rule.text for rule in load_filter("x", [folder("x.conf", text)]).rules] == [RULE, "^ b <HOST>$"]


def test_percent_names_see_the_definition_before_init(folder: Write) -> None:
    """`%(name)s` in [Definition] is what [Definition] says, and `<name>` what [Init] says; the row replaces both."""
    a = folder(
        "x.conf",
        "[Definition]\nword = one\nfailregex = ^ %(word)s <word> %(only)s <HOST>$\n[Init]\nword = two\nonly = three\n",
    )
    assert load_filter("x", [a]).match(" one two three 192.0.2.1")
    assert load_filter("x[word=row, only=4]", [a]).match(" row row 4 192.0.2.1")


def test_parameters_in_brackets_win(folder: Write) -> None:
    """A parameter of the jail's row replaces the option of [Init], for `%(name)s` as for `<name>`."""
    a = folder(
        "x.conf",
        "[Definition]\n_r-a = ^ a <HOST>$\n_r-b = ^ b %(extra)s <HOST>$\nfailregex = <_r-<mode>>\n"
        "[Init]\nmode = a\nextra = x\n",
    )
    assert load_filter("x", [a]).match(" a 192.0.2.1")
    assert load_filter("x[mode=b]", [a]).match(" b x 192.0.2.1")
    assert load_filter("x[mode=\"b\", extra='y, z']", [a]).match(" b y, z 192.0.2.1")
    assert load_filter("x[mode=b][extra='[y]', ]", [a]).match(" b [y] 192.0.2.1") is None  # it is an expression
    assert load_filter("x[mode=b][extra='[y]', ]", [a]).match(" b y 192.0.2.1")
    assert load_filter("x[mode=b,extra=50%]", [a]).match(" b 50% 192.0.2.1")
    assert load_filter('x[extra=it\'s "so", mode=b]', [a]).match(' b it\'s "so" 192.0.2.1')


def test_sections_are_reached_by_name(folder: Write) -> None:
    """`<section/name>` and `%(section/name)s` reach into another section; `%%` is a percent sign."""
    a = folder(
        "x.conf",
        "[lt_file]\npre = ^ file\n[lt_short]\npre = ^ short\n[Definition]\n"
        "failregex = <lt_<logtype>/pre> 5%% <HOST>$\n            %(lt_file/pre)s too <HOST>$\n"
        "[Init]\nlogtype = short\n",
    )
    one = load_filter("x", [a])
    assert one.match(" short 5% 192.0.2.1")
    assert one.match(" file too 192.0.2.1")


def test_every_layer_may_extend_the_one_below(folder: Write) -> None:
    """`known/` gives what the layer below said: file by file, and from the parameters down to [DEFAULT]."""
    folder("common.conf", "[DEFAULT]\npre = ^ app\n[Definition]\nfailregex = ^ common <HOST>$\n")
    a = folder(
        "x.conf",
        "[INCLUDES]\nbefore = common.conf\nafter = x.local\n"
        "[Definition]\npre = %(known/pre)s-x\nfailregex = %(known/failregex)s\n  %(pre)s <word> <HOST>$\n"
        "[Init]\nword = a\n",
    )
    folder(
        "x.local", "[Definition]\nfailregex = %(known/failregex)s\n  ^ local <HOST>$\n[Init]\nword = %(known/word)sb\n"
    )
    own = ["^ common <HOST>$", "^ app-x ab <HOST>$", "^ local <HOST>$"]
    assert [rule.text for rule in load_filter("x", [a]).rules] == own
    extended = load_filter('x[failregex="%(known/failregex)s\n^ row <HOST>$", word="<known/word>c"]', [a])
    assert [rule.text for rule in extended.rules] == [own[0], "^ app-x abc <HOST>$", own[2], "^ row <HOST>$"]


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ("[word=]", "^  from <HOST>$"),
        ('[word=""]', "^  from <HOST>$"),
        ('[word=" "]', "^  from <HOST>$"),
        ("[word=, other=x]", "^  from <HOST>$"),
        ('[word=" b\t"]', "^ b from <HOST>$"),
        ("[word='\nb\n']", "^ b from <HOST>$"),
        ('[word="b  c"]', "^ b  c from <HOST>$"),
    ],
)
def test_a_parameter_may_be_empty(folder: Write, parameters: str, rule: str) -> None:
    """An empty parameter takes the place of the file's value, and blanks around a value are none of it."""
    a = folder("x.conf", "[Definition]\nword = a\nfailregex = ^ <word> from <HOST>$\n")
    assert [one.text for one in load_filter(f"x{parameters}", [a]).rules] == [rule]


def test_a_tag_brings_the_former_value_back_too(folder: Write) -> None:
    """`<known/name>` is what the file before said, as `%(known/name)s` is; without a former value it is refused."""
    a = folder("x.conf", "[Definition]\nword = a\nignoreregex =\nfailregex = ^ <word> <HOST>$\n")
    folder("x.local", "[Definition]\nword = (?:<known/word>|b)\nfailregex = <known/failregex>\n  ^ local <HOST>$\n")
    assert [rule.text for rule in load_filter("x", [a]).rules] == ["^ (?:a|b) <HOST>$", "^ local <HOST>$"]
    (rule,) = load_filter('x[ignoreregex="<known/ignoreregex>^ b"]', [a]).ignore
    assert rule.text == "^ b"
    folder("y.conf", "[Definition]\nword = a\nfailregex = ^ <word> <HOST>$\n")
    folder("y.local", "[Definition]\nword = (?:<known/wrod>|b)\n")
    with pytest.raises(FilterError, match="<known/wrod> is neither known nor an option"):
        load_filter("y", [a])


def test_names_are_looked_up_where_their_value_stands(folder: Write) -> None:
    """A value of another section sees that section's options first, then those of the filter."""
    a = folder(
        "x.conf",
        "[DEFAULT]\nword = default\ntail = end\n[lt_file]\nword = file\npre = ^ %(word)s %(tail)s\n"
        "[Definition]\nword = own\nfailregex = <lt_<logtype>/pre> %(word)s <HOST>$\n[Init]\nlogtype = file\n",
    )
    assert load_filter("x", [a]).match(" file end own 192.0.2.1")


def test_a_row_may_bring_its_own_rules(folder: Write) -> None:
    """What gives only words to others is a filter with rules that stand in the jail's row."""
    a = folder("words.conf", "[DEFAULT]\npre = ^ app\n")
    assert load_filter('words[failregex="<pre> <HOST>$"]', [a]).match(" app 192.0.2.1")


def test_a_conditional_tag_takes_the_section_of_its_condition(folder: Write) -> None:
    """`<name?condition>` is the option of [Init?condition], or else the option without one."""
    a = folder(
        "x.conf",
        "[Definition]\nfailregex = ^ <word?family=inet6> <word?family=other> <HOST>$\n"
        "[Init]\nword = plain\n[Init?family=inet6]\nword = six\n",
    )
    assert load_filter("x", [a]).match(" six plain 192.0.2.1")


def test_comments_are_no_rules(folder: Write) -> None:
    """Comments stand in lines of their own or behind ` ;`, also between the lines of an option."""
    a = folder("x.conf", f"# x\n[Definition]\nfailregex = {RULE}\n# between\n            ^ b <HOST>$ ; behind\n; x\n")
    assert [rule.text for rule in load_filter("x", [a]).rules] == [RULE, "^ b <HOST>$"]


def test_a_folder_of_parts_comes_over_the_files(folder: Write) -> None:
    """`NAME.d` extends a filter: its .conf files after NAME.conf, its .local files after NAME.local, by their names."""
    a = folder("x.conf", "[Definition]\nfailregex = ^ conf <HOST>$\n")
    folder("x.local", "[Definition]\nfailregex = %(known/failregex)s\n  ^ local <HOST>$\n")
    (a / "x.d").mkdir()
    for name in ("20.conf", "10.conf", "30.local", ".40.conf", "50.txt"):
        (a / "x.d" / name).write_text(f"[Definition]\nfailregex = %(known/failregex)s\n  ^ {name} <HOST>$\n")
    one = load_filter("x", [a])
    assert [rule.text.split()[1] for rule in one.rules] == ["conf", "10.conf", "20.conf", "local", "30.local"]
    assert [path.name for path in one.files] == ["x.conf", "10.conf", "20.conf", "x.local", "30.local"]
