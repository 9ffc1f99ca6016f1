"""The copy of what SQL said last: read back as it was, or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcban.core.ends import Ends
from mcban.core.model import FOREVER, Position
from mcban.core.plan import Plan
from mcban.errors import DataError
from mcban.service.context import Context
from mcban.service.known import Known, ask
from mcban.service.local_copy import NAME, Copied, LocalCopy, age_of, read_copy
from tests.service.desk import IP, NOON, fail

HERE = "mysql://a/b"
READ = [Position("/var/log/\udcff.log", 1, 2**64 - 1, 3, "ab", 100), Position("systemd-journal", 0, 0, 0, "", 7, "s=1")]
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def any_database(sqlite_url: str) -> str:
    """What is copied does not depend on the kind of the database."""
    return sqlite_url


@pytest.fixture
def known(context: Context) -> Known:
    """What SQL says after a few bans."""
    fail(context, 20)
    fail(context, 5, "2001:db8::7", "mc-webauth")
    return ask(context)


def copy_of(folder: Path) -> Copied:
    """The copy, which must be there."""
    found = read_copy(folder, HERE)
    assert found is not None
    return found


def test_what_is_written_is_read_back(known: Known, tmp_path: Path) -> None:
    """Jails, allowances, bans, positions, in a file that only its owner may read; and none of another database."""
    copy = LocalCopy(tmp_path, HERE)
    assert read_copy(tmp_path, HERE) is None and age_of(tmp_path, NOON) is None
    copy.flush(known, READ, 0.0)
    assert (copy.trouble, (tmp_path / NAME).stat().st_mode & 0o777) == ("", 0o600)
    found = copy_of(tmp_path).known
    assert (found.world.book.groups, found.ends(), found.positions) == (known.world.book.groups, known.ends(), READ)
    assert set(found.world.allow.allowances) == set(known.world.allow.allowances)
    assert known.ends()["mc-exim-1d"] == {IP: NOON + 86_400}
    with pytest.raises(DataError, match="another database"):
        read_copy(tmp_path, "mysql://a/c")


def test_the_file_says_how_old_it_is(known: Known, tmp_path: Path) -> None:
    """Its time is that of the last word, also when nothing changed."""
    copy = LocalCopy(tmp_path, HERE)
    copy.flush(known, READ, 0.0)
    os.utime(tmp_path / NAME, (NOON, NOON))
    assert (age_of(tmp_path, NOON + 90), copy_of(tmp_path).as_of) == (90, NOON)
    copy.flush(known, READ, 59.0)
    assert copy_of(tmp_path).as_of == NOON
    copy.flush(known, READ[:1], 61.0)
    assert copy_of(tmp_path).as_of > NOON and copy_of(tmp_path).known.positions == READ[:1]


changes = st.lists(
    st.tuples(
        st.sampled_from(["mc-exim-1d", "mc-exim-bl", "mc-ssh-1w"]),
        st.sampled_from([IP, "203.0.113.8", "2001:db8::/64"]),
        st.sampled_from([None, NOON + 9, FOREVER]),
        st.booleans(),
    ),
    max_size=20,
)


@quick
@given(changes=changes)
def test_single_changes_lead_to_the_same_as_all_anew(
    known: Known, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str, int | None, bool]]
) -> None:
    """Whatever comes and goes, and however often it is written: the copy says what is known."""
    folder = tmp_path_factory.mktemp("copy")
    known = replace(known, bans={jail: Ends(ends) for jail, ends in known.ends().items()})
    copy = LocalCopy(folder, HERE)
    copy.flush(known, READ, 0.0)
    for now, (jail, entry, end, written) in enumerate(changes):
        one = Plan(remove={jail: {entry}}) if end is None else Plan(add={jail: {entry: end}})
        known.note(one)
        copy.note(one)
        if written:
            copy.flush(known, READ, float(now))
    copy.flush(known, READ, 99.0)
    assert copy_of(folder).known.ends() == known.ends()


@quick
@given(data=st.data())
def test_a_damaged_copy_is_refused_and_a_torn_one_is_as_it_was_before(
    known: Known, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte that is another one anywhere, or an end that is missing: nothing is read that was never said."""
    folder = tmp_path_factory.mktemp("copy")
    known = replace(known, bans={jail: Ends(ends) for jail, ends in known.ends().items()})
    copy, said = LocalCopy(folder, HERE), []
    copy.flush(known, READ, 0.0)
    for n in range(3):
        said.append(known.ends())
        one = Plan(add={"mc-ssh-1d": {f"203.0.113.{n}": NOON + n}})
        known.note(one)
        copy.note(one)
        copy.flush(known, READ, 1.0)
    said.append(known.ends())
    whole = (folder / NAME).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans(), "torn"):
        (folder / NAME).write_bytes(whole[:place])
    else:
        other = data.draw(st.integers(1, 255))
        (folder / NAME).write_bytes(whole[:place] + bytes([whole[place] ^ other]) + whole[place + 1 :])
    try:
        found = copy_of(folder)
    except DataError as error:
        assert ("\n" not in str(error) and "damaged" in str(error)) or "another database" in str(error)
    else:
        assert found.known.ends() in said


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 5000, b"mcban copy 1\n", b"mcban copy 1\nW 2 00000000\n[]", b"x" * 99]
)
def test_garbage_is_refused(tmp_path: Path, garbage: bytes) -> None:
    """In one line."""
    (tmp_path / NAME).write_bytes(garbage)
    with pytest.raises(DataError, match="damaged: it is not used"):
        read_copy(tmp_path, HERE)


def test_a_copy_that_somebody_else_touched_is_written_anew(known: Known, tmp_path: Path) -> None:
    """What was appended to, cut or taken away is not trusted."""
    copy = LocalCopy(tmp_path, HERE)
    copy.flush(known, READ, 0.0)
    (tmp_path / NAME).write_bytes(b"odd")
    one = Plan(add={"mc-ssh-1d": {IP: FOREVER}})
    known.note(one)
    copy.note(one)
    copy.flush(known, READ, 1.0)
    assert "cannot be written" in copy.trouble
    copy.flush(known, READ, 1000.0)
    assert (copy.trouble, copy_of(tmp_path).known.ends()) == ("", known.ends())
