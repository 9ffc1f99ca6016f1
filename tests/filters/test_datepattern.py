"""datepattern: how a filter says where its dates stand and what they look like."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcban.filters.charsets import ALL, make_set
from mcban.filters.clock import Clock
from mcban.filters.datepattern import compile_datepattern
from mcban.filters.dates import DEFAULT_FORMS, LINE_FORMS, find_date

NOW = int(datetime(2026, 11, 22, 15, 0, tzinfo=UTC).timestamp())
AT_ONE = NOW - 2 * 3600


def read(pattern: str, line: str, now: int = NOW, zone: tzinfo = UTC) -> tuple[str | None, str | None]:
    """What a pattern cuts out of a line, and its moment in UTC as ISO text."""
    found = find_date(line, compile_datepattern(pattern, ValueError))
    if found is None:
        return None, None
    at = Clock(zone).read(found, now)
    moment = None if at is None else datetime.fromtimestamp(at, UTC).isoformat()[:19]
    return line[found.start : found.end], moment


@pytest.mark.parametrize(
    ("pattern", "line", "text", "moment"),
    [
        # where
        ("%Y-%m-%d %H:%M:%S", "x 2026-11-22 13:00:00 y", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("%Y-%m-%d %H:%M:%S", "x2026-11-22 13:00:00", None, None),
        ("%Y-%m-%d %H:%M:%S", "2026-11-22 13:00:00x", None, None),
        ("**%Y-%m-%d %H:%M:%S", "x2026-11-22 13:00:00", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("%Y-%m-%d %H:%M:%S**", "2026-11-22 13:00:00x", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{UNB}%Y-%m-%d %H:%M:%S", "x2026-11-22 13:00:00y", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{*WD-BEG}%Y-%m-%d %H:%M:%S{*WD-END}", "x2026-11-22 13:00:00y", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{WD-BEG}%Y-%m-%d %H:%M:%S{WD-END}", "x2026-11-22 13:00:00", None, None),
        ("^%Y-%m-%d %H:%M:%S", "[2026-11-22 13:00:00]", None, None),
        ("^%Y-%m-%d %H:%M:%S", "2026-11-22 13:00:00]", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{^LN-BEG}%Y-%m-%d %H:%M:%S", "[[2026-11-22 13:00:00]", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{LN-BEG}%Y-%m-%d %H:%M:%S", "[[2026-11-22 13:00:00]", "2026-11-22 13:00:00", "2026-11-22T13:00:00"),
        ("{^LN-BEG}%Y-%m-%d %H:%M:%S", "[[[2026-11-22 13:00:00]", None, None),
        (r"\[%H:%M:%S %d.%m.%Y\]$", "x[13:00:00 22.11.2026]", "[13:00:00 22.11.2026]", "2026-11-22T13:00:00"),
        (r"%H:%M:%S %d.%m.%Y$", "13:00:00 22.11.2026 ", None, None),
        (r"\**%H:%M:%S %d.%m.%Y\**", "x*13:00:00 22.11.2026*y", "*13:00:00 22.11.2026*", "2026-11-22T13:00:00"),
        ("(?:^|x)%Y-%m-%d", "x2026-11-22", "x2026-11-22", "2026-11-22T00:00:00"),
        # letters beyond ASCII
        (r"^\w+ %Y-%m-%d", "zürich 2026-11-22 x", "zürich 2026-11-22", "2026-11-22T00:00:00"),
        (r"^\w+ {DATE}", "ÖBB nov 22 13:00:00 x", "ÖBB nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("%Y-%m-%d", "é2026-11-22", None, None),
        ("%Y-%m-%d", "\u0662\u0660\u0662\u0666-11-22", None, None),
        ("^%d %b %Y", "22 \u017fep 2026", None, None),
        # what is cut out
        (r"^\d+ (%Y-%m-%d) at (?P<H>\d+)h", "7 2026-11-22 at 13h", "2026-11-22", "2026-11-22T13:00:00"),
        (r"^%Y(-)%m-%d", "2026-11-22 x", "2026", "2026-11-22T00:00:00"),
        (r"(?:on|at) %Y-%m-%d", "x on 2026-11-22 y", "on 2026-11-22", "2026-11-22T00:00:00"),
        # groups of one's own
        (r"(?P<d>\d\d)\.(?P<m>\d\d)\.(?P<Y>\d{4})", "x 22.11.2026", "22.11.2026", "2026-11-22T00:00:00"),
        # directives
        ("%y%m%d %H%M%S", "261122 130000", "261122 130000", "2026-11-22T13:00:00"),
        ("%d %B %Y", "22 November 2026", "22 November 2026", "2026-11-22T00:00:00"),
        ("%A, %d-%b-%Exy %l:%M %p", "Sunday, 22-NOV-26 1:05 pm", "Sunday, 22-NOV-26 1:05 pm", "2026-11-22T13:05:00"),
        ("^time:%Y", "TIME:2026", None, None),
        ("^time:%b %Y", "TIME:nov 2026", "TIME:nov 2026", "2026-11-01T00:00:00"),
        ("(?i)^time:%Y", "TIME:2026", "TIME:2026", "2026-01-01T00:00:00"),
        ("^%I:%M", "12:30", "12:30", "2026-11-22T00:30:00"),
        ("^%Y %j %T", "2026 326 13:00:00", "2026 326 13:00:00", "2026-11-22T13:00:00"),
        ("^%Y %j", "2026 366", "2026 366", None),
        ("^%j %R", "326 13:00", "326 13:00", "2026-11-22T13:00:00"),
        ("^%y %U %A %ExH:%ExM:%ExS**", "01 11 Wednesday 21:59:59", "01 11 Wednesday 21:59:59", "2001-03-21T21:59:59"),
        ("^%y %W %A %ExH:%ExM:%ExS**", "01 11 Wednesday 21:59:59", "01 11 Wednesday 21:59:59", "2001-03-14T21:59:59"),
        ("^%y %W %w %ExH:%ExM:%ExS**", "01 11 0 21:59:59", "01 11 0 21:59:59", "2001-03-18T21:59:59"),
        ("^%y %W %w %ExH:%ExM:%ExS**", "01 11 6 21:59:59", "01 11 6 21:59:59", "2001-03-17T21:59:59"),
        ("^%G-W%V-%u", "2026-W47-7", "2026-W47-7", "2026-11-22T00:00:00"),
        ("^%c", "Sun Nov 22 13:00:00 2026", "Sun Nov 22 13:00:00 2026", "2026-11-22T13:00:00"),
        ("^%F %T,%f", "2026-11-22 13:00:00,123", "2026-11-22 13:00:00,123", "2026-11-22T13:00:00"),
        ("^%D 100%%", "11/22/26 100%", "11/22/26 100%", "2026-11-22T00:00:00"),
        # dates that leave something out
        ("^%H:%M:%S", "15:00:59", "15:00:59", "2026-11-22T15:00:59"),
        ("^%H:%M:%S", "15:01:01", "15:01:01", "2026-11-21T15:01:01"),
        ("^%a %H:%M", "Sun 13:00", "Sun 13:00", "2026-11-22T13:00:00"),
        ("^%a %H:%M", "Sun 16:00", "Sun 16:00", "2026-11-15T16:00:00"),
        ("^%a %H:%M %z", "Sat 10:00 -1200", "Sat 10:00 -1200", "2026-11-21T22:00:00"),
        ("^%m/%d %H:%M", "12/01 13:00", "12/01 13:00", "2025-12-01T13:00:00"),
        ("^%d %H:%M", "22 16:00", "22 16:00", "2026-11-22T16:00:00"),
        ("^%d %H:%M", "31 16:00", "31 16:00", "2026-10-31T16:00:00"),
        # zones
        ("^%Y-%m-%d%z", "2026-11-22Z", "2026-11-22Z", "2026-11-22T00:00:00"),
        ("^%Y-%m-%d %H:%M(?: ?%z)?", "2026-11-22 13:00 -10:45", "2026-11-22 13:00 -10:45", "2026-11-22T23:45:00"),
        ("^%Y-%m-%d %H:%M(?: ?%z)?", "2026-11-22 13:00 CET", "2026-11-22 13:00", "2026-11-22T13:00:00"),
        ("^%Y-%m-%d %H:%M(?: ?%Z)?", "2026-11-22 13:00 CET", "2026-11-22 13:00 CET", "2026-11-22T12:00:00"),
        ("^%d-%b-%Y %H:%M(?: ?%Z)?", "22-Nov-2026 13:00 error", "22-Nov-2026 13:00", "2026-11-22T13:00:00"),
        ("^%Y-%m-%d %H:%M(?: ?%Exz)?", "2026-11-22 13:00 CEST-01", "2026-11-22 13:00 CEST-01", "2026-11-22T12:00:00"),
        ("^%Y-%m-%d %H:%M(?: ?%Exz)?", "2026-11-22 13:00 CET+0130", "2026-11-22 13:00 CET+0130", "2026-11-22T10:30:00"),
        ("^%Y-%m-%d %H:%M(?: ?%Z)?", "2026-11-22 13:00 XYZT", "2026-11-22 13:00 XYZT", None),
        # numbers
        ("EPOCH", "1795352400.5 x", "1795352400", "2026-11-22T13:00:00"),
        ("EPOCH", "1795352400.500 x", "1795352400.500", "2026-11-22T13:00:00"),
        ("EPOCH", "[1795352400] x", "1795352400", "2026-11-22T13:00:00"),
        ("epoch", "msg=audit(1795352400.415:4063): x", "1795352400.415", "2026-11-22T13:00:00"),
        ("EPOCH", "x 1795352400", None, None),
        ("EPOCH", "123456789 x", None, None),
        ("EPOCH", "1795352400A x", None, None),
        ("{^LN-BEG}Epoch", "- 1795352400 x", "1795352400", "2026-11-22T13:00:00"),
        ("^EPOCH", "x 1795352400 x", None, None),
        ("LEPOCH", "1795352400123 x", "1795352400123", "2026-11-22T13:00:00"),
        ("{^LN-BEG}LEPOCH", "[1795352400123456] x", "1795352400123456", "2026-11-22T13:00:00"),
        ('"ts":{EPOCH}', '{"a":1,"ts":1795352400.123}', '"ts":1795352400.123', "2026-11-22T13:00:00"),
        (r"(?<=\|\s){LEPOCH}(?=\s\|)", "error | 1795352400123 | x", "1795352400123", "2026-11-22T13:00:00"),
        (r"(?<=\|\s){LEPOCH}(?=\s\|)", "error-1795352400123 | x", None, None),
        ("{^LN-BEG}TAI64N", "@400000006b02e7500a7a9e94 x", "@400000006b02e7500a7a9e94", "2026-11-22T13:00:00"),
        ("x {TAI64N}", "x @400000006b02e7500a7a9e94", "x @400000006b02e7500a7a9e94", "2026-11-22T13:00:00"),
        # moments that no calendar has
        ("^%Y-%m-%d%z", "0001-01-01+1400", "0001-01-01+1400", None),
        ("^%Y-%m-%d%z", "9999-12-31-1400", "9999-12-31-1400", "9999-12-31T14:00:00"),
        ("^%Y-%m-%d %H:%M%z", "9999-12-31 23:00-1400", "9999-12-31 23:00-1400", None),
        (r"^%Y-%m-%d %H:%M:(?P<S>-?\d+)", "0001-01-01 00:00:-99", "0001-01-01 00:00:-99", "0001-01-01T00:00:59"),
        ("TAI64N", "@4fffffffffffffffffffffff x", "@4fffffffffffffffffffffff", None),
        # the usual dates elsewhere
        (r"^<W>{DATE}", "<W>2026-11-22 13:00:00.1 x", "<W>2026-11-22 13:00:00.1", "2026-11-22T13:00:00"),
        (r"^[^\[]*\[({DATE})", "x [22/Nov/2026:13:00:00 +0100] y", "22/Nov/2026:13:00:00 +0100", "2026-11-22T12:00:00"),
        (r"^[^\[]*\[({date})", "x [Nov 22 13:00:00] y", "Nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("ISO8601", "x 2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z", "2026-11-22T13:00:00"),
        ("{^LN-BEG}", "x Nov 22 13:00:00", None, None),
        ("{^LN-BEG}", "[Nov 22 13:00:00]", "Nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("{DEFAULT}", "<34>Nov 22 13:00:00 x", "Nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("{NONE}", "2026-11-22 13:00:00", "", None),
        # several lines, in turn
        ("^at %Y\n{^LN-BEG}", "at 2026", "at 2026", "2026-01-01T00:00:00"),
        ("^at %Y\n  {^LN-BEG}", "Nov 22 13:00:00", "Nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("%d/%b/%Y\n{NONE}", "[22/Nov/2026] x", "22/Nov/2026", "2026-11-22T00:00:00"),
        ("{DATE}\n{NONE}", "x Nov 22 13:00:00", "Nov 22 13:00:00", "2026-11-22T13:00:00"),
        ("%d/%b/%Y\n{NONE}", "[22/11/2026] x", "", None),
        ("{NONE}\n^%d/%b/%Y", "22/Nov/2026 x", "", None),
        ("^%Y x\n^y ()**\n{^LN-BEG}", "y 2026-11-22 13:00:00", "", None),
    ],
)
def test_a_pattern_says_where_and_what(pattern: str, line: str, text: str | None, moment: str | None) -> None:
    """Each word, directive and mark of a datepattern means what it means to fail2ban."""
    assert read(pattern, line) == (text, moment)


def test_a_weekday_in_a_zone_where_it_is_still_yesterday() -> None:
    """A weekday whose zone is a day behind ours, and whose time has not come there yet, is that of a week ago."""
    early = int(datetime(2026, 3, 22, 2, 58, tzinfo=UTC).timestamp())
    assert read("^%a %H:%M %Z", "Sat 22:15 PST", early)[1] == "2026-03-15T06:15:00"


@pytest.mark.parametrize("field", [*"YymdHIMSjuwUWGVbBaApzZ"])
def test_a_field_that_is_no_such_number_gives_no_error(field: str) -> None:
    """Whatever a group that the author wrote himself takes out of a line, the line is read: at worst without a time."""
    others = {name: text for name, text in zip("YmdHM", ("2026", "11", "22", "13", "07"), strict=True) if name != field}
    pattern = rf"^(?P<{field}>\S+) {' '.join(f'%{name}' for name in others)}"
    for text in ("x", "77", "99", "0", "-1", "1" * 5000, "٣", "²", "9999999999999"):
        line = " ".join((text, *others.values()))
        assert read(pattern, line)[0] == line
    known = {"Y": "2026", "y": "26", "m": "11", "d": "22", "H": "13", "I": "1", "M": "07", "S": "9", "z": "Z"}
    if field in known:
        _, moment = read(pattern, " ".join((known[field], *others.values())))
        assert moment is not None and moment.startswith("2026-11-22T13:07")


def test_the_leftmost_date_of_searched_patterns_counts() -> None:
    """Whichever of several searched patterns comes first, an attacker's date later in the line does not win."""
    line = '192.0.2.1 [22/Nov/2026:13:00:00 +0000] "GET /2020-01-01 00:00:00"'
    patterns = ["%Y-%m-%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z"]
    for order in (patterns, patterns[::-1]):
        assert read("\n".join(order), line)[1] == "2026-11-22T13:00:00"


