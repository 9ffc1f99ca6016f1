"""What is said of a database that cannot be used."""

from __future__ import annotations

import pytest

from mcban.errors import DatabaseError
from mcban.store.database import Database


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://u@127.0.0.1:1/d",
        "mysql+pymysql://u@localhost/d?unix_socket=/nonexistent/socket",
        "postgresql+psycopg://u@127.0.0.1:1/d",
        "sqlite:////nonexistent/mcban.sqlite",
    ],
)
def test_what_is_wrong_can_stand_before_what_is_done_about_it(url: str) -> None:
    """The engine says behind it what goes on meanwhile: it ends like a part of a sentence."""
    with pytest.raises(DatabaseError) as caught:
        Database(url).read(lambda t: t.jails.all())
    assert str(caught.value)[-1].isalpha()
