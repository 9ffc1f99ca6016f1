"""Loading a filter: where it is found, how its options come together, and what is refused."""

from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest

from mcban.errors import FilterError
from mcban.filters import Filter, Match, Scanner, list_filters, load_filter

RULE = "^ failed from <HOST>$"


Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """A folder for filters, with a function that writes one."""

    def write(name: str, text: str, inside: str = "a") -> Path:
        path = tmp_path / inside / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path.parent

    return write


def hit(one: Filter, line: str) -> Match:
    """What a filter finds in a line without its date, which must be something."""
    match = one.match(line)
    assert match is not None
    return match


def refused(spec: str, *folders: Path) -> str:
    """The message with which a filter is refused."""
    with pytest.raises(FilterError) as error:
        load_filter(spec, list(folders))
    message = str(error.value)
    assert error.value.exit_status == 65
    assert message.isprintable()
    return message


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


def test_comments_are_no_rules(folder: Write) -> None:
    """Comments stand in lines of their own or behind ` ;`, also between the lines of an option."""
    a = folder("x.conf", f"# x\n[Definition]\nfailregex = {RULE}\n# between\n            ^ b <HOST>$ ; behind\n; x\n")
    assert [rule.text for rule in load_filter("x", [a]).rules] == [RULE, "^ b <HOST>$"]


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
        ("<ADDR>/<CIDR>", "2001:db8::1/64", "2001:db8::/64"),
        ("<ADDR>/<CIDR>", "192.0.2.1/99", None),
        ("<DNS>", "host.example.net", None),
        ("<F-ID>\\S+</F-ID>", "192.0.2.1", "192.0.2.1"),
        ("<F-ID>\\S+</F-ID>", "session-17", None),
        ("(?P<host>\\S+)", "192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_offender_is_an_address(folder: Write, rule: str, line: str, ip: str | None) -> None:
    """Every tag for an address gives it in canonical form; a name, or what only looks like an address, is no hit."""
    match = load_filter("x", [folder("x.conf", f"[Definition]\nfailregex = ^ at {rule}$\n")]).match(f" at {line}")
    assert (match and match.ip) == ip


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
