"""Deletes what is old: finished records, and acts in the audit log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_taskflow import clock
from fastapi_taskflow.services.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Awaitable

logger = logging.getLogger("fastapi_taskflow.retention")

EVERY: Final = 6 * 3600.0
BATCH: Final = 500
PAUSE: Final = 0.02
"""Seconds between two batches, so that requests get their turn at the store."""


class Prune(Protocol):
    """Deletes a bounded number of old things."""

    def __call__(self, *, before: float, limit: int) -> Awaitable[int]:
        """Delete at most ``limit`` that are from before; return how many."""


class Retention:
    """Prunes at startup and every six hours, in bounded batches.

    Args:
        prune: Deletes a batch.
        what: What it deletes, for the log.
        days: What is older goes.
    """

    def __init__(self, prune: Prune, what: str, *, days: float) -> None:
        self._prune = prune
        self._what = what
        self._days = days
        self._loop = Loop("retention", self.prune, interval=EVERY)

    async def start(self) -> None:
        """Prune soon, and then every six hours."""
        self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def prune(self) -> int:
        """Delete what is too old; return how many."""
        before = clock.now() - self._days * 86_400
        deleted = 0
        while count := await self._prune(before=before, limit=BATCH):
            deleted += count
            await asyncio.sleep(PAUSE)
        if deleted:
            logger.info("%d %s older than %g days deleted", deleted, self._what, self._days)
        return deleted