def test_a_pattern_that_says_nothing_means_the_usual_dates() -> None:
    """An empty datepattern is {DEFAULT}; {^LN-BEG} alone is the usual dates at the line's beginning."""
    assert compile_datepattern("", ValueError) == compile_datepattern(" {DEFAULT}\n", ValueError) == DEFAULT_FORMS
    assert compile_datepattern("{^LN-BEG}\n{^LN-BEG}", ValueError) == LINE_FORMS


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("%Q", "%Q, which is no directive"),
        ("100%", "%, which is no directive"),
        ("(%Y", "does not compile"),
        ("%Y %Y", "does not compile"),
        ("^x {NONE}", "{NONE} where it has no meaning"),
        ("%Y {^LN-BEG}", "{^LN-BEG} where it has no meaning"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern: str, said: str) -> None:
    """What is no directive, does not compile or stands where it means nothing is said, not skipped."""
    with pytest.raises(ValueError, match=re.escape(said)):
        compile_datepattern(pattern, ValueError)


MOMENTS = st.integers(
    int(datetime(2001, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2090, 1, 1, tzinfo=UTC).timestamp())
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Gaza"]
)
# How Python writes what a pattern of the same text is to read; %E is strftime's own affair.
FULL = ["%Y-%m-%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S", "%A %d %B %y %I:%M:%S %p", "%j %Y %H%M%S", "%c", "%Y %U %w %X"]


