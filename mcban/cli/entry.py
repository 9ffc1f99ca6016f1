"""Where the command `mcban` begins and ends: Ctrl-C is heard before anything that takes long is imported, and nothing
is taken apart that the system takes away anyway."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mcban.cli.interrupt import interrupt


def main() -> None:
    """Run the command line and exit with the interface's status."""
    try:
        _run()
    except SystemExit as end:
        if sys.flags.dev_mode or not isinstance(end.code, int):
            raise
        _leave(end.code)
    except KeyboardInterrupt:  # while that is imported, or once more, while the first or an error is told of
        with suppress(AttributeError, OSError):
            sys.stderr.write("mcban: stopped by the keyboard\n")
        _leave(130)


def _run() -> None:
    interrupt.listen()
    with interrupt:
        from mcban.cli.main import main as run  # noqa: PLC0415  # a tenth of a second
    run()


def _leave(status: int) -> None:
    """End at once. By now everything is committed and closed; for Python to free its objects one by one takes a fifth
    of the time of a short command."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed by the shell, or nobody reads it any more
            stream.flush()
    os._exit(status)
