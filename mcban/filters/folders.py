"""Which files make a filter: `NAME.conf`, `NAME.d/` and `NAME.local` in the first folder that has any of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mcban.errors import FilterError, UnreadableFilterError, printable

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""No longer than a file's name can be: asking the system for a longer one is an error of its own."""


@dataclass(frozen=True, slots=True)
class FilterFile:
    """A filter that can be loaded: its name, and the file that decides."""

    name: str
    path: Path


def list_filters(folders: Sequence[Path]) -> list[FilterFile]:
    """Every filter of the folders by name; of one name, the first folder's."""
    seen: dict[str, FilterFile] = {}
    for folder in folders:
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for name, path in _list_layers(entries):
            if NAME.fullmatch(name):
                seen.setdefault(name, FilterFile(name, path))
    return sorted(seen.values(), key=lambda file: file.name)


def _list_layers(entries: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The names of the filters of a folder, each with its files, in the order in which these are read."""
    for kind in (".conf", ".local"):
        for path in entries:
            if path.suffix == kind:
                yield path.stem, path
        for path in entries:
            if path.suffix == ".d":
                with suppress(FilterError):  # whoever loads it is told
                    yield from ((path.stem, part) for part in _list_parts(path.stem, path, kind))


def find_layers(name: str, folders: Sequence[Path]) -> list[Path]:
    """The filter's files, in the order in which they are read: what one says, the next may say otherwise. Raises
    FilterError when there is none, or nobody can tell."""
    for folder in folders:
        parts = folder / f"{name}.d"
        layers = [
            path
            for kind in (".conf", ".local")
            for path in (folder / f"{name}{kind}", *_list_parts(name, parts, kind))
            if is_file(name, path)
        ]
        if layers:
            return layers
    listed = {file.name: file.path for file in list_filters(folders)}
    if name in listed:
        raise FilterError(f"filter {name}: {printable(str(listed[name]))} is no file, or a link that leads nowhere")
    near = difflib.get_close_matches(name, listed, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise FilterError(f"no filter {name} in {', '.join(str(folder) for folder in folders) or 'no folder at all'}{hint}")


def find_hidden(name: str, decides: Path, folders: Sequence[Path]) -> Path | None:
    """The NAME.conf of another folder that is not read, where the file that decides is only a part of one."""
    plain = [folder / f"{name}.conf" for folder in folders]
    for path in [] if decides in plain else plain:
        with suppress(FilterError):
            if is_file(name, path):
                return path
    return None


def _list_parts(name: str, folder: Path, kind: str) -> list[Path]:
    """The files of `NAME.d`, by their names: those that end with `.conf` come after `NAME.conf`, those that end with
    `.local` after `NAME.local`, as for all files of fail2ban's."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == kind and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise kind_of(error)(f"filter {name}: cannot look into {printable(str(folder))}: {error.strerror}") from error


def is_file(name: str, path: Path, asked_by: Path | None = None) -> bool:
    """Whether there is a file; raises FilterError when nobody can tell, since another one must not take its place."""
    try:
        return path.is_file()
    except OSError as error:
        place = f"{printable(str(asked_by))}: " if asked_by else ""
        raise kind_of(error)(
            f"filter {name}: {place}cannot look for {printable(str(path))}: {error.strerror}"
        ) from error


def kind_of(error: Exception) -> type[FilterError]:
    """The error of a filter for one of the system."""
    return UnreadableFilterError if isinstance(error, PermissionError) else FilterError