@given(MOMENTS, ZONES, st.sampled_from(FULL))
def test_what_is_written_in_full_is_read_back(seconds: int, zone: str, pattern: str) -> None:
    """Any moment, written by any directives that tell it all, in any zone, is read back to the second."""
    local = datetime.fromtimestamp(seconds, ZoneInfo(zone))
    text = local.strftime(pattern)
    found = find_date(f"x [{text}] y", compile_datepattern(pattern, ValueError))
    assert found
    assert f"x [{text}] y"[found.start : found.end] == text
    # now is that moment: of an hour that comes twice, the one that is not to come is meant.
    assert Clock(ZoneInfo(zone)).read(found, seconds) in {seconds, _other_fold(local)}


def _other_fold(local: datetime) -> int:
    """The other moment that the same local time means while clocks are set back."""
    return int(local.replace(fold=1 - local.fold).timestamp())


@given(MOMENTS, st.integers(-14 * 4, 14 * 4))
def test_an_offset_leaves_nothing_open(seconds: int, quarters: int) -> None:
    """A date with its offset is one moment, whatever the zone of the log."""
    from datetime import timezone

    local = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=15 * quarters)))
    for zone in ("Europe/Zurich", "Asia/Kolkata"):
        for line in (f"{local:%Y-%m-%dT%H:%M:%S%z} x", f"{local.isoformat(' ')} x", f"{local:%d/%b/%Y:%H:%M:%S %z} x"):
            found = find_date(line, DEFAULT_FORMS)
            assert found
            assert Clock(ZoneInfo(zone)).read(found, seconds) == seconds


