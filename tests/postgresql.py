"""A real PostgreSQL for the tests that want one, each with a database of its own.

The server is that of ``TASKFLOW_TEST_POSTGRESQL``, the URL of a database whose user may create others, or the one on
this machine. Where none answers the tests are skipped, and fail in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_taskflow.stores.schema import metadata
from tests.programs import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "TASKFLOW_TEST_POSTGRESQL"
LOCAL: Final = "postgresql+asyncpg://postgres@127.0.0.1:5432/test"
ANSWER_WITHIN: Final = 5.0


def server_url() -> str:
    """Return the URL of the server to test with."""
    return os.environ.get(VARIABLE, LOCAL)


def run(database: str, *statements: str) -> list[Any]:
    """Run statements, each in a transaction of its own; return the rows of the last one. Not from within a loop."""

    async def work() -> list[Any]:
        engine = create_async_engine(database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        rows: list[Any] = []
        async with asyncio.timeout(60), engine.connect() as connection:
            for statement in statements:
                result = await connection.exec_driver_sql(statement)
                rows = list(result) if result.returns_rows else []
        return rows

    return asyncio.run(work())


def require_server() -> str:
    """Return the server's URL; skip the test where it does not answer, or fail it in CI."""
    url = server_url()
    try:
        run(url, "SELECT 1")
    except (OSError, TimeoutError, sa.exc.SQLAlchemyError) as error:
        missing(f"no PostgreSQL answers at {sa.make_url(url).render_as_string()} ({VARIABLE}): {error!r}")
    return url


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Make a database, give its URL, and drop it at the end, whoever is still connected."""
    server = require_server()
    name = f"taskflow_test_{uuid.uuid4().hex[:12]}"
    run(server, f"CREATE DATABASE {name}")
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        run(server, f"DROP DATABASE {name} WITH (FORCE)")


def emptied(url: str) -> str:
    """Delete what the tables hold, if they are there; return the URL."""
    names = [row[0] for row in run(url, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'taskflow_%%'")]
    ours = [name for name in names if name in metadata.tables]
    run(url, *(f"DELETE FROM {name}" for name in ours))  # noqa: S608 - our own names
    return url
