"""Sets that grow: a larger one is built beside a set before it is full, and swapped in.

The kernel's maxelem is for life. Lists and rules keep their reference over a swap, so there is no moment without bans.
What another process changes in the old set in the meantime is found afterwards and done to the new one.

The kernel tells and takes ends in whole seconds that are left, so that each move may shift an end by one. Both ways are
rounded such that this does not add up in one direction; whoever knows the ends looks at them again afterwards.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mcban.core.model import FOREVER
from mcban.core.plan import CLOCK_SLACK, timeouts
from mcban.errors import FirewallError
from mcban.firewall.ipset_sets import Sets
from mcban.firewall.ipset_wire import Header

PREFIX = "+mcban-"
"""What the name of a set begins with while it is being built; no jail's name can. The builder's process id follows."""


def fitting(maxelem: int, entries: int, most: int) -> int:
    """The maxelem that leaves a tenth free beside so many entries: doubled as often as it takes, `most` at most."""
    while entries > maxelem - maxelem // 10 and maxelem < most:
        maxelem *= 2
    return min(maxelem, most)


def grow(sets: Sets, header: Header, family: int, maxelem: int, longest: int) -> Header:
    """A set's header after its contents were moved into one of `maxelem`. Raises FirewallError, the set being as it
    was."""
    beside = f"{PREFIX}{os.getpid()}"
    sets.destroy(beside)
    sets.create(beside, family, maxelem, header.elements * 2)
    try:
        larger = replace(header, name=beside, maxelem=maxelem)
        before = _entries(sets, header.name, family)
        _add(sets, larger, family, before, longest)
        sets.swap(header.name, beside)
        larger = replace(header, maxelem=maxelem)
        after = _entries(sets, beside, family)
        late = {entry: end for entry, end in after.items() if not _same(before.get(entry), end)}
        _add(sets, larger, family, late, longest)
        sets.delete(larger, family, [entry for entry in before if entry not in after])
    finally:
        sets.destroy(beside)
    return larger


def _same(before: int | None, after: int) -> bool:
    return before is not None and abs(before - after) <= CLOCK_SLACK


def _entries(sets: Sets, name: str, family: int) -> dict[str, int]:
    found = sets.entries(name, family, math.ceil(time.time()))  # what is left was cut to whole seconds
    if found is None:
        raise FirewallError(f"set {name} is gone; the next sync puts it back")
    return found


def _add(sets: Sets, header: Header, family: int, ends: Mapping[str, int], longest: int) -> None:
    """All of the entries, or FirewallError. One that is just ending may end a second later."""
    seconds = timeouts([min(end, FOREVER) for end in ends.values()], round(time.time()), longest)
    for _, why in sets.add(header, family, list(ends), seconds):
        raise FirewallError(f"set {header.name} cannot grow: {why}")


def leftovers(headers: Iterable[str]) -> list[str]:
    """Sets that were being built by processes that are no more."""
    return [name for name in headers if name.startswith(PREFIX) and not _alive(name.removeprefix(PREFIX))]


def _alive(pid: str) -> bool:
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