@given(st.text(max_size=30))
def test_a_pattern_compiles_or_is_refused(text: str) -> None:
    """Whatever stands in a datepattern, it gives forms or one clear refusal."""
    for pattern in (text, f"%Y{text}", f"^{text}{{DATE}}", f"{{^LN-BEG}}{text}%b"):
        try:
            forms = compile_datepattern(pattern, ValueError)
        except ValueError as refusal:
            assert "datepattern" in str(refusal)
        else:
            found = find_date("Nov 22 2026 13:00:00 x", forms)
            assert found is None or Clock(UTC).read(found, NOW) != 0


BOUNDED = [
    "^%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%b %d %H:%M:%S(?:\\.%f)?(?: %z)?",
    "%Y-%m-%d|x%H",
    r"^L %d/%m/%Y - %H:%M:%S",
    r"^<\d+>\d+\s+{DATE}",
    r"^\[%d/%b/%Y %H:%M:%S\]",
    r"{^LN-BEG}%ExY(?P<_sep>[-/.])%m(?P=_sep)%d[T ]%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    r"{^LN-BEG}(?:%a )?%b %d %H:%M:%S(?:\.%f)?(?: %ExY)?",
    r"^[^\[]*\[({DATE})",
    r"^[^-]+ -- [^-]+ -- - ({DATE})",
    "{^LN-BEG}TAI64N\n{^LN-BEG}",
    "^WARNING:()**",
    "{DEFAULT}",
    "EPOCH",
]
UNBOUNDED = [
    "%d/%b/%Y:%H:%M:%S %z",
    "**%Y-%m-%d %H:%M:%S",
    "%H:%M:%S?",
    "{UNB}%Y-%m-%d",
    "{^LN-BEG}%H:%M:%S**",
    r"{^LN-BEG}\[%H:%M:%S\]",
    r"{^LN-BEG}%H:%M:%S(?:x|])?",
    r"{^LN-BEG}%H:%M:%S%%",
    r"^(.)?%H:%M:%S(.)",
    r"^x(%H:%M:%S)",
    r"^[^\[]*\[({DATE})**",
    r"^\w*({DATE})",
]


