"""Where the command `mcban` begins: Ctrl-C is heard before anything that takes long is imported."""

from __future__ import annotations

import sys

from mcban.cli.interrupt import interrupt


def main() -> None:
    """Run the command line and exit with the interface's status."""
    interrupt.listen()
    try:
        with interrupt:
            from mcban.cli.main import main as run  # noqa: PLC0415  # a tenth of a second
    except KeyboardInterrupt:
        sys.stderr.write("mcban: stopped by the keyboard\n")
        sys.exit(130)
    run()
