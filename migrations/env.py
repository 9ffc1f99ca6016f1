"""Alembic's entry: runs the migrations on the connection that `mcban db upgrade` (or a developer) hands over.

For a developer: `alembic -x url=sqlite:///dev.sqlite revision --autogenerate -m "..."` from the checkout.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from mcban.store.database import Database
from mcban.store.tables import METADATA


def is_ours(name: str | None, kind: str, parents: Any) -> bool:
    """Whether a table is one that the migrations speak of: an adopted database has others beside ours."""
    ours = name is not None and name.startswith(("fail2ban_", "mcban_")) and not name.startswith("mcban_adopted_")
    return kind != "table" or ours


def run(connection: Connection) -> None:
    # render_as_batch: SQLite alters a table by copying it.
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        include_name=is_ours,
        render_as_batch=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url") or context.config.get_main_option("sqlalchemy.url", "")
    with Database(url).engine.connect() as connection:
        run(connection)
        connection.commit()
