"""The tables and the schema are tested on every kind of database, each time."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the shipped jails and nothing else, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def empty_database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once of each kind."""
    url: str = request.getfixturevalue(f"empty_{request.param}")
    return url
