"""A copy of what SQL said last, in a file of the state directory: for a start while the database server is away.

The file is a row of blocks, each with its length and a checksum that goes on from the block before. The first three
are the jails and allowances, how far the logs were read, and the bans; they are written beside the old file, and take
its name when they are on the disk. Single bans that come and go are blocks appended to that. So a ban costs a line,
not a hundred thousand. What is damaged is refused as a whole, for half a copy might hold whom somebody has let in
again; only an end that was never finished, as a crash of the machine leaves it, is left out. The file's own time is
when it last said what SQL said.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from mcban.core.address import parse_network
from mcban.core.allowlist import Allowance, AllowList
from mcban.core.ends import Ends
from mcban.core.model import Group, Jail, Kind, Ports, Position
from mcban.core.plan import Plan
from mcban.errors import DataError
from mcban.service.context import JailBook, World
from mcban.service.known import Known

NAME = "bans.copy"
SHARE = 0.01
"""Of the time, what writing the whole may take: few bans are written at once, a hundred thousand now and then."""
FULL_DISK = 10.0
"""Seconds until it is tried again after it failed."""
SAY_SO_EVERY = 60.0
"""Seconds after which an unchanged copy is marked as still true."""
MOST_APPENDED = 1 << 20
"""Bytes of single changes after which all is written anew; or as many as the whole has, when it has more."""
_MAGIC = b"mcban copy 1\n"
_WORLD, _READ, _BANS, _CHANGES = b"W", b"R", b"B", b"C"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds, and when it was true, in seconds since the epoch."""

    known: Known
    as_of: int


def age_of(state_dir: Path, now: int) -> int | None:
    """The seconds since the copy in `state_dir` was true, None when there is none to be seen."""
    try:
        return max(0, now - int((state_dir / NAME).stat().st_mtime))
    except OSError:
        return None


def read_copy(state_dir: Path, database: str) -> Copied | None:
    """The copy in `state_dir` of `database` (its URL as it is shown), None when there is none. Raises DataError when
    it cannot be used."""
    file = state_dir / NAME
    try:
        data, as_of = file.read_bytes(), int(file.stat().st_mtime)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"the copy of the bans {file} cannot be read: {error.strerror}") from None
    try:
        return Copied(_parse(data, database), as_of)
    except _OtherDatabaseError:
        raise DataError(f"the copy of the bans {file} is of another database: it is not used") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(f"the copy of the bans {file} is damaged: it is not used") from None


class _OtherDatabaseError(ValueError):
    """The copy was made of another one."""


class LocalCopy:
    """Keeps the copy in `state_dir` of `database`. Call `flush` every few seconds; `now` is any clock's seconds."""

    def __init__(self, state_dir: Path, database: str) -> None:
        self._file, self._database = state_dir / NAME, database
        self.trouble = ""
        """Why it could not be written, in words; empty when all is well."""
        self._whole = True
        self._whole_at = float("-inf")
        self._said_so = float("-inf")
        self._size = self._appended = self._crc = 0
        self._changes: list[str] = []

    def replace(self) -> None:
        """All may have changed: the whole is to be written."""
        self._whole = True
        self._changes.clear()

    def note(self, plan: Plan) -> None:
        """These single bans came, or went."""
        if self._whole:
            return
        self._changes += [
            f"+{jail}\t{entry}\t{end}\n" for jail, ends in plan.add.items() for entry, end in ends.items()
        ]
        self._changes += [f"-{jail}\t{entry}\n" for jail, entries in plan.remove.items() for entry in entries]

    def flush(self, known: Known, positions: Iterable[Position], now: float, *, last: bool = False) -> None:
        """Write what changed, at once when it is the `last` time. `known` is what SQL says, as far as the engine has
        heard. A disk that is full is told by `trouble`, and tried again."""
        try:
            if self._whole or self._appended > max(MOST_APPENDED, self._size - self._appended):
                if now >= self._whole_at or last:
                    began = time.monotonic()
                    self._whole_at = now + FULL_DISK
                    self._write(known, positions)
                    self._whole_at = now + (time.monotonic() - began) / SHARE
                    self._whole, self._said_so, self.trouble = False, now, ""
                    self._changes.clear()
            elif self._changes:
                self._append(_CHANGES, "".join(self._changes).encode())
                self._changes.clear()
                self._said_so, self.trouble = now, ""
            elif now >= self._said_so + SAY_SO_EVERY:
                self._append(_READ, _to_json([asdict(position) for position in positions]))
                self._said_so, self.trouble = now, ""
        except OSError as error:
            why = f"cannot be written: {error.strerror}; a start without the database would not know the newest bans"
            self.trouble = f"the copy of the bans {self._file} {why}"
            self._whole = True

    def drop(self) -> None:
        """Have none: one that is not kept would only grow old."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _write(self, known: Known, positions: Iterable[Position]) -> None:
        new = self._file.with_name(f"{NAME}.new")
        blocks = (
            (_WORLD, _to_json({"database": self._database, **_world_to_json(known.world)})),
            (_READ, _to_json([asdict(position) for position in positions])),
            (_BANS, _bans_to_bytes(known.bans)),
        )
        crc, parts = 0, [_MAGIC]
        for kind, payload in blocks:
            header, crc = _header(kind, payload, crc)
            parts += [header, payload]
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._file)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise
        self._size, self._appended, self._crc = sum(map(len, parts)), 0, crc

    def _append(self, kind: bytes, payload: bytes) -> None:
        header, crc = _header(kind, payload, self._crc)
        block = header + payload
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != self._size:
                raise OSError(0, "somebody else has changed it")
            if os.write(descriptor, block) != len(block):  # half a block says nothing to who reads it
                raise OSError(0, "no space left on the disk")
        finally:
            os.close(descriptor)
        self._size, self._appended, self._crc = self._size + len(block), self._appended + len(block), crc


# How it is spelt


def _header(kind: bytes, payload: bytes, crc: int) -> tuple[bytes, int]:
    crc = crc32(payload, crc32(kind, crc))
    return b"%s %d %08x\n" % (kind, len(payload), crc), crc


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each. Raises ValueError when one is damaged; the last may be unfinished, and is left out."""
    if not data.startswith(_MAGIC):
        raise ValueError("no copy")
    at, crc = len(_MAGIC), 0
    while at < len(data):
        end = data.find(b"\n", at, at + 40)
        if end < 0 and len(data) - at < 40:
            return
        kind, length, checksum = data[at:end].split(b" ")
        payload = data[end + 1 : end + 1 + int(length)]
        if len(payload) < int(length):
            return
        crc = crc32(payload, crc32(kind, crc))
        if crc != int(checksum, 16):
            raise ValueError("checksum")
        yield kind, payload
        at = end + 1 + int(length)


