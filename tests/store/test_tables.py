"""What is written is read back, on every database, whatever the text; and whoever changes a row, it is noted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from mcban.core.model import FOREVER, Hit, Position, number_of, time_of
from mcban.errors import DatabaseError, DataError
from mcban.store.addresses import AddressRecord
from mcban.store.database import Database, Transaction
from mcban.store.jails import JailRecord
from tests.conftest import NOON

IP = "203.0.113.7"


@pytest.fixture
def database(any_database: str) -> Iterator[Database]:
    """A database of each kind, with the shipped jails."""
    made = Database(any_database)
    yield made
    made.dispose()


def execute(database: Database, *statements: str) -> None:
    """Plain SQL, as somebody types it."""
    with database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def changes(database: Database) -> list[tuple[str, str]]:
    """What the triggers noted, and from now on no more."""
    noted = database.read(lambda t: [(ip, jail) for _, ip, jail in t.changes.since(0)])
    execute(database, "DELETE FROM mcban_change")
    return noted


LOGINS = [
    "plain",
    "müller@exämple.org",
    "\N{PILE OF POO}\N{EXTRATERRESTRIAL ALIEN}",
    "nul\0inside",
    "'; DROP TABLE fail2ban_ips; --",
    '"`\\%_${}',
    "\u202eevil",
    "trailing ",
]


def keep(transaction: Transaction, hits: list[Hit]) -> None:
    """Keep hits as `record` does."""
    first = transaction.hits.first_free()
    transaction.hits.add(list(enumerate(hits, first)), first + len(hits) - 1)


@pytest.mark.parametrize("login", LOGINS, ids=ascii)
def test_a_login_name_is_kept_as_it_was_tried(database: Database, login: str) -> None:
    """Emoji, NUL, quotes: it is the attacker's text. PostgreSQL takes no NUL: the sign for it stands there."""
    database.write(lambda t: keep(t, [Hit(NOON, IP, "mc-exim", login)]))
    kept = login.replace("\0", "\N{SYMBOL FOR NULL}") if database.engine.dialect.name == "postgresql" else login
    assert database.read(lambda t: t.hits.logins(IP)) == {"mc-exim": [kept]}


def test_a_login_name_that_no_database_takes_is_kept_all_the_same(database: Database) -> None:
    """A megabyte is cut; bytes that are no text become question marks."""
    hits = [Hit(NOON, IP, "g", "\N{PILE OF POO}" * 1_000_000), Hit(NOON, IP, "g", "a\udcffb"), Hit(NOON, IP, "g", "")]
    database.write(lambda t: keep(t, hits))
    assert database.read(lambda t: t.hits.logins(IP)) == {"g": ["\N{PILE OF POO}" * 250, "a?b"]}


def test_the_number_of_a_hit_is_never_given_twice(database: Database) -> None:
    """Not even after all were deleted: what was lifted is known by the number of the last hit."""
    numbers: list[int] = []
    for _ in range(3):
        database.write(lambda t: keep(t, [Hit(NOON, IP, "g")] * 2))
        numbers += map(number_of, database.read(lambda t: t.hits.of([IP]))["g", IP])
        database.write(lambda t: t.hits.forget([IP], "g"))
        assert database.read(lambda t: t.hits.last_number()) == numbers[-1]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 6


def test_hits_are_found_by_address_and_group(database: Database) -> None:
    """In their order of time, then of arrival; many addresses at once."""
    ips = [f"10.{n >> 8}.{n & 255}.1" for n in range(1200)]
    database.write(lambda t: keep(t, [Hit(NOON - n, ip, g) for n in range(2) for ip in ips for g in "ab"]))
    found = database.read(lambda t: t.hits.of(ips, "a"))
    assert found.keys() == {("a", ip) for ip in ips}
    assert list(map(time_of, found["a", ips[0]])) == [NOON - 1, NOON]
    gone = [(ip, number_of(one)) for (_, ip), hits in found.items() for one in hits]
    database.write(lambda t: t.hits.drop("a", gone))
    assert database.read(lambda t: t.hits.kept()) == {"b": 2400}


