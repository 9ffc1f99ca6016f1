"""The error tree: what went wrong, the exit status it gives, and whether trying again may help.

The message of an error is one line for a person: what was wrong and what to do. Text that came from outside (log
lines, SQL, the command line) goes through `printable` first, since a terminal obeys control characters.
The exit statuses are those of the interface; 65, 69, 77 and 78 are the ones of sysexits.h.
"""

from __future__ import annotations


def printable(text: str, limit: int = 120) -> str:
    """`text` fit for a terminal: control characters and lone surrogates escaped, cut at `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


class McbanError(Exception):
    """What was asked for failed, or differs from what was expected."""

    exit_status = 1


class UsageError(McbanError):
    """The command was called wrongly: an unknown jail, an address that is none."""

    exit_status = 2


class RefusedError(McbanError):
    """Possible, but unsafe: it wants `--force` or `--yes`, or is never done."""

    exit_status = 3


class DataError(McbanError):
    """A file or a row holds something that cannot be used."""

    exit_status = 65


class FilterError(DataError):
    """A filter does not exist, does not compile, or uses what mcban does not know."""


class UnreadableFilterError(FilterError):
    """A filter's file is there, and the operating system forbids to read it."""

    exit_status = 77


class UnavailableError(McbanError):
    """The database or the kernel cannot be reached at the moment."""

    exit_status = 69


class DatabaseError(UnavailableError):
    """The database cannot be reached, or answers with an error."""


class FirewallError(UnavailableError):
    """The kernel, or a program that talks to it, refused what was asked."""


class NoPermissionError(McbanError):
    """The operating system forbids it: a capability or a file permission is missing."""

    exit_status = 77


class ConfigError(McbanError):
    """The configuration, or the schema of the database, is not one that this version can work with."""

    exit_status = 78