@pytest.mark.parametrize("pattern", BOUNDED + UNBOUNDED)
def test_what_joins_no_words_is_known(pattern: str) -> None:
    """Which patterns may be relied on to cut dates out between words is known from their text."""
    word = 1 << ord("x")
    cuts = [form.cut for form in compile_datepattern(pattern, ValueError)]
    joins = any(cut.joins(word, ALL) or cut.joins(ALL, word) for cut in cuts)
    assert joins != (pattern in BOUNDED)


@pytest.mark.parametrize("pattern", ["{DATE}", r"^[^\[]*\[({DATE})", r"(\[{DATE}\s*\])", "x%d {DATE}"])
def test_with_every_usual_date_a_pattern_can_be_searched_for(pattern: str) -> None:
    """A pattern that is taken is sound with all of them, and each time it is one group that is cut out."""
    try:
        forms = compile_datepattern(pattern, ValueError)
    except ValueError:
        assert "%d" in pattern  # the field is there twice
        return
    assert all(form.minute and callable(form.look) for form in forms)
    patterns = [re.compile(form.source, form.flags) for form in forms]
    assert {pattern.groups - len(pattern.groupindex) for pattern in patterns} == {1}


@pytest.mark.parametrize("pattern", ["(?P<Z>CET) {DATE}", "(?P<p>x) {DATE}"])
def test_a_group_that_clashes_with_some_usual_date_is_refused_at_once(pattern: str) -> None:
    """Not when a line comes that has such a date."""
    with pytest.raises(ValueError, match="datepattern does not compile"):
        compile_datepattern(pattern, ValueError)


