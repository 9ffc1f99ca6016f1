"""When bans end, kept small for the long time in which nobody asks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

_GONE = -1
"""The end of an entry that was taken out."""
_ROOM = 10_000
"""Changes that are kept beside as many as there are entries, before both become one."""


class Ends:
    """Ends of bans by entry, in seconds since the epoch, as a journal in two pieces of memory: what is said last of an
    entry is true. To look something up, `unpack` all.

    An engine keeps a hundred thousand of them for days and looks at them when SQL goes away. In a dict each takes about
    150 bytes, in objects that lie among those of the lines being read: the allocator could give none of it back. Here
    it takes about 25.
    """

    __slots__ = ("_ends", "_entries", "_most")

    def __init__(self, ends: Mapping[str, int] | None = None) -> None:
        self._replace(ends or {})

    def update(self, ends: Mapping[str, int]) -> None:
        """These are the ends of these entries from now on."""
        self._append(ends)
        if len(self._ends) > self._most:
            self._replace(self.unpack())

    def discard(self, entries: Iterable[str]) -> None:
        """These have none any more, if they had one."""
        self.update(dict.fromkeys(entries, _GONE))

    def unpack(self) -> dict[str, int]:
        """All of them: a fifth of a second for a million."""
        ends = dict(zip(self._entries.decode().split("\n"), self._ends, strict=False))
        return {entry: end for entry, end in ends.items() if end != _GONE} if _GONE in self._ends else ends

    def _append(self, ends: Mapping[str, int]) -> None:
        if ends:
            self._entries += "".join(f"{entry}\n" for entry in ends).encode()
            self._ends.extend(ends.values())

    def _replace(self, ends: Mapping[str, int]) -> None:
        self._entries, self._ends = bytearray(), array("q")
        self._append(ends)
        self._most = 2 * len(self._ends) + _ROOM
