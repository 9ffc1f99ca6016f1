"""A database of the original's shape, as its administrators have it after some years."""

from __future__ import annotations

from sqlalchemy import text

from mcban.store.database import Database

LOG = "/var/mailcleaner/log/exim/reject.log"

TABLES = {
    "mysql": """
CREATE TABLE fail2ban_jail (id INT NOT NULL AUTO_INCREMENT, enabled TINYINT(1) DEFAULT 1, name VARCHAR(150),
    maxretry INT, findtime INT, bantime INT, port VARCHAR(50), filter VARCHAR(50), banaction VARCHAR(50),
    logpath VARCHAR(250), max_count INT, send_mail TINYINT(1) DEFAULT 0, send_mail_bl TINYINT(1) DEFAULT 1,
    PRIMARY KEY (id)) {options};
CREATE TABLE fail2ban_ips (id INT NOT NULL AUTO_INCREMENT, ip VARCHAR(150), count INT, active TINYINT(1),
    blacklisted TINYINT(1) DEFAULT 0, whitelisted TINYINT(1) DEFAULT 0, jail VARCHAR(20),
    last_hit TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, host VARCHAR(150),
    PRIMARY KEY (id)) {options};
CREATE TABLE fail2ban_conf (id INT NOT NULL AUTO_INCREMENT, src_email VARCHAR(150) NOT NULL,
    src_name VARCHAR(150) NOT NULL, dest_email VARCHAR(150) NOT NULL, chain VARCHAR(150) NOT NULL,
    PRIMARY KEY (id)) {options}
""",
    "sqlite": """
CREATE TABLE fail2ban_jail (id INTEGER PRIMARY KEY, enabled BOOLEAN DEFAULT 1, name VARCHAR(150),
    maxretry INT, findtime INT, bantime INT, port VARCHAR(50), filter VARCHAR(50), banaction VARCHAR(50),
    logpath VARCHAR(250), max_count INT, send_mail BOOLEAN DEFAULT 0, send_mail_bl BOOLEAN DEFAULT 1);
CREATE TABLE fail2ban_ips (id INTEGER PRIMARY KEY, ip VARCHAR(150), count INT, active BOOLEAN,
    blacklisted BOOLEAN DEFAULT 0, whitelisted BOOLEAN DEFAULT 0, jail VARCHAR(20),
    last_hit TIMESTAMP DEFAULT CURRENT_TIMESTAMP, host VARCHAR(150));
CREATE TABLE fail2ban_conf (id INTEGER PRIMARY KEY, src_email VARCHAR(150), src_name VARCHAR(150),
    dest_email VARCHAR(150), chain VARCHAR(150))
""",
}
LADDER = (
    ("1d", 5, 3600, 86400),
    ("1w", 10, 172800, 604800),
    ("1m", 15, 1209600, 2592000),
    ("1y", 20, 5356800, 20563200),
)


def make(url: str, options: str = "ENGINE=InnoDB DEFAULT CHARSET=latin1") -> None:
    """The three tables with the jails of one service, enabled, and the settings for mail."""
    rest = f"'25,465,587', 'mc-exim-filter', 'mc-ipset', '{LOG}', -1)"
    rows = [
        f"(1, 'mc-exim-{suffix}', {hits}, {findtime}, {bantime}, {rest}" for suffix, hits, findtime, bantime in LADDER
    ]
    rows.append(f"(1, 'mc-exim-bl', 1, 1, -1, {rest}")
    database = Database(url)
    statements = TABLES[database.engine.dialect.name].format(options=options).split(";")
    statements.append(
        "INSERT INTO fail2ban_jail (enabled, name, maxretry, findtime, bantime, port, filter, banaction, logpath,"
        f" max_count) VALUES {', '.join(rows)}"
    )
    statements.append(
        "INSERT INTO fail2ban_conf (src_email, src_name, dest_email, chain)"
        " VALUES ('f2b@example.com', 'Müller', 'postmaster@example.com', 'INPUT')"
    )
    execute(database, *statements)
    database.dispose()


def add(url: str, *rows: tuple[object, ...]) -> None:
    """Rows of `fail2ban_ips`: ip, jail, count, active, blacklisted, whitelisted, last_hit."""
    database = Database(url)
    with database.engine.begin() as connection:
        for row in rows:
            connection.execute(
                text(
                    "INSERT INTO fail2ban_ips (ip, jail, count, active, blacklisted, whitelisted, last_hit, host)"
                    " VALUES (:ip, :jail, :count, :active, :black, :white, :hit, 'gate1')"
                ),
                dict(zip(("ip", "jail", "count", "active", "black", "white", "hit"), row, strict=True)),
            )
    database.dispose()


def execute(database: Database, *statements: str) -> None:
    """Plain SQL."""
    with database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
