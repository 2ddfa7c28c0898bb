"""The store as the harness sees it: by its tables, beside the product's own code. Databases differ by their URL."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests import postgresql as server
from tests.chaos.facts import SECOND, Orphan, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

LOCKS: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "LOCK TABLE taskflow_tasks IN EXCLUSIVE MODE"}
WAIT: Final = 30.0

ALL = sa.text("SELECT task_id, func_name, status, attempt, owner, end_time, error_type FROM taskflow_tasks")
OWNERS = sa.text("SELECT instance_id, pid, pid_started FROM taskflow_instances")
OPEN = sa.text("SELECT COUNT(*) FROM taskflow_tasks WHERE status IN ('pending', 'running')")
LEFT = sa.text(
    "SELECT t.task_id, t.run_at FROM taskflow_tasks t JOIN taskflow_instances i ON t.owner = i.instance_id "
    "WHERE t.status IN ('pending', 'running') AND i.pid IN :pids"
).bindparams(sa.bindparam("pids", expanding=True))


class Database:
    """Reads the tables, and locks them.

    Args:
        url: The URL that the app gets too.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        # A reader that closes last would tidy up the log that a killed writer has left; that is for the product to do.
        self._reader = _engine(f"{url.replace(':///', ':///file:')}?mode=ro&uri=true" if _is_sqlite(url) else url)
        # The clocks of a host run at the same pace for the length of a run.
        self._offset = time.monotonic_ns() - time.time_ns()

    async def rows(self) -> Mapping[str, Row]:
        """Return all tasks, by id."""
        async with self._reader.connect() as connection:
            owners = (await connection.execute(OWNERS)).all()
            found = (await connection.execute(ALL)).all()
        live = {owner.instance_id for owner in owners if _started(owner.pid) == owner.pid_started}
        return {
            row.task_id: Row(
                row.task_id, row.func_name, row.status, row.attempt, row.owner in live,
                None if row.end_time is None else self._monotonic(row.end_time), row.error_type,
            )
            for row in found
        }  # fmt: skip

    async def orphans(self, pids: Collection[int]) -> tuple[Orphan, ...]:
        """Return what these processes have left pending or running."""
        async with self._reader.connect() as connection:
            found = (await connection.execute(LEFT, {"pids": list(pids)})).all()
        return tuple(Orphan(row.task_id, self._monotonic(row.run_at) if row.run_at else 0) for row in found)

    async def open_tasks(self) -> int:
        """Return how many tasks are pending or running."""
        async with self._reader.connect() as connection:
            return int((await connection.execute(OPEN)).scalar_one())

    async def lock(self, seconds: float) -> None:
        """Keep everybody else from writing for that long."""
        async with self._engine.connect() as connection:
            await connection.exec_driver_sql(LOCKS[self._engine.dialect.name])
            await asyncio.sleep(seconds)
            await connection.rollback()

    async def close(self) -> None:
        """Let go of it."""
        await self._engine.dispose()
        await self._reader.dispose()

    def _monotonic(self, wall: float) -> int:
        return int(wall * SECOND) + self._offset


def _is_sqlite(url: str) -> bool:
    return sa.make_url(url).get_backend_name() == "sqlite"


def _engine(url: str) -> AsyncEngine:
    options: dict[str, Any] = {"timeout": WAIT, "isolation_level": None} if _is_sqlite(url) else {}
    return create_async_engine(url, poolclass=NullPool, connect_args=options)


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


@contextlib.asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Database]:
    """Give a database in a file of its own."""
    database = Database(f"sqlite+aiosqlite:///{folder / 'tasks.db'}")
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def postgresql() -> AsyncIterator[Database]:
    """Give a database of its own on the server of the tests, and drop it at the end."""
    stack = contextlib.ExitStack()
    url = await asyncio.to_thread(stack.enter_context, server.database())
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()
        await asyncio.to_thread(stack.close)
