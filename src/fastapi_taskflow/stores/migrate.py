"""Brings the schema up to date with the migrations shipped in this package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from fastapi_taskflow.errors import SchemaVersionError, StoreError
from fastapi_taskflow.stores.schema import HEAD, KNOWN_REVISIONS, VERSION_TABLE

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK: Final = 0x7461736B666C6F77
"""The advisory lock of PostgreSQL by which one process at a time migrates."""


def ensure_schema(connection: sa.Connection, where: str, *, migrate: bool) -> None:
    """Make sure that the schema is the newest one this code knows.

    Alembic is imported only if there is something to do: it costs a tenth of a second. Two processes that come at
    once are kept apart by a lock for the whole transaction; the second one finds the work done.

    Args:
        connection: In no transaction. With SQLite one whose transactions take the write lock as they begin.
        where: The database, for messages.
        migrate: Whether to change the schema; otherwise an old one is an error.

    Raises:
        SchemaVersionError: If the schema is newer than this code.
        StoreError: If it is missing or old, and ``migrate`` is false.
    """
    if _revision(connection, where) == HEAD:
        return
    if not migrate:
        msg = f"the schema of {where!r} is missing or old, and migrate is off: run the migrations up to {HEAD} first"
        raise StoreError(msg)
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        if _revision(connection, where) != HEAD:
            _upgrade(connection)


def _revision(connection: sa.Connection, where: str) -> str | None:
    revision: str | None = None
    opened = not connection.in_transaction()
    if sa.inspect(connection).has_table(VERSION_TABLE):
        revision = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))).scalar()
    if opened:
        connection.rollback()
    if revision is not None and revision not in KNOWN_REVISIONS:
        msg = f"the schema of {where!r} has revision {revision}, this version knows up to {HEAD}: upgrade the package"
        raise SchemaVersionError(msg)
    return revision


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