DATES = [
    "2026-11-22 13:00:00",
    "Nov 22 13:00:00",
    "22/Nov/2026 13:00:00",
    "13:00:00",
    "1795352400",
    "<11/22/26@13:00:00>",
]


PARTS = ["%Y", "%d/%b", " ", "[", r"\[", "]", "x", r"\b", r"\s", "(?:x )?", "(", ")", "()", "^", "$", "**", "(?:|"]
PARTS += ["{2}", "{DATE}", "%H:%M:%S", "{EPOCH}", "(?P<_sep>[-/])", "(?P=_sep)", r"\W{0,2}", "(?:=[^=]+= )?", "(?=x)"]
PARTS += [".*?", "{^LN-BEG}"]


@given(
    st.sampled_from(BOUNDED + UNBOUNDED) | st.lists(st.sampled_from(PARTS), max_size=7).map("".join),
    st.text(alphabet="L [<1>-xé=", max_size=8),
    st.sampled_from(DATES),
    st.text(alphabet="x ].0Z+1:é", max_size=4),
)
@settings(max_examples=400)
def test_what_stands_beside_a_date_is_known(pattern: str, before: str, date: str, after: str) -> None:
    """The characters next to what is cut out are among those that the pattern's text makes possible."""
    line = before + date + after
    try:
        forms = compile_datepattern(pattern, ValueError)
    except ValueError:
        return
    for form in forms:
        found = find_date(line, (form,))
        if found and found.start < found.end:
            assert found.start == 0 or make_set([ord(line[found.start - 1])]) & form.cut.before
            assert found.end == len(line) or make_set([ord(line[found.end])]) & form.cut.behind


@pytest.mark.parametrize("pattern", ["^%Y-%m-%d %H:%M:%S ()", "^(%Y-%m-%d )%H:%M:%S", "^(?:(%Y)-%m-%d )%H:%M:%S"])
def test_what_is_not_cut_out_counts_too(pattern: str) -> None:
    """Of two lines from which the same is cut out, each has its own time."""
    forms, clock = compile_datepattern(pattern, ValueError), Clock(UTC)
    for after, line in ((0, "2026-11-22 13:00:00 x"), (7, "2026-11-22 13:00:07 x"), (3600, "2026-11-22 14:00:00 x")):
        found = find_date(line, forms)
        assert found and clock.read(found, NOW) == AT_ONE + after
