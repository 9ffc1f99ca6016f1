"""journalctl's export format, names of journals, and the order of cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcban.errors import DataError
from mcban.logs import is_journal, name_entries
from mcban.logs.journal import comes_after
from mcban.logs.journal_export import Entry, ExportReader
from mcban.logs.journal_name import JournalName
from mcban.logs.logfile import LONGEST_LINE

HEADS = ("_HOSTNAME", "SYSLOG_IDENTIFIER", "_COMM", "SYSLOG_PID", "_PID", "MESSAGE", "OTHER")


def export(number: int, fields: list[tuple[str, bytes]], *, binary: bool = False) -> bytes:
    """An entry as journalctl writes it: a value that is not plain text, or all with `binary`, with its length."""
    parts = [b"__CURSOR=s=1;i=%x\n__REALTIME_TIMESTAMP=1795364358035487\n__MONOTONIC_TIMESTAMP=42\n" % number]
    for name, value in fields:
        if binary or not value.decode("utf-8", "replace").isprintable():
            parts.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            parts.append(name.encode() + b"=" + value + b"\n")
    return b"".join(parts) + b"\n"


def read(data: bytes, size: int) -> list[Entry]:
    """Fed in pieces."""
    reader = ExportReader()
    return [entry for start in range(0, len(data), size) for entry in reader.feed(data[start : start + size])]


VALUES = st.one_of(
    st.binary(max_size=40),
    st.text("ab =\n\r\\", max_size=20).map(str.encode),
    st.just(b"\n\n__CURSOR=s=9;i=9\n__REALTIME_TIMESTAMP=1\nMESSAGE=forged\n\n"),
    st.just(b"\x07\x00\x00\x00\x00\x00\x00\x00"),
)


@given(st.lists(st.lists(st.tuples(st.sampled_from(HEADS), VALUES), max_size=6), max_size=5), st.integers(1, 64))
def test_every_entry_is_one_line_however_it_arrives(entries: list[list[tuple[str, bytes]]], size: int) -> None:
    """Whatever the values are and wherever the pieces are cut; the last message ends the line."""
    data = b"".join(export(number, fields) for number, fields in enumerate(entries))
    found = read(data, size)
    assert [entry.cursor for entry in found] == [f"s=1;i={number:x}" for number in range(len(entries))]
    assert found == read(data, max(1, len(data)))
    for entry, fields in zip(found, entries, strict=True):
        assert not {b"\n", b"\r"} & {bytes([byte]) for byte in entry.line}
        assert entry.line.startswith(b"2026-11-22T16:19:18.035487+00:00 ")
        message = b" ".join(value for name, value in fields if name == "MESSAGE").rstrip(b"\r\n")
        assert entry.line.endswith(message.replace(b"\n", b"\\n").replace(b"\r", b"\\r"))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"_HOSTNAME": "h", "SYSLOG_IDENTIFIER": "a", "SYSLOG_PID": "1", "_PID": "2", "MESSAGE": "m"}, "h a[1]: m"),
        ({"_HOSTNAME": "h", "SYSLOG_IDENTIFIER": "a", "_PID": "2", "MESSAGE": "m"}, "h a[2]: m"),
        ({"_HOSTNAME": "h", "_COMM": "c", "_PID": "2", "MESSAGE": "m"}, "h c[2]: m"),
        ({"_HOSTNAME": "h", "SYSLOG_IDENTIFIER": "a", "MESSAGE": "m"}, "h a: m"),
        ({"SYSLOG_IDENTIFIER": "a", "MESSAGE": "m"}, "a: m"),
        ({"_HOSTNAME": "h", "MESSAGE": "m"}, "h m"),
        ({"_HOSTNAME": "h", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": "m"}, "h kernel: [    0.000042] m"),
        (
            {"SYSLOG_IDENTIFIER": "kernel", "_SOURCE_MONOTONIC_TIMESTAMP": "1234567890", "MESSAGE": "m"},
            "kernel: [ 1234.567890] m",
        ),
        ({"SYSLOG_IDENTIFIER": "kernel", "_SOURCE_MONOTONIC_TIMESTAMP": "x"}, "kernel: [    0.000000] "),
        ({"MESSAGE": "m\r\n"}, "m"),
        ({}, ""),
    ],
)
def test_a_line_is_made_as_filters_expect_it(fields: dict[str, str], line: str) -> None:
    """As syslog would have written it; the kernel's with its uptime."""
    (entry,) = read(export(1, [(name, value.encode()) for name, value in fields.items()]), 1000)
    assert entry.line.decode() == f"2026-11-22T16:19:18.035487+00:00 {line}"


