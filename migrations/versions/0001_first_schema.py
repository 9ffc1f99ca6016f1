"""The three tables of the original with our columns, hits, positions, events, changes; the shipped jails."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from mcban.core import ladder
from mcban.errors import ConfigError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Boolean().with_variant(sa.SmallInteger, "postgresql")
WITH_ZONE = sa.TIMESTAMP(timezone=True)
AT = sa.DateTime().with_variant(WITH_ZONE, "postgresql")


def words(length: int) -> sa.String:
    """Text that PostgreSQL compares by its bytes; MariaDB's tables say so as a whole."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def create_jails() -> None:
    op.create_table(
        "fail2ban_jail",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("enabled", FLAG, server_default=sa.text("1")),
        sa.Column("name", words(150), nullable=False),
        sa.Column("maxretry", sa.Integer, nullable=False),
        sa.Column("findtime", sa.Integer, nullable=False),
        sa.Column("bantime", sa.Integer, nullable=False),
        sa.Column("port", words(250), nullable=False),
        sa.Column("filter", words(250), nullable=False),
        sa.Column("banaction", words(250), server_default="mc-custom", nullable=False),
        sa.Column("logpath", words(2000), nullable=False),
        sa.Column("max_count", sa.Integer, server_default=sa.text("3"), nullable=False),
        sa.Column("send_mail", FLAG, server_default=sa.text("0")),
        sa.Column("send_mail_bl", FLAG, server_default=sa.text("1")),
        sa.Column("escalate", FLAG, server_default=sa.text("0"), nullable=False),
        sa.Column("v6_prefix", sa.Integer, server_default=sa.text("128"), nullable=False),
        sa.Column("share_hits", FLAG, server_default=sa.text("1"), nullable=False),
        sa.Column("logtimezone", words(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fail2ban_jail")),
        sa.UniqueConstraint("name", name=op.f("uq_fail2ban_jail_name")),
        **MYSQL,
    )


def create_other_original_tables() -> None:
    op.create_table(
        "fail2ban_ips",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("ip", words(150), nullable=False),
        sa.Column("count", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("active", FLAG, server_default=sa.text("1")),
        sa.Column("blacklisted", FLAG, server_default=sa.text("0")),
        sa.Column("whitelisted", FLAG, server_default=sa.text("0")),
        sa.Column("jail", words(150), nullable=False),
        sa.Column(
            "last_hit",
            sa.TIMESTAMP().with_variant(WITH_ZONE, "postgresql"),
            server_default=sa.func.current_timestamp(),
            nullable=True,
        ),
        sa.Column("host", words(150), server_default="", nullable=False),
        sa.Column("since", AT),
        sa.Column("until", AT),
        sa.Column("reason", words(250)),
        sa.Column("lifted_after", sa.BigInteger),
        sa.Column("forced", FLAG, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fail2ban_ips")),
        sa.UniqueConstraint("ip", "jail", name=op.f("uq_fail2ban_ips_ip_jail")),
        **MYSQL,
    )
    op.create_index(op.f("ix_fail2ban_ips_jail_active_until"), "fail2ban_ips", ["jail", "active", "until"])
    op.create_index(op.f("ix_fail2ban_ips_active_until"), "fail2ban_ips", ["active", "until"])
    op.create_index(
        op.f("ix_fail2ban_ips_active_since"),
        "fail2ban_ips",
        ["active", "since"],
        sqlite_where=sa.text("since IS NULL"),
        postgresql_where=sa.text("since IS NULL"),
    )
    op.create_index(
        op.f("ix_fail2ban_ips_whitelisted"),
        "fail2ban_ips",
        ["whitelisted"],
        sqlite_where=sa.text("whitelisted = 1"),
        postgresql_where=sa.text("whitelisted = 1"),
    )
    op.create_table(
        "fail2ban_conf",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("src_email", words(150), server_default="", nullable=False),
        sa.Column("src_name", words(150), server_default="", nullable=False),
        sa.Column("dest_email", words(150), server_default="", nullable=False),
        sa.Column("chain", words(150), server_default="INPUT", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fail2ban_conf")),
        **MYSQL,
    )


def create_tables_of_our_own() -> None:
    op.create_table(
        "mcban_hit",
        sa.Column("ip", words(64), nullable=False),
        sa.Column("jail_group", words(200), nullable=False),
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("login", words(250)),
        sa.PrimaryKeyConstraint("ip", "jail_group", "id", name=op.f("pk_mcban_hit")),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "mcban_total",
        sa.Column("jail_group", words(150), nullable=False),
        sa.Column("hits", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("jail_group", name=op.f("pk_mcban_total")),
        **MYSQL,
    )
    op.create_table(
        "mcban_position",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("host", words(150), nullable=False),
        sa.Column("path", words(500), nullable=False),
        sa.Column("device", sa.BigInteger, nullable=False),
        sa.Column("inode", words(20), nullable=False),
        sa.Column("head_length", sa.Integer, nullable=False),
        sa.Column("head_hash", words(64), nullable=False),
        sa.Column("read_to", sa.BigInteger, nullable=False),
        sa.Column("journal_cursor", words(255), server_default="", nullable=False),
        sa.Column("batch", words(16), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mcban_position")),
        sa.UniqueConstraint("host", "path", "device", "inode", name=op.f("uq_mcban_position_host_path_device_inode")),
        **MYSQL,
    )


def create_tables_of_notes() -> None:
    op.create_table(
        "mcban_event",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", AT, nullable=False),
        sa.Column("what", words(20), nullable=False),
        sa.Column("ip", words(150), nullable=False),
        sa.Column("jail", words(150), nullable=False),
        sa.Column("until", AT),
        sa.Column("reason", words(250), nullable=False),
        sa.Column("host", words(150), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mcban_event")),
        **MYSQL,
    )
    op.create_index(op.f("ix_mcban_event_ip_id"), "mcban_event", ["ip", "id"])
    op.create_table(
        "mcban_change",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("ip", words(150), server_default="", nullable=False),
        sa.Column("jail", words(150), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mcban_change")),
        sqlite_autoincrement=True,
        **MYSQL,
    )
    op.create_table(
        "mcban_node",
        sa.Column("host", words(150), nullable=False),
        sa.Column("addresses", sa.Text, nullable=False),
        sa.Column("seen", AT, nullable=False),
        sa.Column("owner", words(64), server_default="", nullable=False),
        sa.Column("token", words(64), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_mcban_node")),
        **MYSQL,
    )
    turn = op.create_table(
        "mcban_turn",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("taken", sa.BigInteger, nullable=False),
        sa.Column("last_hit", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("oldest_schema", words(32), server_default="0001", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mcban_turn")),
        **MYSQL,
    )
    op.bulk_insert(turn, [{"id": 1, "taken": 0}])


# (table, event) → what is noted of the row. Triggers, since plain SQL is a way to change jails and bans, and a running
# engine wants to know without reading everything.
NOTES = {
    ("fail2ban_ips", "insert"): ["NEW.ip, NEW.jail"],
    ("fail2ban_ips", "update"): ["OLD.ip, OLD.jail", "NEW.ip, NEW.jail"],
    # What is dropped long after its end changes nothing for anybody.
    ("fail2ban_ips", "delete"): ["OLD.ip, OLD.jail WHERE OLD.active = 1 OR OLD.whitelisted = 1"],
    ("fail2ban_jail", "insert"): ["'', NEW.name"],
    ("fail2ban_jail", "update"): ["'', NEW.name"],
    ("fail2ban_jail", "delete"): ["'', OLD.name"],
}


def create_triggers() -> None:
    separate = op.get_bind().dialect.name == "postgresql"
    for (table, event), rows in NOTES.items():
        name = f"mcban_{table}_{event}"
        body = f"BEGIN INSERT INTO mcban_change (ip, jail) SELECT {' UNION SELECT '.join(rows)};"
        if separate:
            # The body is a function of its own there; it finds our table whatever the writer's search_path is.
            op.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT "
                f"AS $$ {body} RETURN NULL; END $$"
            )
            body = f"EXECUTE FUNCTION {name}()"
        else:
            body += " END"
        op.execute(f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} FOR EACH ROW {body}")


def check_beforehand() -> None:
    """MariaDB cannot undo half of a migration: what would stop it is found out before its first step."""
    connection = op.get_bind()
    taken = set(sa.inspect(connection).get_table_names()) & {"fail2ban_jail", "fail2ban_ips", "fail2ban_conf"}
    if taken:
        raise ConfigError(
            f"the database holds {', '.join(sorted(taken))} already, not made by mcban: run `mcban db adopt`"
        )
    if connection.dialect.name == "mysql":
        op.execute("CREATE TABLE mcban_probe (id INT)")
        try:
            op.execute("CREATE TRIGGER mcban_probe_insert AFTER INSERT ON mcban_probe FOR EACH ROW BEGIN END")
        finally:
            op.execute("DROP TABLE mcban_probe")


def insert_shipped_jails() -> None:
    names = [
        "enabled",
        "name",
        "maxretry",
        "findtime",
        "bantime",
        "port",
        "filter",
        "banaction",
        "logpath",
        "max_count",
    ]
    jails = sa.table("fail2ban_jail", *(sa.column(name) for name in names))
    rows = []
    for group in ladder.SHIPPED:
        common = {
            "enabled": 1,
            "port": group.port,
            "filter": group.filter,
            "banaction": "mc-custom",
            "logpath": group.logpath,
            "max_count": ladder.DEFAULT_MAX_COUNT,
        }
        rows += [
            {
                "name": ladder.tier_name(group.name, step.suffix),
                "maxretry": step.maxretry,
                "findtime": step.findtime,
                "bantime": step.bantime,
                **common,
            }
            for step in ladder.generate(group.hits)
        ]
        name = group.name + ladder.BLACKLIST_SUFFIX
        rows.append({"name": name, "maxretry": 0, "findtime": 0, "bantime": -1, **common})
    op.bulk_insert(jails, rows)


def upgrade() -> None:
    check_beforehand()
    dialect = op.get_bind().dialect
    if dialect.name == "mysql" and not dialect.is_mariadb:  # type: ignore[attr-defined]  # those of that name have it
        MYSQL["mysql_collate"] = "utf8mb4_0900_bin"  # the same order under MySQL's own name
    create_jails()
    create_other_original_tables()
    create_tables_of_our_own()
    create_tables_of_notes()
    create_triggers()
    insert_shipped_jails()


def downgrade() -> None:
    separate = op.get_bind().dialect.name == "postgresql"
    for table, event in NOTES:
        op.execute(f"DROP TRIGGER mcban_{table}_{event}" + (f" ON {table}" if separate else ""))
        if separate:
            op.execute(f"DROP FUNCTION mcban_{table}_{event}()")
    for table in ("turn", "node", "change", "event", "position", "total", "hit"):
        op.drop_table(f"mcban_{table}")
    for table in ("conf", "ips", "jail"):
        op.drop_table(f"fail2ban_{table}")
