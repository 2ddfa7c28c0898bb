"""Deletes old finished records."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.services.loop import Loop

if TYPE_CHECKING:
    from fastapi_taskflow.store import Store

logger = logging.getLogger("fastapi_taskflow.retention")

EVERY: Final = 6 * 3600.0
BATCH: Final = 500
PAUSE: Final = 0.02
"""Seconds between two batches, so that requests get their turn at the store."""


class Retention:
    """Prunes at startup and every six hours, in bounded batches.

    Args:
        store: What to prune.
        days: Records that ended longer ago are deleted; interrupted, pending and running ones never are.
    """

    def __init__(self, store: Store, *, days: float) -> None:
        self._store = store
        self._days = days
        self._loop = Loop("retention", self.prune, interval=EVERY)

    async def start(self) -> None:
        """Prune soon, and then every six hours."""
        self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def prune(self) -> int:
        """Delete what is too old; return how many records."""
        before = clock.now() - self._days * 86_400
        deleted = 0
        while count := await self._store.prune(before=before, limit=BATCH):
            deleted += count
            await asyncio.sleep(PAUSE)
        if deleted:
            logger.info("%d record(s) older than %g days deleted", deleted, self._days)
        return deleted
