"""`run --once` and archives: each line of a compressed log counts once, and in doubt not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.logs import failure
from tests.cli.terminal import Answer, Terminal
from tests.cli.test_replay import on_screen, watched


def lines_of(ip: str, count: int, minutes: int = 0) -> bytes:
    """So many failures of an address, each a second after the other, some minutes ago."""
    return "".join(failure(ip, timedelta(minutes=minutes, seconds=count - n)) for n in range(count)).encode()


def once(terminal: Terminal, status: int = 0) -> Answer:
    """`mcban run --once`."""
    done = terminal.process("run", "--once")
    assert (done.status, done.out) == (status, ""), done
    assert "Traceback" not in done.err
    return done


def counted(terminal: Terminal) -> int:
    """How many hits ever counted."""
    hits: int = terminal.json("jail", "show", "-j", "mc-exim-1d")[0]["hits"]
    return hits


def reads(terminal: Terminal, *logs: object) -> None:
    """Let mc-exim read these, and the other groups nothing of this machine."""
    terminal.read_only_here()
    terminal.does(
        "jail", "change", "-j", "mc-exim", "--option", "logpath", "-v", " ".join(str(log) for log in logs)
    )  # fmt: skip


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_an_archive_that_is_named_counts_once(terminal: Terminal, suffix: str, pack: type[bytes]) -> None:
    """Its hits count and ban by their own time; another `--once` reads nothing again, also when it was renamed."""
    archive = terminal.write(f"old.log.1{suffix}", pack(lines_of("203.0.113.7", 12)))
    reads(terminal, archive, terminal.folder / f"old.log.2{suffix}", terminal.folder / "live.log")
    assert "ban 203.0.113.7 in mc-exim-1w" in once(terminal).err
    assert counted(terminal) == 12
    assert "WARNING ban" not in once(terminal).err
    archive.rename(terminal.folder / f"old.log.2{suffix}")
    archive.write_bytes(pack(lines_of("203.0.113.8", 3)))
    once(terminal)
    assert counted(terminal) == 15
    once(terminal)
    assert counted(terminal) == 15


def test_archives_that_are_copied_from_name_to_name_count_once(terminal: Terminal) -> None:
    """Also where rotation overwrites files instead of renaming them, so that one file holds another's content."""
    one, two = terminal.folder / "old.log.1.gz", terminal.folder / "old.log.2.gz"
    one.write_bytes(gzip.compress(lines_of("203.0.113.7", 3)))
    two.write_bytes(gzip.compress(lines_of("203.0.113.8", 3)))
    reads(terminal, one, two)
    once(terminal)
    assert counted(terminal) == 6
    two.write_bytes(one.read_bytes())
    one.write_bytes(gzip.compress(lines_of("203.0.113.9", 4)))
    for _ in range(2):
        once(terminal)
        assert counted(terminal) == 10


def test_what_was_followed_and_then_compressed_does_not_count_again(terminal: Terminal) -> None:
    """logrotate's work on a log that is followed changes no count, whether the jail names the log, its archives too,
    or a glob that matches both; lines of the last moment before it are not lost when the archive is named."""
    log, archive = terminal.folder / "mainlog", terminal.folder / "mainlog.1.gz"
    log.write_bytes(lines_of("203.0.113.7", 4))
    reads(terminal, terminal.folder / "mainlog*", archive)
    once(terminal)
    assert counted(terminal) == 4
    archive.write_bytes(gzip.compress(log.read_bytes() + lines_of("203.0.113.8", 2)))
    log.unlink()
    log.write_bytes(lines_of("203.0.113.9", 1))
    once(terminal)
    assert counted(terminal) == 7
    # The next rotation: what is in mainlog.1.gz by then was followed, and its position is forgotten.
    (terminal.folder / "mainlog.2.gz").write_bytes(archive.read_bytes())
    archive.write_bytes(gzip.compress(lines_of("203.0.113.10", 9, 60)))
    done = once(terminal)
    assert counted(terminal) == 7
    assert f"{archive} is left alone: it comes from {log}, which was followed" in done.err


def test_a_glob_leads_to_no_archive(terminal: Terminal) -> None:
    """What rotation left beside a log is not read through a glob: nobody could tell what of it was counted."""
    terminal.write("mainlog", lines_of("203.0.113.7", 1))
    terminal.write("mainlog.1.gz", gzip.compress(lines_of("203.0.113.8", 9, 60)))
    terminal.write("mainlog-old", gzip.compress(lines_of("203.0.113.9", 9, 60)))
    reads(terminal, terminal.folder / "mainlog*")
    once(terminal)
    assert counted(terminal) == 1


def test_a_broken_archive_is_told_and_goes_on_where_it_broke(terminal: Terminal) -> None:
    """What could be read counts, the exit status is 65; once the archive is whole, the rest counts."""
    whole = gzip.compress(b"".join(lines_of(f"203.0.113.{n % 250}", 200, n) for n in range(40)))
    archive = terminal.write("old.gz", whole[: len(whole) // 2])
    reads(terminal, archive)
    done = once(terminal, 65)
    assert "old.gz is cut short" in done.err.splitlines()[-1]
    first = counted(terminal)
    assert 0 < first < 8_000
    once(terminal, 65)
    assert counted(terminal) == first
    archive.write_bytes(whole)
    once(terminal)
    assert counted(terminal) == 8_000


def test_an_archive_that_is_not_there_is_waited_for(terminal: Terminal) -> None:
    """Like a log that does not exist yet, it is no failure."""
    reads(terminal, terminal.folder / "old.gz")
    assert "old.gz" in once(terminal).err


def test_who_wants_no_past_gets_none(terminal: Terminal) -> None:
    """With read_new_logs = "end" archives are not read, and that is said."""
    Path(terminal.env["MCBAN_CONFIG"]).write_text('[engine]\nread_new_logs = "end"\n')
    reads(terminal, terminal.write("old.gz", gzip.compress(lines_of("203.0.113.7", 9))))
    assert "archives are not read" in once(terminal).err
    assert counted(terminal) == 0


def test_a_terminal_shows_how_far_it_is_between_what_it_says(terminal: Terminal) -> None:
    """The line of progress makes room for the log's lines, and is gone at the end."""
    log = terminal.write("mc-exim.log", b"".join(lines_of(f"203.0.113.{n % 250}", 50) for n in range(2_000)))
    terminal.read_only_here()
    status, out, shown = watched(terminal, "run", "--once", feed=False)
    assert (status, out) == (0, b"")
    assert f"of {log.stat().st_size / 1e6:.1f} MB".encode() in shown
    screen = on_screen(shown)
    assert any("ban 203.0.113.7 in mc-exim-1d" in line for line in screen)
    assert not any("lines/s" in line for line in screen)
