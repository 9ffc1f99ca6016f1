"""What the kernel's sets of jails hold: made with room for what comes, filled, grown before they are full, emptied.

Which sets there should be, and what refers to them, is left to `ipset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from mcban.core.plan import timeouts
from mcban.errors import FirewallError, printable
from mcban.firewall.base import GoneError, Refusal, name_fault
from mcban.firewall.ipset_growth import fitting, grow, leftovers
from mcban.firewall.ipset_scene import FAMILIES, foreign, set_names, split
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.ipset_wire import Header


class Contents:
    """Changes jails' sets. `maxelem` is what a new one can hold at first, `most` how far it grows, `longest` the
    longest timeout in seconds. `headers` are the sets of the last look, and what was made since; `grown` says that one
    was moved into a larger one since `ready`, which may have shifted ends by a second."""

    def __init__(self, sets: Sets, maxelem: int, most: int, longest: int) -> None:
        self._sets, self._maxelem, self._most, self._longest = sets, maxelem, most, longest
        self.headers: dict[str, Header] = {}
        self.grown = False
        self._added: dict[str, int] = {}
        self._tidy = False

    def look(self) -> dict[str, Header]:
        """Every set of the namespace, ours and others'."""
        self.headers, self._added = self._sets.headers(), {}
        return self.headers

    def ready(self, jails: Iterable[str], *, anew: bool) -> None:
        """Be ready to change the sets of these jails. For a single ban those of the last look will do, unless that is
        to be made `anew`: with a million entries the kernel counts for 30 ms to answer, and a set that is gone by now
        is an error anyway."""
        self.grown = False
        touched = {name for jail in jails for name in set_names(jail)}
        if anew or not touched <= self.headers.keys():
            self.look()
        if not self._tidy:
            for name in leftovers(self.headers):
                self._sets.destroy(name)
            self._tidy = True

    def forget(self) -> None:
        """Something went wrong: the next time there is a new look."""
        self.headers = {}

    def create(self, jail: str, coming: Iterable[str], faults: list[FirewallError]) -> bool:
        """Make a jail's two sets, with room and buckets for the entries that are coming. What is in the way is put to
        the `faults`; False when no set can have the jail's name."""
        fault = name_fault(jail)
        if fault:
            faults.append(FirewallError(f"jail {printable(jail)} cannot have a set: {fault}"))
            return False
        for (family, suffix), some in zip(FAMILIES, split(coming), strict=True):
            name = jail + suffix
            there = self.headers.get(name)
            if there is None:
                maxelem = fitting(self._maxelem, len(some), self._most)
                self.headers[name] = self._make(name, family, maxelem, len(some))
            elif not there.holds(family):
                faults.append(foreign(name, there))
        return True

    def _make(self, name: str, family: int, maxelem: int, expected: int) -> Header:
        """A new set, or the one that a command, or the engine, made since the sets were listed."""
        try:
            self._sets.create(name, family, maxelem, expected)
        except FirewallError:
            there = self._sets.header(name)
            if there is None or not there.holds(family):
                raise
            return there
        return Header(name, "hash:net", int(family), timeouts=True, maxelem=maxelem, elements=0, references=0)

    def add(self, jail: str, ends: Mapping[str, int], now: int) -> list[Refusal]:
        """Put entries in, or renew them; those that were refused. Raises GoneError when a set is not there."""
        fault = name_fault(jail)
        if fault:
            return [Refusal(jail, entry, fault) for entry in ends]
        refused: list[Refusal] = []
        for (family, suffix), some in zip(FAMILIES, split(ends), strict=True):
            header = self.headers.get(jail + suffix)
            if not some:
                continue
            if header is None:
                raise GoneError(f"set {jail + suffix} is gone; the next sync puts it back")
            if not header.holds(family):
                refused += [Refusal(jail, entry, f"set {header.name} is not ours") for entry in some]
                continue
            header = self._roomy(header, family, len(some))
            seconds = timeouts([ends[entry] for entry in some], now, self._longest)
            refused += [Refusal(jail, entry, why) for entry, why in self._sets.add(header, family, some, seconds)]
        return refused

    def _roomy(self, header: Header, family: int, coming: int) -> Header:
        """The set of `header` with room for what is coming, if it can be had: where it cannot, the kernel takes what
        it can, and each of the others is refused by name. As long as the bound of what we know leaves a tenth free,
        nobody counts."""
        name = header.name
        added = self._added[name] = self._added.get(name, 0) + coming
        if header.maxelem >= fitting(header.maxelem, header.elements + added, self._most):
            return header
        now = self._sets.header(name)
        if now is None:
            return header
        size = fitting(now.maxelem, now.elements + coming, self._most)
        if size > now.maxelem:
            try:
                now = grow(self._sets, now, family, size, self._longest)
                self.grown = True
            except FirewallError:
                if self._sets.header(name) is None:
                    raise
        self.headers[name], self._added[name] = now, coming
        return now

    def delete(self, jail: str, gone: Iterable[str]) -> list[Refusal]:
        """Take entries out; a set that is not there, or not ours, holds none of them."""
        refused: list[Refusal] = []
        for (family, suffix), some in zip(FAMILIES, split(gone), strict=True):
            header = self.headers.get(jail + suffix)
            if some and header is not None and header.holds(family):
                with suppress(GoneError):  # since it was listed
                    refused += [Refusal(jail, entry, why) for entry, why in self._sets.delete(header, family, some)]
        return refused
