"""What several processes of one run share: started by the first that wants it, gone after the last."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path


@contextmanager
def shared(folder: Path, start: Callable[[Path], AbstractContextManager[str]]) -> Iterator[str]:
    """What `start` gives, in a new folder with a short name, kept in `folder` for the other processes: the first one
    starts it, and stops it when the others are done.

    Each user holds a shared lock, which the operating system takes back however the process ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "socket"
    with ExitStack() as stack:
        users = stack.enter_context((folder / "users").open("a"))
        with _locked(folder / "starting"):
            if not address.exists():
                short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcban-")))
                stack.callback(fcntl.flock, users, fcntl.LOCK_UN)
                found = stack.enter_context(start(short))
                stack.callback(fcntl.flock, users, fcntl.LOCK_EX)  # until the others are done
                stack.callback(_leave, address)
                address.write_text(found)
            fcntl.flock(users, fcntl.LOCK_SH)
            found = address.read_text()
        yield found


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _leave(address: Path) -> None:
    """From now on whoever comes starts one of its own."""
    with _locked(address.with_name("starting")):
        address.unlink()