@pytest.mark.parametrize("letter", [b"y", b"\xff"], ids=["text", "binary"])
@pytest.mark.parametrize("size", [1 << 16, 1 << 24])
def test_a_very_long_message_is_cut_and_said_to_be(letter: bytes, size: int) -> None:
    """Five megabytes in one entry neither fill the memory nor hide what comes next."""
    long, short = [("_COMM", b"a"), ("MESSAGE", letter * (5 << 20))], [("MESSAGE", b"short")]
    entries = read(export(1, long) + export(2, short) + export(3, long) + export(4, short), size)
    assert [entry.cut for entry in entries] == [True, False, True, False]
    assert all(LONGEST_LINE < len(entry.line) < LONGEST_LINE + 100 for entry in entries[::2])
    assert all(entry.line.endswith(b"+00:00 short") for entry in entries[1::2])


def test_many_messages_in_one_entry_are_cut_like_one() -> None:
    """A field may come a thousand times."""
    (entry,) = read(export(1, [("MESSAGE", b"x" * (1 << 20))] * 6), 1 << 20)
    assert entry.cut
    assert len(entry.line) < LONGEST_LINE + 100


@pytest.mark.parametrize(
    "data",
    [
        b"MESSAGE=without a cursor\n\n",
        b"__CURSOR=a\n__REALTIME_TIMESTAMP=now\n\n",
        b"__CURSOR=a\n__REALTIME_TIMESTAMP=99999999999999999999999\n\n",
        b"__CURSOR=\xff\n__REALTIME_TIMESTAMP=1\n\n",
        b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xffx\n\n",
        b"x" * (LONGEST_LINE + 1),
    ],
)
def test_what_is_no_export_format_is_refused(data: bytes) -> None:
    """In one sentence, and not read as something else."""
    with pytest.raises(DataError, match="journalctl"):
        read(data, len(data))


@pytest.mark.parametrize(
    ("journalmatch", "name"),
    [
        ("", "systemd-journal"),
        ("_SYSTEMD_UNIT=sshd.service + _COMM=sshd", "systemd-journal _SYSTEMD_UNIT=sshd.service + _COMM=sshd"),
        ("_SYSTEMD_UNIT=a PRIORITY=5", "systemd-journal _SYSTEMD_UNIT=a PRIORITY=5"),
        ("_COMM=a\n_COMM=b\n\n+ _COMM=a +", "systemd-journal _COMM=a + _COMM=b"),
        ("'MESSAGE=two words' _COMM=+", "systemd-journal 'MESSAGE=two words' _COMM=+"),
    ],
)
def test_a_journalmatch_is_understood_as_fail2ban_does(journalmatch: str, name: str) -> None:
    """Several fields all count, `+` and a new line begin an alternative; what it gives is read back."""
    assert name_entries("systemd-journal", journalmatch) == name
    assert str(JournalName.parse(name)) == name
    assert is_journal(name)


@pytest.mark.parametrize(
    "journalmatch",
    [
        "--vacuum-size=1K",
        "-D/tmp",
        "/usr/sbin/sshd",
        "_COMM",
        "_comm=a",
        "=a",
        "_COMM=",
        "'_COMM=a",
        "_COMM=a\x1b",
        "A" * 600,
    ],
)
def test_a_journalmatch_that_is_none_is_refused(journalmatch: str) -> None:
    """In one line; nothing of it can become an option or a path for journalctl."""
    with pytest.raises(ValueError, match="journalmatch") as caught:
        name_entries("systemd-journal", journalmatch)
    assert str(caught.value).isprintable()


def test_a_journalmatch_that_no_position_holds_is_refused() -> None:
    """Its place could not be kept."""
    with pytest.raises(ValueError, match="too long"):
        name_entries("systemd-journal", " + ".join(f"_COMM={number}" for number in range(60)))


KNOWN = "s=a;i=b;b=c;m=10;t=100;x=7"


@pytest.mark.parametrize(
    ("cursor", "after"),
    [
        (KNOWN, False),
        ("s=a;i=a;b=z;m=11;t=101;x=8", False),
        ("s=a;i=10;b=c;m=9;t=99;x=8", True),
        ("s=d;i=1;b=c;m=11;t=101;x=8", True),
        ("s=d;i=1;b=c;m=f;t=101;x=8", False),
        ("s=d;i=1;b=c;m=10;t=100;x=7", False),
        ("s=d;i=1;b=c;m=10;t=100;x=8", True),
        ("s=d;i=1;b=e;m=1;t=1;x=8", True),
        ("another format", True),
    ],
)
def test_what_comes_after_a_cursor(cursor: str, after: bool) -> None:
    """By journald's own numbers, else by the machine's steady clock; the same entry in another file is the same."""
    assert comes_after(cursor, KNOWN) is after
