"""`db adopt --from`: a database elsewhere is copied, and only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcban.errors import ConfigError
from mcban.service.adoption import adopt, adopt_from
from mcban.service.report import bans_in_force
from mcban.store import schema
from tests import original
from tests.service.adoption.desk import IP, RECENT, Make, raw


def test_a_file_that_is_not_there_is_not_made(make: Make, old: str, tmp_path: Path) -> None:
    """Neither the original's, mistyped, nor, by --check, our own."""
    mine, theirs = tmp_path / "mine.sqlite", tmp_path / "mistyped.sqlite"
    context = make(f"sqlite:///{mine}")
    for check in (True, False):
        with pytest.raises(ConfigError, match=f"{mine} does not exist"):
            adopt(context, check=check)
        with pytest.raises(ConfigError, match=f"{theirs} does not exist"):
            adopt_from(context, f"sqlite:///{theirs}", check=check)
    with pytest.raises(ConfigError, match="--from"):
        adopt_from(context, "nonsense")
    assert "nothing was changed" in adopt_from(context, old, check=True).done
    assert not mine.exists()
    assert not theirs.exists()


def test_a_database_elsewhere_is_copied_and_only_read(make: Make, either: str, tmp_path: Path) -> None:
    """Into a database that does not exist yet; again for what has come since, and what is here stays as it is."""
    original.add(either, (IP, "mc-exim-1d", 2, 1, 0, 0, RECENT))
    before = raw(either, "fail2ban_ips"), raw(either, "fail2ban_jail")
    context = make(f"sqlite:///{tmp_path / 'ours.sqlite'}")
    adopt_from(context, either, check=True)
    assert schema.current(context.database) is None
    adopted = adopt_from(context, either)
    assert [ban.ip for ban in bans_in_force(context, None)] == [IP]
    assert len(context.database.read(lambda t: t.jails.all())) == 5
    assert (raw(either, "fail2ban_ips"), raw(either, "fail2ban_jail")) == before
    assert "1 of 1 rows are here already: left as they are" in adopt_from(context, either).done
    original.add(either, ("192.0.2.1", "mc-exim-1d", 1, 1, 0, 0, RECENT))
    adopted = adopt_from(context, either)
    assert "1 of 2 rows are here already: left as they are" in adopted.done
    assert sorted(ban.ip for ban in bans_in_force(context, None)) == ["192.0.2.1", IP]


def test_a_new_database_gets_the_jails_and_one_in_use_keeps_its_own(make: Make, old: str, sqlite_url: str) -> None:
    """After `db upgrade` the shipped jails make way, unless somebody changed them or bans are there."""
    context = make(sqlite_url)
    context.database.write(lambda t: t.jails.update("mc-exim-1d", {"maxretry": 4}))
    adopted = adopt_from(context, old)
    assert (
        "mc-exim-1d is here already, with another maxretry, banaction, logpath, max_count: left as it is"
        in adopted.done
    )
    assert len(context.database.read(lambda t: t.jails.all())) == 15
    context.database.write(lambda t: t.jails.update("mc-exim-1d", {"maxretry": 5}))
    adopt_from(context, old)
    assert len(context.database.read(lambda t: t.jails.all())) == 5