def _parse(data: bytes, database: str) -> Known:
    blocks = _blocks(data)
    firsts = [next(blocks, (b"", b"")) for _ in range(3)]
    if [kind for kind, _ in firsts] != [_WORLD, _READ, _BANS]:
        raise ValueError("incomplete")
    said = json.loads(firsts[0][1])
    if said["database"] != database:
        raise _OtherDatabaseError
    world, positions = _world_from_json(said), _positions(firsts[1][1])
    bans: dict[str, dict[str, int]] = {jail: {} for jail in world.book.jails}
    for line in firsts[2][1].decode().splitlines():
        jail, entry, end = line.split("\t")
        bans[jail][entry] = int(end)
    for kind, payload in blocks:
        if kind == _READ:
            positions = _positions(payload)
            continue
        for line in payload.decode().splitlines():
            jail, entry, *rest = line[1:].split("\t")
            if line[0] == "+":
                bans.get(jail, {})[entry] = int(rest[0])
            else:
                bans.get(jail, {}).pop(entry, None)
    return Known(world, {jail: Ends(ends) for jail, ends in bans.items()}, positions)


def _to_json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _bans_to_bytes(bans: dict[str, Ends]) -> bytes:
    lines = (f"{jail}\t{entry}\t{end}\n" for jail, ends in bans.items() for entry, end in ends.unpack().items())
    return "".join(lines).encode()


def _positions(payload: bytes) -> list[Position]:
    return [Position(**said) for said in json.loads(payload)]


def _world_to_json(world: World) -> dict[str, Any]:
    groups = {
        group.name: {
            "tiers": [_jail_to_json(tier) for tier in group.tiers],
            "blacklist": _jail_to_json(group.blacklist) if group.blacklist else None,
        }
        for group in world.book.groups.values()
    }
    return {"groups": groups, "allowances": [asdict(allowance) for allowance in world.allow.allowances]}


def _jail_to_json(jail: Jail) -> dict[str, Any]:
    return {**asdict(jail), "kind": jail.kind.value, "ports": jail.ports.ranges}


def _world_from_json(said: dict[str, Any]) -> World:
    groups = {
        name: Group(
            name,
            tuple(_jail_from_json(tier) for tier in group["tiers"]),
            _jail_from_json(group["blacklist"]) if group["blacklist"] else None,
        )
        for name, group in said["groups"].items()
    }
    allowances = [Allowance(**allowance) for allowance in said["allowances"]]
    for allowance in allowances:
        parse_network(allowance.entry)
    return World(JailBook(groups), AllowList(allowances))


def _jail_from_json(said: dict[str, Any]) -> Jail:
    ports = Ports(tuple((low, high) for low, high in said["ports"]))
    return Jail(**{**said, "kind": Kind(said["kind"]), "ports": ports})
