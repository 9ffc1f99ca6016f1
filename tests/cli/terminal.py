"""A terminal at which a test types commands, by itself or as processes, and what it may rely on whatever it types."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest.mock import patch

from mcban.cli.main import main
from tests import warm
from tests.patience import PATIENCE

MCBAN = str(Path(sys.executable).with_name("mcban"))
UNHEARD = ("bash", "-c", '{ sleep 0.1; exec "$@"; } | true; exit "${PIPESTATUS[0]}"', "bash")
"""Before a command: it writes to a pipe that nobody reads, and its exit status is what counts."""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()


@dataclass
class Terminal:
    """Settings of its own, a state directory, no jails that read this machine's logs."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MCBAN_")},
            "PATH": f"{Path(MCBAN).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "MCBAN_STATE_DIR": str(self.folder / "state"),
            "MCBAN_FIREWALL": "memory",
            "MCBAN_CONFIG": str(self.write("mcban.toml", "")),
        } | self.env

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "state/mcban.sqlite"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the terminal's folder."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def type(self, *arguments: str, stdin: bytes = b"") -> Answer:
        """Run a command in this process, which saves it its start, whatever it returns."""
        out, err = (TextIOWrapper(BytesIO(), "utf-8", write_through=True) for _ in range(2))
        status = 0
        with (
            TemporaryFile() as typed,
            patch.dict(os.environ, self.env, clear=True),
            patch("sys.stdin", TextIOWrapper(typed, "utf-8")),
            patch("mcban.cli.waiting.AFTER", PATIENCE),  # a loaded machine may let one wait
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            typed.write(stdin)
            typed.seek(0)
            try:
                main(list(arguments))
            except SystemExit as done:
                status = done.code if isinstance(done.code, int) else 1
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return Answer(status, *texts)

    def process(self, *arguments: str | bytes, before: tuple[str, ...] = (), **options: Any) -> Answer:
        """Run a command as a process of its own; `before` is what starts it, such as setpriv. Where nothing is said of
        how it is started, it is forked: see tests.warm."""
        typed = [argument for argument in arguments if isinstance(argument, str)]
        if len(typed) == len(arguments) and not before and not options:
            forked = warm.run(*typed, env=self.env)
            return Answer(forked.returncode, forked.stdout, forked.stderr)
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": PATIENCE, **options}
        # As the kernel starts it; where the path of this checkout holds a blank, pip puts a shell in between.
        done = subprocess.run([*before, sys.executable, MCBAN, *arguments], env=self.env, check=False, **settings)
        return Answer(done.returncode, *((text or b"").decode() for text in (done.stdout, done.stderr)))

    def does(self, *arguments: str) -> list[str]:
        """Run a command that must succeed and complain of nothing; the lines it printed."""
        answer = self.type(*arguments)
        assert (answer.status, answer.err) == (0, ""), (arguments, answer)
        assert is_clean(answer.out), answer.out
        return answer.lines

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Run a command with --json; its document."""
        answer = self.type(*arguments, "--json")
        assert (answer.status, answer.err) == (status, ""), (arguments, answer)
        assert answer.out.isascii()
        return answer.document

    def refuses(self, status: int, *arguments: str) -> str:
        """Run a command that must fail: one line on standard error, nothing else, nothing changed; that line."""
        before = self.dump()
        answer = self.type(*arguments)
        assert self.dump() == before, arguments
        return complaint(answer, status)

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Type SQL at the database."""
        with sqlite3.connect(self.database) as connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def dump(self) -> str:
        """Everything in SQL, as text."""
        if not self.database.is_file() or not self.database.read_bytes().startswith(b"SQLite format 3"):
            return str(sorted((path, path.stat().st_size) for path in self.folder.rglob("*.sqlite*")))
        connection = sqlite3.connect(self.database)
        try:
            return "\n".join(connection.iterdump())
        finally:
            connection.close()

    def read_only_here(self) -> None:
        """Let every shipped group read a log of this folder instead of this machine's."""
        for group in ("mc-ssh", "mc-exim", "mc-webauth"):
            self.does("jail", "change", "-j", group, "--option", "logpath", "-v", str(self.folder / f"{group}.log"))


def is_clean(text: str) -> bool:
    """Whether a terminal would show `text` and do nothing else."""
    return all(line.isprintable() for line in text.split("\n"))


def complaint(answer: Answer, status: int) -> str:
    """The one line of a failure with that exit status."""
    assert answer.status == status, answer
    assert answer.out == "", answer
    assert answer.err.startswith("mcban: "), answer
    assert answer.err.count("\n") == 1, answer
    assert answer.err.endswith("\n"), answer
    assert is_clean(answer.err), answer
    assert "Traceback" not in answer.err, answer
    assert len(answer.err) < 1_100, answer
    assert "defect" not in answer.err, answer
    return answer.err


def short(value: object) -> str:
    """A test's name from what it types."""
    return ascii(value)[1:31]
