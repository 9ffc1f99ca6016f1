"""Whether there is a journal at all, and whether it may be read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mcban.logs.journal_name import JournalName
from mcban.logs.model import LogState

ROOTS = (Path("/var/log/journal"), Path("/run/log/journal"))
"""Where journald keeps the journal of a machine: on disk, or until the next start only."""


def find_journal(name: JournalName) -> tuple[LogState, str]:
    """Whether there are journal files for `name` that may be read, and why not.

    journalctl itself says nothing and ends well, or waits for ever, when it finds none.
    """
    denied: Path | None = None
    folders = [Path(name.folder)] if name.folder else list(ROOTS)
    for folder in folders:
        try:
            for file in _files(folder, name):
                try:
                    os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
                except PermissionError:
                    denied = denied or file
                except OSError:  # rotated away meanwhile
                    continue
                else:
                    return LogState.FOLLOWING, ""
        except PermissionError as error:
            denied = denied or Path(str(error.filename or folder))
        except OSError:
            continue
    if denied is not None:
        return LogState.UNREADABLE, (
            f"no permission to read {denied}: run as root or in the group systemd-journal, "
            "or with the capability CAP_DAC_READ_SEARCH"
        )
    return LogState.WAITING, f"there is no journal in {' or '.join(map(str, folders))}"


def _files(folder: Path, name: JournalName) -> Iterable[Path]:
    """The journal files in which `name` may find entries. Raises OSError."""
    if name.folder:
        yield from _sorted(folder, "*.journal")
        for inner in _sorted(folder, "*"):
            if inner.is_dir():
                yield from _sorted(inner, "*.journal")
        return
    machine = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text("ascii", "replace").strip()
    pattern = "*.journal" if name.flags == "1" else "system*.journal"
    for inner in _sorted(folder, f"{machine or '*'}{'.' + name.namespace if name.namespace else ''}"):
        yield from _sorted(inner, pattern)


def _sorted(folder: Path, pattern: str) -> list[Path]:
    with os.scandir(folder):  # globbing would pass over a folder that may not be read
        pass
    return sorted(folder.glob(pattern))
