"""The short form of the chaos harness: a few kills on each database, with one worker and with several."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests import postgresql
from tests.chaos.config import Config
from tests.chaos.harness import run
from tests.chaos.report import text

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest) -> str:
    """Return the name of a database that is there."""
    name: str = request.param
    if name == "postgresql":
        postgresql.require_server()
    return name


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (2, 2)], ids=["one worker", "several workers"])
async def test_nothing_is_lost_or_runs_twice_at_once(db: str, workers: int, seed: int, tmp_path: Path) -> None:
    """SIGKILL, SIGTERM, SIGSTOP, restarts and a locked store under load; the checker finds nothing."""
    config = Config(tmp_path, db=db, workers=workers, kills=4, seed=seed, rate=40.0, seconds=240.0)
    async with asyncio.timeout(400):
        result = await run(config)
    assert result.problems() == [], text(result)
