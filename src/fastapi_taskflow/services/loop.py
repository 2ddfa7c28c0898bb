"""A job that is done again and again while the manager runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("fastapi_taskflow.services")


class Loop:
    """Does ``job`` every ``interval`` seconds, the first time after ``first`` seconds. A failure is logged, not fatal.

    Of failures that follow each other only the first is logged, and the end of them: an outage must not flood the log.

    Args:
        name: For the log.
        job: What to do.
        interval: Seconds from the end of one run to the next.
        first: Seconds before the first run.
    """

    def __init__(self, name: str, job: Callable[[], Awaitable[Any]], *, interval: float, first: float = 0.0) -> None:
        self._name = name
        self._job = job
        self._interval = interval
        self._first = first
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._go_on(), name=f"taskflow-{self._name}")

    async def stop(self) -> None:
        """End, in the middle of the job if need be."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _go_on(self) -> None:
        await asyncio.sleep(self._first)
        failing: type[Exception] | None = None
        while True:
            try:
                await self._job()
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                if not isinstance(error, failing or ()):
                    self._tell(error)
                failing = type(error)
            else:
                if failing is not None:
                    logger.info("%s works again", self._name)
                failing = None
            await asyncio.sleep(self._interval)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            logger.warning("%s: %s; it is tried again every %g s", self._name, error, self._interval)
        else:
            logger.error("%s failed; it is tried again every %g s", self._name, self._interval, exc_info=error)
