"""Whatever becomes of the database server under attack: nobody gets in, and in the end each hit was counted once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mcban.store.addresses import AddressRecord
from mcban.store.database import Database
from tests.conftest import require_mariadb
from tests.e2e.node import Node
from tests.e2e.siege import at_peace, attack, lengths, siege
from tests.netns import one_host, require_netns
from tests.patience import until
from tests.postgres import PostgreSQL
from tests.rough import RoughMariaDB, RoughPostgreSQL, RoughServer

TOLD = {
    "killed": "cannot be used: ",
    "shut_down": "cannot be used: ",
    "full": "cannot be used: ",
    "read_only": "it takes no writes, being a replica or set read-only",
    "turn_held": "another transaction kept it locked",
}
"""What may become of it (tests/rough.py), and what `status` says then."""


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RoughServer]:
    """A server of that kind on a host of its own."""
    require_netns()
    with tempfile.TemporaryDirectory(prefix="mcban-") as folder, one_host() as host:
        if request.param == "mariadb":
            require_mariadb()
            made: RoughServer = RoughMariaDB(tmp_path / "db", host)
        else:  # it runs as nobody, who may not look into pytest's folders
            programs: PostgreSQL = request.getfixturevalue("postgresql")
            made = RoughPostgreSQL(Path(folder), host, programs.programs)
        with made:
            yield made


@pytest.fixture
def node(server: RoughServer, tmp_path: Path) -> Iterator[Node]:
    """A gateway beside it, whose engine runs. The test itself has another way to the server."""
    made = Node(server.host, tmp_path / "gate", database_url=server.url)
    made.database.dispose()
    made.database = Database(server.direct_url)
    try:
        made.mcban("db", "upgrade")
        made.prepare()
        made.start()
        yield made
    finally:
        made.end()


@lengths
def test_no_fault_of_the_server_lets_anybody_in_or_loses_a_hit(server: RoughServer, node: Node, length: float) -> None:
    """Killed so that what it confirmed is lost, shut down, without a connection to spare, set read-only, locked by
    somebody: each is one line, a state in `status` at once, and a line when it is over. A deadlock, and a server that
    hangs for a moment, are no line."""
    server.be_forgetful()
    hits = attack(node, "203.0.113", 1)

    def told(times: int) -> bool:
        return node.engine_log.count(" ERROR ") == times

    for number, (fault, said) in enumerate(TOLD.items()):
        with siege(node, number) as foes, getattr(server, fault)():
            until(partial(told, number + 1), "one line")
            foes.fails(length)
            status = node.mcban("status")
            assert "the engine has been without it for" in status and said in status
        hits += 5 * len(foes.attackers)
        at_peace(node, hits, number + 1)
    if isinstance(server, RoughMariaDB):  # when PostgreSQL writes is its own affair
        assert node.engine_log.count("has lost what it had confirmed") == 1, node.engine_log
    assert node.json("status")["database"]["away_since"] is None
    with siege(node, len(TOLD)) as foes:
        server.deadlock()
        with server.stopped():
            foes.fails()
    at_peace(node, hits + 5 * len(foes.attackers), len(TOLD), len(TOLD) + 2)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_server_that_hangs_and_one_that_is_cut_off_are_told(server: RoughServer, node: Node) -> None:
    """For a minute each: one line, a state in `status`; in the end each hit is counted once, and a ban that SQL does
    not confirm is lifted."""
    with siege(node, 0) as foes, server.stopped():
        foes.fails(60)
        assert "has not answered for" in node.engine_log
        assert "the engine has been without it for" in node.mcban("status")
    hits = 5 * len(foes.attackers)
    at_peace(node, hits, 1)
    with siege(node, 1) as foes, server.cut_off():
        allowed = AddressRecord("203.0.113.250", "*", whitelisted=True)  # by another node: this one cannot know
        node.database.write(lambda t: t.addresses.save([allowed]))
        node.fail("mc-exim", "203.0.113.250", 5)
        node.await_entry("203.0.113.250", what="a ban by what is known")
        foes.fails(60)
        assert node.engine_log.count(" ERROR ") == 2
        state = Path(node.env["MCBAN_STATE_DIR"], "engine.json")
        assert json.loads(state.read_text())["database"]["away_since"]
    at_peace(node, hits + 5 * len(foes.attackers), 2)
    assert "203.0.113.250" not in node.entries("mc-exim-1d")
    assert "203.0.113.250 in mc-exim-1d was banned while the database was away" in node.engine_log
