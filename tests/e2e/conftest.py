"""Gateways for tests, taken away whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.netns import Host, one_host, require_netns, two_hosts


@pytest.fixture
def wire() -> Iterator[tuple[Host, Host]]:
    """A server and a client that exchange real packets."""
    require_netns()
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A gateway by itself, with its schema, no engine yet."""
    require_netns()
    with one_host() as host:
        gateway = Node(host, tmp_path / "gate")
        try:
            gateway.prepare()
            yield gateway
        finally:
            gateway.end()
