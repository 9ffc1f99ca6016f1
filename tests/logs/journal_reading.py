"""What the tests of the journal share: numbered entries, and a reader that can be killed."""

from __future__ import annotations

from mcban.core.model import Position
from mcban.logs import Block
from mcban.logs.journal import Journals
from tests.journald import Journald
from tests.patience import until


def name(journald: Journald, match: str = "SYSLOG_IDENTIFIER=app") -> str:
    """A journal's name with what is asked of it."""
    return f'systemd-journal[journalpath="{journald.folder}"] {match}'.rstrip()


def write(journald: Journald, first: int, last: int, identifier: str = "app") -> None:
    """Numbered entries, and wait until they are in the journal."""
    before = journald.count(f"SYSLOG_IDENTIFIER={identifier}")
    for number in range(first, last):
        journald.send(MESSAGE=f"line {number}", SYSLOG_IDENTIFIER=identifier)
    journald.flush(f"SYSLOG_IDENTIFIER={identifier}", entries=before + last - first)


class Reading:
    """A reader of journals, and what was committed: what a new start has."""

    def __init__(self, *names: str, from_end: bool = False, block_size: int = 1 << 20) -> None:
        self.names, self.from_end, self.block_size = names, from_end, block_size
        self.committed: dict[str, Position] = {}
        self.lines: dict[str, list[bytes]] = {one: [] for one in names}
        self.warnings: list[str] = []
        self.start()

    def start(self) -> None:
        """From the committed positions, as after kill -9."""
        stored = list(self.committed.values())
        self.journals = Journals(self.names, stored, from_end=self.from_end, block_size=self.block_size)

    def take(self, block: Block) -> None:
        """Commit a block: lines and position together."""
        assert block.data.endswith(b"\n") or not block.data
        self.lines.setdefault(block.path, []).extend(block.data.splitlines())
        self.committed[block.path] = block.position

    def read_until(self, enough: int, path: str = "") -> list[bytes]:
        """Commit blocks until `enough` lines of `path` are there."""
        lines = self.lines.setdefault(path or self.names[0], [])

        def some() -> bool:
            while block := self.journals.read():
                self.take(block)
            return len(lines) >= enough

        until(some, f"line {enough} of {lines}")
        return lines

    def read_to_end(self) -> None:
        """As `run --once` does."""

        def ended() -> bool:
            while block := self.journals.read():
                self.take(block)
            return self.journals.at_end

        until(ended, "the end")

    def restart(self) -> None:
        """Stop, and start from what was committed."""
        self.stop()
        self.start()

    def stop(self) -> None:
        self.warnings += self.journals.take_warnings()
        self.journals.close()


def numbers(lines: list[bytes]) -> list[int]:
    """What `write` numbered."""
    return [int(line.rpartition(b" ")[2]) for line in lines]
