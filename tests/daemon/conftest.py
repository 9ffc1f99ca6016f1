"""A namespace for whom the engine bans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import Host, one_host, require_netns


@pytest.fixture
def host() -> Iterator[Host]:
    """A network namespace in which this thread is."""
    require_netns()
    with one_host() as host, host.entered():
        yield host
