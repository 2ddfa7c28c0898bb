"""Alembic's entry point. It leaves the application's logging and its own Alembic table alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from fastapi_taskflow.stores.schema import VERSION_TABLE, metadata


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=lambda name, kind, _: kind != "table" or (name or "").startswith("taskflow_"),
    )
    with context.begin_transaction():
        context.run_migrations()


_given: sa.Connection | None = context.config.attributes.get("connection")
if _given is not None:
    _run(_given)
else:
    # From Alembic's own command line, with ``sqlalchemy.url`` set.
    _engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url") or "")
    with _engine.begin() as _connection:
        _run(_connection)
