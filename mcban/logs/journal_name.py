"""How the journal is named in a jail's `logpath`, and what a filter asks of it.

A name is `systemd-journal`, or `systemd-journal[journalpath=/folder, …]`. With what a filter's `journalmatch` asks for
behind it, it stands where a file's path would: in positions, in `status`, in warnings.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mcban.core.model import LONGEST_PATH
from mcban.errors import printable

JOURNAL = "systemd-journal"

_NAME = re.compile(rf"{JOURNAL}(?:\[(?P<parameters>[^\]]*)\])?(?P<match>\s.*)?", re.DOTALL)
_PARAMETER = re.compile(r"""\s*(?P<key>\w+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s,"]*))\s*(?:,|$)""")
_TERM = re.compile(r"[A-Z_][A-Z0-9_]{0,63}=.+", re.DOTALL)
_NAMESPACE = re.compile(r"[\w.:-]{1,200}")
# fail2ban's numbers are the flags of sd_journal_open(3).
_SCOPES = {"": ("--system",), "1": (), "4": ("--system",), "5": ("--system",)}


@dataclass(frozen=True, slots=True)
class JournalName:
    """One thing that is read: which journal, and which of its entries.

    `folder` is a folder of journal files instead of this machine's own journal; `namespace` that of journald; `flags`
    whose entries are wanted, in fail2ban's numbers. `match` are alternatives, each a row of `FIELD=value`: of an
    alternative, one value of each field must be there. No alternatives at all: every entry.
    """

    folder: str = ""
    namespace: str = ""
    flags: str = ""
    match: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def parse(cls, text: str) -> JournalName:
        """What `str` of a name gives, or what stands in a `logpath`; raises ValueError with one line for a person."""
        found = _NAME.fullmatch(text)
        if not found:
            raise ValueError(f"'{printable(text)}' is not {JOURNAL} or {JOURNAL}[journalpath=/folder]")
        values = _parameters(found["parameters"] or "")
        name = cls(values.get("folder", ""), values.get("namespace", ""), values.get("flags", ""))
        return name.matching(found["match"] or "")

    def matching(self, journalmatch: str) -> JournalName:
        """The same journal, with what a filter's `journalmatch` asks for: fail2ban's `FIELD=value FIELD=value + …`, of
        which each line is an alternative, too. Raises ValueError with one line for a person."""
        alternatives: dict[tuple[str, ...], None] = {}
        for line in journalmatch.splitlines():
            terms: list[str] = []
            try:
                words = shlex.split(line)
            except ValueError as error:
                raise ValueError(f"journalmatch '{printable(line)}': {error}") from None
            for word in [*words, "+"]:
                if word == "+":
                    if terms:
                        alternatives[tuple(terms)] = None
                    terms = []
                elif _TERM.fullmatch(word) and word.isprintable():
                    terms.append(word)
                else:
                    raise ValueError(f"journalmatch '{printable(word)}': expected FIELD=value, such as _COMM=sshd")
        return replace(self, match=tuple(alternatives))

    def __str__(self) -> str:
        """The name in one spelling, which `parse` reads back."""
        pairs = {"journalpath": self.folder, "namespace": self.namespace, "journalflags": self.flags}
        written = ", ".join(f'{key}="{value}"' for key, value in pairs.items() if value)
        match = " + ".join(shlex.join(terms) for terms in self.match)
        return JOURNAL + (f"[{written}]" if written else "") + (f" {match}" if match else "")

    def location(self) -> list[str]:
        """The options of journalctl that lead to this journal."""
        if self.folder:
            # Without --merge, following begins with the machine's present start, which a foreign journal knows not.
            return [f"--directory={self.folder}", "--merge"]
        return [*_SCOPES[self.flags], *([f"--namespace={self.namespace}"] if self.namespace else [])]

    def terms(self) -> list[str]:
        """The entries wanted, as journalctl takes them. They stand behind `--`: none is ever taken for an option."""
        words: list[str] = []
        for terms in self.match:
            words += ["+", *terms] if words else terms
        return ["--", *words] if words else []


def is_journal(path: str) -> bool:
    """Whether a log's name is one of the journal, and not a file's path."""
    return path == JOURNAL or path.startswith((f"{JOURNAL} ", f"{JOURNAL}["))


def name_entries(journal: str, journalmatch: str) -> str:
    """The name of those entries of `journal`, a journal's name from a `logpath`, that a filter's `journalmatch` asks
    for; of those that `journal` asks for itself, where it does. Raises ValueError with one line for a person."""
    asked = JournalName.parse(journal)
    name = str(asked if asked.match else asked.matching(journalmatch))
    if len(name.replace("\\", "\\\\")) > LONGEST_PATH:
        raise ValueError(
            f"journalmatch is too long: with the journal's name it may have {LONGEST_PATH} characters, that its place "
            "can be kept"
        )
    return name


def _parameters(text: str) -> dict[str, str]:
    known = {"journalpath": "folder", "namespace": "namespace", "journalflags": "flags"}
    values: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        found = _PARAMETER.match(text, position)
        if not found:
            raise ValueError(f"{JOURNAL}[…]: expected key=value at '{printable(text[position:])}'")
        if found["key"] not in known:
            raise ValueError(f"{JOURNAL}[{found['key']}=…]: known are {', '.join(known)}")
        values[known[found["key"]]] = found["quoted"] if found["plain"] is None else found["plain"]
        position = found.end()
    folder = values.get("folder", "")
    if folder and not (folder.startswith("/") and folder.isprintable() and '"' not in folder):
        raise ValueError(f"journalpath '{printable(folder)}' is not an absolute path: write it from / on")
    if folder:
        values["folder"] = str(PurePosixPath(folder))
    if values.get("namespace") and not _NAMESPACE.fullmatch(values["namespace"]):
        raise ValueError(f"namespace '{printable(values['namespace'])}' is none: letters, digits, `_`, `.`, `:`, `-`")
    if values.get("flags", "") not in _SCOPES:
        raise ValueError(f"journalflags '{printable(values['flags'])}': 4 is the system's entries, 1 all users', too")
    if folder and len(values) > 1:
        raise ValueError("journalpath names a folder, and all in it is read: leave out namespace and journalflags")
    return values