def test_totals_add_up(database: Database) -> None:
    """Hits are counted for ever."""
    database.write(lambda t: t.hits.add_totals({"a": 1, "b": 2}))
    database.write(lambda t: t.hits.add_totals({"b": 3}))
    database.write(lambda t: t.hits.add_totals({}))
    assert database.read(lambda t: t.hits.totals()) == {"a": 1, "b": 5}


POSITION = Position("/var/log/exim4/mainlog", 64_768, 131_072, 256, "ab" * 32, 2**40)


@pytest.mark.parametrize(
    "position",
    [
        POSITION,
        replace(POSITION, inode=2**64 - 1, device=2**63 - 1),
        replace(POSITION, inode=0, device=0, offset=0, head_length=0, head_hash=""),
        replace(POSITION, path="/var/log/\udcff\udc80/a\\b\\xff \N{PILE OF POO}"),
        replace(POSITION, path="/var/log/trailing "),
        Position("systemd-journal _COMM=sshd", 0, 0, 0, "", 7, "s=" + "a" * 253),
    ],
    ids=["usual", "largest", "least", "no UTF-8", "space", "journal"],
)
def test_a_position_is_read_back_as_it_was_saved(database: Database, position: Position) -> None:
    """Every inode and device number, every name of a file; saved again, it takes the place of the former."""
    later = replace(position, offset=position.offset + 7)
    database.write(lambda t: t.positions.save("here", [POSITION, position]))
    database.write(lambda t: t.positions.save("here", [later]))
    database.write(lambda t: t.positions.save("there", [position]))
    assert later in database.read(lambda t: t.positions.all("here"))
    assert database.read(lambda t: t.positions.all("there")) == [position]
    database.write(lambda t: t.positions.delete("here", [later, POSITION]))
    assert database.read(lambda t: t.positions.all("here")) == []
    assert database.read(lambda t: t.positions.all("there")) == [position]


def test_names_that_differ_in_case_or_spaces_are_different(database: Database) -> None:
    """On both databases alike: a jail `A` is not a jail `a`, nor `a `."""
    rows = [
        AddressRecord(ip, jail) for ip in ("2001:DB8::1", "2001:db8::1", "2001:db8::1 ") for jail in ("a", "A", "a ")
    ]
    database.write(lambda t: t.addresses.save(rows))
    found = database.read(lambda t: [t.addresses.get([row.ip], [row.jail]) for row in rows])
    assert found == [[row] for row in rows]


FULL = AddressRecord(
    ip="2001:db8::/48",
    jail="mc-exim-1d",
    count=3,
    active=True,
    blacklisted=True,
    whitelisted=True,
    since=NOON,
    until=FOREVER,
    last_hit=NOON,
    reason="why \N{PILE OF POO} ' ; --",
    host="here",
    lifted_after=2**62,
    forced=True,
)


def test_a_row_is_read_back_as_it_was_saved_and_saved_again_replaced(database: Database) -> None:
    """One row per address and jail."""
    database.write(lambda t: t.addresses.save([FULL, AddressRecord(IP, "mc-ssh-1d")]))
    assert database.read(lambda t: t.addresses.get([FULL.ip])) == [FULL]
    other = replace(FULL, count=4, until=None, since=None, last_hit=None, reason=None, lifted_after=None, active=False)
    database.write(lambda t: t.addresses.save([other]))
    assert database.read(lambda t: t.addresses.get([FULL.ip])) == [other]
    assert len(database.read(lambda t: t.addresses.get([FULL.ip, IP]))) == 2


def test_an_address_stands_once_in_a_jail(database: Database) -> None:
    """A unique key, which the original lacked."""
    insert = f"INSERT INTO fail2ban_ips (ip, jail) VALUES ('{IP}', 'mc-exim-1d')"
    execute(database, insert)
    with pytest.raises(IntegrityError):
        execute(database, insert)


def test_times_before_1970_do_not_stop_anything(database: Database) -> None:
    """A log with a broken clock: MariaDB's TIMESTAMP begins one second after 1970."""
    rows = [AddressRecord(IP, str(at), last_hit=at, since=at, until=at) for at in (-5, 0, 1)]
    database.write(lambda t: t.addresses.save(rows))
    assert [row.last_hit for row in database.read(lambda t: t.addresses.get([IP]))] == [1, 1, 1]


