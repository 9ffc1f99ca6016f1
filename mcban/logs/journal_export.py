"""Entries of the journal, from the export format of journalctl to lines as filters expect them.

The format is systemd's "Journal Export Format": a field is `NAME=value` and a newline or, where the value holds
anything that is not plain text, `NAME`, a newline, the value's length in 8 bytes, the value, a newline. An empty line
ends an entry. So no value can pretend to be another field or another entry.

A line is `2026-11-22T16:14:44.284034+00:00 HOST IDENTIFIER[PID]: MESSAGE`, as syslog writes them and as fail2ban gives
them to filters. One entry is one line: a line end in a value becomes `\\n` in two characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from mcban.errors import DataError
from mcban.logs.logfile import LONGEST_LINE

FIELDS = ("MESSAGE", "_HOSTNAME", "SYSLOG_IDENTIFIER", "_COMM", "SYSLOG_PID", "_PID", "_SOURCE_MONOTONIC_TIMESTAMP")
"""What lines are made of. journalctl adds the cursor and the times of its own accord."""

_LARGEST = 1 << 40  # bytes of a value; nothing is that large: the stream is none of ours
_LONGEST_NAME = 1 << 10
_SHORT_FIELD = 256


@dataclass(slots=True)
class Entry:
    """One entry: the journal's own name for it, and its line without a line end. `cut` says that it was longer."""

    cursor: str
    line: bytes
    cut: bool = False


@dataclass(slots=True)
class ExportReader:
    """Takes what journalctl writes, in pieces of any size, and gives the entries that are complete.

    Holds one entry, of whose text at most LONGEST_LINE bytes: nobody fills our memory with one entry.
    """

    _rest: bytes = b""
    _fields: dict[bytes, bytes] = field(default_factory=dict)
    _cut: bool = False
    _drop: int = 0  # bytes still to come of a value too long
    _drop_line: bool = False  # the same, where the value's end is a newline

    def feed(self, data: bytes) -> list[Entry]:
        """The entries that `data` completes. Raises DataError when it is not the export format."""
        data = self._dropped(self._rest + data if self._rest else data)
        entries: list[Entry] = []
        at = 0
        while True:
            end = data.find(b"\n", at)
            if end < 0:
                break
            if end == at:
                if self._fields:
                    entries.append(self._take())
                at = end + 1
                continue
            equals = data.find(b"=", at, end)
            if equals >= 0:
                self._keep(data[at:equals], data[equals + 1 : end])
                at = end + 1
                continue
            following = self._binary(data, at, end)
            if following is None:
                break
            at = following
        self._rest = data[at:]
        if len(self._rest) > LONGEST_LINE:
            self._shorten()
        return entries

    def _binary(self, data: bytes, at: int, end: int) -> int | None:
        """Keep the value whose name is `data[at:end]`; where the next field begins, None when there is more to come."""
        start = end + 9
        if len(data) < start:
            return None
        length = int.from_bytes(data[end + 1 : start], "little")
        if length > _LARGEST:
            raise DataError("journalctl wrote something else than the export format")
        if len(data) <= start + length:
            return None
        self._keep(data[at:end], data[start : start + length])
        return start + length + 1

    def _dropped(self, data: bytes) -> bytes:
        """`data` without the rest of a value that was cut."""
        if self._drop:
            gone = min(self._drop, len(data))
            self._drop -= gone
            return data[gone:]
        if self._drop_line:
            end = data.find(b"\n")
            self._drop_line = end < 0
            return b"" if end < 0 else data[end + 1 :]
        return data

    def _shorten(self) -> None:
        """The rest is one value that is too long: keep its beginning, and let go of what comes."""
        rest, self._rest = self._rest, b""
        name, equals, value = rest.partition(b"=")
        end = rest.find(b"\n", 0, _LONGEST_NAME)
        self._cut = True
        if end >= 0:
            length = int.from_bytes(rest[end + 1 : end + 9], "little")
            self._keep(rest[:end], rest[end + 9 :])
            self._drop = length + 1 - (len(rest) - end - 9)
        elif equals and len(name) <= _LONGEST_NAME:
            self._keep(name, value)
            self._drop_line = True
        else:
            raise DataError("journalctl wrote something else than the export format")

    def _keep(self, name: bytes, value: bytes) -> None:
        """Note a field. Of several messages in one entry, all; of another field that is there twice, the first."""
        if name == b"MESSAGE":
            before = self._fields.get(name)
            whole = value if before is None else before + b" " + value
            self._cut = self._cut or len(whole) > LONGEST_LINE
            self._fields[name] = whole[:LONGEST_LINE]
        else:
            self._fields.setdefault(name, value[:_SHORT_FIELD])

    def _take(self) -> Entry:
        """The entry whose fields are complete."""
        fields, cut = self._fields, self._cut
        self._fields, self._cut = {}, False
        try:
            cursor = fields[b"__CURSOR"].decode("ascii")
            stamp = _stamp(int(fields[b"__REALTIME_TIMESTAMP"]))
        except (KeyError, ValueError, OverflowError, OSError):
            raise DataError("journalctl wrote an entry without a cursor or a time") from None
        return Entry(cursor, stamp + _text(fields), cut)


def _stamp(microseconds: int) -> bytes:
    seconds, rest = divmod(microseconds, 1_000_000)
    return b"%b.%06d+00:00 " % (_second(seconds), rest)


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    """Neighbours share their second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _text(fields: dict[bytes, bytes]) -> bytes:
    """What stands behind the date. What is missing is left out, as fail2ban does."""
    words = []
    host = fields.get(b"_HOSTNAME")
    if host:
        words.append(host)
    who = fields.get(b"SYSLOG_IDENTIFIER") or fields.get(b"_COMM")
    if who:
        number = fields.get(b"SYSLOG_PID") or fields.get(b"_PID")
        words.append(b"%b[%b]:" % (who, number) if number else who + b":")
        if words[-1] == b"kernel:":
            words.append(_uptime(fields))
    words.append(fields.get(b"MESSAGE", b"").rstrip(b"\r\n"))
    return b" ".join(words).replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _uptime(fields: dict[bytes, bytes]) -> bytes:
    """As the kernel's own lines have it: `[   12.345678]`."""
    text = fields.get(b"_SOURCE_MONOTONIC_TIMESTAMP") or fields.get(b"__MONOTONIC_TIMESTAMP", b"")
    return b"[%12.6f]" % (int(text) / 1_000_000 if text.isdigit() else 0)
