"""The nightly job: deletes what nobody will fetch any more."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from fastapi_taskflow import task_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DAY: Final = 86_400.0
FOLDERS: Final = ("uploads", "thumbnails", "reports", "outbox")


@task_manager.task(requeue_on_interrupt=True)
def nightly_cleanup(max_age: float = DAY) -> None:
    """Delete the shop's working files that are older than ``max_age`` seconds."""
    oldest = time.time() - max_age
    for name in FOLDERS:
        old = [path for path in settings.folder(name).iterdir() if path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        task_log(f"{name}: {len(old)} file(s) deleted")


@asynccontextmanager
async def nightly_job() -> AsyncIterator[None]:
    """Enqueue the job now and then, as long as the shop runs.

    A loop of its own stands in for a scheduler, which the package does not have yet.
    """
    loop = asyncio.create_task(_every_night())
    try:
        yield
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def _every_night() -> None:
    while True:
        await asyncio.sleep(settings.nightly_every)
        await task_manager.enqueue(nightly_cleanup, tags=["nightly"])
