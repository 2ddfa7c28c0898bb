"""A job that is done again and again, whatever happens to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi_taskflow.errors import StoreError, StoreUnavailableError
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.services.retention import BATCH, Retention

if TYPE_CHECKING:
    import pytest


async def test_a_failing_job_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The store's trouble is a warning, anything else comes with its trace."""
    done = asyncio.Event()
    errors: list[Exception] = [StoreError("locked"), StoreError("locked"), RuntimeError("odd"), RuntimeError("odd")]

    async def job() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    loop = Loop("sweep", job, interval=0.0)
    loop.start()
    async with asyncio.timeout(5):
        await done.wait()
    await loop.stop()
    await loop.stop()
    assert "sweep: locked; it is tried again" in caplog.text
    assert "RuntimeError: odd" in caplog.text


async def test_an_outage_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What fails again and again for one reason is told once, and so is its end."""
    caplog.set_level("INFO")
    done = asyncio.Event()
    errors: list[Exception] = [StoreUnavailableError("locked")] * 50
    good = 3

    async def job() -> None:
        nonlocal good
        if errors:
            raise errors.pop()
        good -= 1
        if not good:
            done.set()

    loop = Loop("sweep", job, interval=0.0)
    loop.start()
    async with asyncio.timeout(5):
        await done.wait()
    await loop.stop()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "sweep: locked; it is tried again every 0 s"), ("INFO", "sweep works again")]


class PrunedStore:
    """Has a number of old records."""

    def __init__(self, old: int) -> None:
        self.old = old
        self.calls: list[int] = []

    async def prune(self, *, before: float, limit: int) -> int:
        """Delete some."""
        assert before > 0
        gone = min(self.old, limit)
        self.old -= gone
        self.calls.append(gone)
        return gone


async def test_retention_deletes_in_bounded_batches() -> None:
    """Until nothing old is left."""
    store = PrunedStore(BATCH + 3)
    retention = Retention(store.prune, "record(s)", days=1)
    assert await retention.prune() == BATCH + 3
    assert store.calls == [BATCH, 3, 0]