def test_bans_end_when_their_time_has_come(database: Database) -> None:
    """Marked once, the rest let be; those for ever and those without an end yet run on."""
    rows = [
        AddressRecord("192.0.2.1", "a", active=True, until=NOON, blacklisted=True, forced=True),
        AddressRecord("192.0.2.2", "a", active=True, until=NOON + 1),
        AddressRecord("192.0.2.3", "a", active=True, until=FOREVER),
        AddressRecord("192.0.2.4", "a", active=True),
        AddressRecord("192.0.2.5", "a", active=False, until=NOON - 9),
    ]
    database.write(lambda t: t.addresses.save(rows))
    assert database.read(lambda t: t.addresses.any_over(NOON))
    assert database.write(lambda t: t.addresses.expire(NOON)) == [("192.0.2.1", "a", NOON)]
    assert not database.read(lambda t: t.addresses.any_over(NOON))
    assert [r.ip[-1] for r in database.read(lambda t: t.addresses.in_force(NOON))] == ["2", "3", "4"]
    (ended,) = database.read(lambda t: t.addresses.get(["192.0.2.1"]))
    assert (ended.active, ended.blacklisted, ended.forced, ended.until) == (False, False, False, NOON)


def test_whom_sql_allows_is_not_among_the_bans_that_are_counted(database: Database) -> None:
    """A row inserted with whitelisted = 1 alone is active by default."""
    execute(database, f"INSERT INTO fail2ban_ips (ip, jail, whitelisted) VALUES ('{IP}', 'mc-exim-1d', 1)")
    assert database.read(lambda t: t.addresses.counts(NOON)) == {"mc-exim-1d": (0, 0)}


def test_bans_are_counted_in_a_thousand_jails_as_in_one(database: Database) -> None:
    """By jail the fewest and the most that run, at an end by a clock that may be off, whatever the number of jails."""
    jails = [f"jail-{number}" for number in range(1000)]
    records = [
        AddressRecord(f"203.0.113.{n}", jail, active=True, since=NOON, until=NOON + 10 * n)
        for at, jail in enumerate(jails)
        for n in range(at % 3)
    ]
    database.write(lambda t: t.addresses.save(records))
    for some in ([], jails[:1], jails[2:3], jails):
        found = database.read(lambda t, some=some: t.addresses.running_counts(some, NOON - 5, NOON + 5))  # type: ignore[misc]
        assert found == {jail: ((0, 0), (0, 1), (1, 2))[jails.index(jail) % 3] for jail in some}


def test_every_change_by_plain_sql_is_noted(database: Database) -> None:
    """Insert, update, rename and delete of bans and jails: a running engine asks for what came since. Only what is
    dropped when it neither bans nor allows any more tells nobody anything."""
    changes(database)
    execute(database, f"INSERT INTO fail2ban_ips (ip, jail) VALUES ('{IP}', 'j')")
    assert changes(database) == [(IP, "j")]
    execute(database, "UPDATE fail2ban_ips SET active = 0")
    assert set(changes(database)) == {(IP, "j")}
    execute(database, "UPDATE fail2ban_ips SET ip = '192.0.2.1'")
    assert set(changes(database)) == {(IP, "j"), ("192.0.2.1", "j")}
    execute(database, "DELETE FROM fail2ban_ips")
    assert changes(database) == []
    for flag in ("active", "whitelisted"):
        execute(
            database,
            f"INSERT INTO fail2ban_ips (ip, jail, active) VALUES ('{IP}', 'j', 0)",
            f"UPDATE fail2ban_ips SET {flag} = 1",
        )
        changes(database)
        execute(database, "DELETE FROM fail2ban_ips")
        assert changes(database) == [(IP, "j")]
    execute(database, "UPDATE fail2ban_jail SET enabled = 0 WHERE name = 'mc-ssh-1d'")
    assert changes(database) == [("", "mc-ssh-1d")]
    execute(database, "UPDATE fail2ban_jail SET name = 'x' WHERE name = 'mc-ssh-1d'", "DELETE FROM fail2ban_jail")
    assert ("", "x") in changes(database)


