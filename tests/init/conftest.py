"""Services in temporary folders, ended whatever happens; what a test needs of the machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.init.service import Service
from tests.missing import skip_or_fail
from tests.netns import Host, one_host, require_netns, two_hosts


def require(*programs: str) -> None:
    """Skip the test where a program is missing, saying so; under CI that is a failure."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        skip_or_fail(f"not installed: {', '.join(missing)}")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that touches no kernel, with its database."""
    service = Service(tmp_path)
    service.prepare()
    yield service
    service.end()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Service]:
    """A service with a kernel's firewall to itself, and its database."""
    require_netns()
    with one_host() as host:
        yield from _on(host, tmp_path)


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[tuple[Service, Host, Host]]:
    """The same with a client on a wire: service, server, client."""
    require_netns()
    with two_hosts() as (server, client):
        for service in _on(server, tmp_path):
            yield service, server, client


def _on(host: Host, folder: Path) -> Iterator[Service]:
    service = Service(folder, host)
    service.prepare()
    try:
        yield service
    finally:
        service.end()
