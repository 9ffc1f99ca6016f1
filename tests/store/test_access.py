"""The URLs that somebody writes: what cannot be used is one line that shows no password."""

from __future__ import annotations

import pytest

from mcban.errors import ConfigError
from mcban.store.access import Access
from mcban.store.database import Database

WHOLE = "mysql+pymysql://mcban:s3cret@db1/mcban"


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        (("nonsense",), "no usable SQLAlchemy URL"),
        (("mysql+pymysql://mcban:s3cret@db1",), "names no database"),
        (("mysql://mcban:s3cret@db1/",), "names no database"),
        ((f"{WHOLE},{WHOLE}",), "several URLs"),
        (("mysql://mcban:s3@cret@db1/mcban",), "write an @"),
        ((f"{WHOLE}?read_timeout=soon",), "an option in it cannot be used"),
        ((WHOLE, f"{WHOLE}?read_timeout=soon"), "an option in it cannot be used"),
        (("sqlite:////nowhere/mcban.sqlite?timeout=soon",), "an option in it cannot be used"),
        (("sqlite:////nowhere/mcban.sqlite?timeout=5&timeout=6",), "an option in it cannot be used"),
        (("sqlite://mcban:s3cret@/mcban.sqlite",), "neither users nor hosts"),
        (("sqlite://var/lib/mcban/mcban.sqlite",), "four strokes"),
        (("sqlite:///mcban.sqlite",), "another file in each folder: write the whole path"),
        (("sqlite:///./var/mcban.sqlite",), "another file in each folder"),
        ((WHOLE, "sqlite:////nowhere/mcban.sqlite"), "all MariaDB or all PostgreSQL"),
        (("oracle://mcban:s3cret@db1/mcban",), "not supported"),
    ],
)
def test_a_url_that_cannot_be_used_is_said_with_where_it_stands(urls: tuple[str, ...], words: str) -> None:
    """Before anything is asked, and without the password."""
    with pytest.raises(ConfigError, match=words) as caught:
        Database(Access(urls, named="HERE"))
    said = str(caught.value)
    assert said.startswith("HERE")
    assert said.isprintable()
    assert "s3cret" not in said
    assert "cret@" not in said


def test_what_a_programmer_prints_shows_no_password() -> None:
    """Neither the one in a URL nor the other."""
    assert "s3cret" not in repr(Access((WHOLE,), "s3cret"))


def test_the_database_may_be_named_by_an_option() -> None:
    """As PyMySQL takes it."""
    assert Database("mysql://mcban@db1/?database=mcban").shown_url.endswith("/?database=mcban")