def test_a_number_typed_as_text_does_not_stop_the_reading(sqlite_url: str) -> None:
    """SQLite takes any text for a number or a time: such a row is read as it stands, and the others with it."""
    database = Database(sqlite_url)
    execute(
        database,
        "UPDATE fail2ban_jail SET maxretry = 'five', enabled = 'yes', max_count = x'00' WHERE name = 'mc-ssh-1d'",
        f"INSERT INTO fail2ban_ips (ip, jail, until, since, last_hit, count, lifted_after)"
        f" VALUES ('{IP}', 'j', 'tomorrow', 1790000000, '', 'many', 'x')",
        "INSERT INTO fail2ban_ips (ip, jail, until) VALUES ('192.0.2.1', 'j', '2026-09-21')",
        "INSERT INTO fail2ban_ips (ip, jail, until) VALUES ('192.0.2.2', 'j', '2026-09-21T02:00:00+02:00')",
    )
    assert len(database.read(lambda t: t.jails.all())) == 15
    odd, day, zone = database.read(lambda t: [t.addresses.get([ip])[0] for ip in (IP, "192.0.2.1", "192.0.2.2")])
    assert (odd.until, odd.since, odd.count, odd.lifted_after) == (None, None, 0, None)
    assert day.until == zone.until == NOON - NOON % 86_400
    database.dispose()


def test_text_that_is_no_text_is_one_clear_line(database: Database) -> None:
    """Bytes from the command line that are no UTF-8."""
    odd = JailRecord("x", True, 1, 1, 1, "25", "f", "mc-custom", "/var/log/\udcff", 0)
    with pytest.raises(DataError, match=r"\\udcff.* is no valid UTF-8"):
        database.write(lambda t: t.jails.insert(odd))


def test_old_hits_are_dropped_a_few_at_a_time(database: Database) -> None:
    """Step by step through all addresses, each group by its own look-back; strangers' go last."""
    hits = [Hit(at, f"192.0.2.{n}", group) for n in range(50) for group in ("a", "b", "gone") for at in (1, 5, 9)]
    database.write(lambda t: keep(t, hits))

    def purge(after: str) -> str:
        return database.write(lambda t: t.hits.purge({"a": 5, "b": 1}, 0, after, rows=100))

    steps = [purge("")]
    while steps[-1]:
        steps.append(purge(steps[-1]))
    assert steps[:-1] == sorted(set(steps[:-1]))
    assert 4 <= len(steps) <= 6
    assert database.read(lambda t: t.hits.kept()) == {"a": 50, "b": 100, "gone": 150}
    assert database.write(lambda t: t.hits.purge({}, 9)) == ""
    assert database.read(lambda t: t.hits.kept()) == {}


def test_a_refused_write_changes_nothing(database: Database) -> None:
    """All of a transaction or none of it."""

    def work(transaction: Transaction) -> None:
        keep(transaction, [Hit(NOON, IP, "g")])
        transaction.jails.insert(JailRecord("mc-ssh-1d", True, 1, 1, 1, "25", "f", "a", "/l", 0))

    with pytest.raises(DatabaseError):
        database.write(work)
    assert database.read(lambda t: t.hits.kept()) == {}


def _write_many(url: str, times: int) -> None:
    database = Database(url)
    for _ in range(times):

        def work(transaction: Transaction) -> None:
            rows = transaction.addresses.get([IP], ["j"])
            row = rows[0] if rows else AddressRecord(IP, "j")
            row.count += 1
            transaction.addresses.save([row])

        database.write(work)
    database.dispose()


def test_writers_at_once_wait_for_each_other(database: Database, any_database: str) -> None:
    """What a writer read stays true until it commits: no process fails, and no count is lost."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_write_many, args=(any_database, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert database.read(lambda t: t.addresses.get([IP]))[0].count == 60


def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    """Two questions in one reading get answers that fit together."""

    def work(transaction: Transaction) -> tuple[int, int]:
        before = len(transaction.addresses.get([IP]))
        execute(database, f"INSERT INTO fail2ban_ips (ip, jail) VALUES ('{IP}', 'j')")
        return before, len(transaction.addresses.get([IP]))

    assert database.read(work) == (0, 0)
    assert len(database.read(lambda t: t.addresses.get([IP]))) == 1
