"""The short form of the chaos harness: a few kills on each database, with one worker and with several."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from fastapi_taskflow import TaskManager
from fastapi_taskflow.errors import ConfigurationError
from tests.chaos.config import Config
from tests.chaos.harness import LOCAL_POSTGRESQL, POSTGRESQL, run
from tests.chaos.report import text
from tests.programs import missing

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def require_postgresql() -> None:
    """Skip where no server answers, and fail in CI."""
    import asyncpg

    server = os.environ.get(POSTGRESQL, LOCAL_POSTGRESQL)
    try:
        TaskManager(snapshot_backend=server)
    except ConfigurationError as error:
        pytest.skip(f"tasks cannot be kept in PostgreSQL yet: {error}")
    url = make_url(server).set(drivername="postgresql")
    try:
        connection = await asyncpg.connect(url.render_as_string(hide_password=False), timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        missing(f"no PostgreSQL server answers at {url.host}:{url.port}: {error!r}")
    await connection.close()


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (2, 2)], ids=["one worker", "several workers"])
@pytest.mark.parametrize("db", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def test_nothing_is_lost_or_runs_twice_at_once(db: str, workers: int, seed: int, tmp_path: Path) -> None:
    """SIGKILL, SIGTERM, SIGSTOP, restarts and a locked store under load; the checker finds nothing."""
    if db == "postgresql":
        await require_postgresql()
    config = Config(tmp_path, db=db, workers=workers, kills=4, seed=seed, rate=40.0, seconds=120.0)
    async with asyncio.timeout(300):
        result = await run(config)
    assert result.problems() == [], text(result)
