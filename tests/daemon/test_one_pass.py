"""`run --once` where something goes wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mcban.daemon.bridge import Bridge
from mcban.daemon.engine import Engine
from mcban.daemon.one_pass import OnePass
from mcban.daemon.presence import Presence
from mcban.daemon.reading import Reading
from mcban.daemon.signals import Signals
from mcban.errors import DatabaseError
from mcban.service.context import Context
from tests.conftest import MakeContext
from tests.daemon.desk import failures
from tests.service.desk import execute


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_one_pass_over_the_logs_ends_when_the_database_lost_what_it_had_confirmed(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives are read but once in it: it says so, with what to do, and the next pass reads what is missing."""
    context, other = make_context(), make_context()
    archives = [tmp_path / f"auth-{n}.log.gz" for n in range(3)]
    for number, archive in enumerate(archives, 1):
        lines = failures(context, number).replace(" h ", f" h{number} ")
        archive.write_bytes(gzip.compress(lines.encode()))
    named = " ".join(map(str, archives))
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{named}' WHERE name LIKE 'mc-ssh-%'")

    def lose(self: Engine, hits: object) -> None:
        execute(other, "UPDATE mcban_position SET batch = 'another'")
        context.database.dispose()
        monkeypatch.undo()
        monkeypatch.setattr("mcban.daemon.one_pass.AT_ONCE", 1)

    monkeypatch.setattr("mcban.daemon.one_pass.AT_ONCE", 1)
    monkeypatch.setattr(Bridge, "counted", lose)
    passes: list[bool] = []
    errors: list[str] = []
    for _ in range(2):
        one_pass = OnePass(context, Presence(context.config.state_dir), Signals())
        one_pass.start()
        try:
            passes.append(one_pass.run())
        except DatabaseError as error:
            errors.append(str(error))
    assert passes == [True]
    assert len(errors) == 1 and "run this again" in errors[0]
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-ssh": 6}


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_a_line_without_an_end_is_read_over_without_a_pause(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody wrote a gigabyte without a newline: what comes behind it is read as soon as that has been looked
    through, and nobody waits for a log to grow that has more."""
    log = tmp_path / "auth.log"
    with log.open("wb") as opened:
        opened.seek(200 << 20)  # a hole: it takes no room on the disk
        opened.write(b"\n" + failures(context, 3).encode())
    execute(context, f"UPDATE fail2ban_jail SET logpath = '{log}' WHERE name LIKE 'mc-ssh-%'")
    waits: list[float] = []
    monkeypatch.setattr(Reading, "wait", lambda _, timeout: waits.append(timeout))
    one_pass = OnePass(context, Presence(context.config.state_dir), Signals())
    one_pass.start()
    assert one_pass.run()
    assert context.database.read(lambda t: t.hits.totals()) == {"mc-ssh": 3}
    assert not waits
