"""SQL asked in a thread, while the engine does something else."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from mcban.daemon import asking
from mcban.daemon.asking import Asking
from mcban.errors import DatabaseError


def test_what_is_asked_is_answered_and_what_goes_wrong_is_raised() -> None:
    """As if there were no thread."""
    ask = Asking(lambda _: None)
    assert [ask(partial(pow, n, 2)) for n in range(3)] == [0, 1, 4]
    with pytest.raises(ZeroDivisionError):
        ask(lambda: 1 // 0)
    assert ask(lambda: threading.current_thread().name) == "sql"


def test_an_answer_that_takes_long_lets_other_work_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again until it comes; and that work may not ask itself."""
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    given, turns = threading.Event(), []

    def meanwhile(waited: float) -> None:
        turns.append(waited)
        with pytest.raises(DatabaseError, match="has not answered"):
            ask(lambda: None)
        if len(turns) == 5:
            given.set()

    ask = Asking(meanwhile)
    assert ask(lambda: given.wait(60)) is True
    assert len(turns) >= 5 and turns == sorted(turns)


def test_who_waits_no_longer_asks_again_once_the_answer_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended the waiting: until the old question is answered there is no new one."""
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    given, came = threading.Event(), threading.Event()

    def give_up(_: float) -> None:
        raise DatabaseError("enough")

    def question() -> None:
        given.wait(60)
        came.set()

    ask = Asking(give_up)
    with pytest.raises(DatabaseError, match="enough"):
        ask(question)
    with pytest.raises(DatabaseError, match="last question"):
        ask(lambda: 1)
    given.set()
    assert came.wait(60)
    while True:
        try:
            assert ask(lambda: 1) == 1
            break
        except DatabaseError as error:
            assert "last question" in str(error)  # it ends in a moment
