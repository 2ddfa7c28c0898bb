"""The shop's task manager. Every module that declares or adds tasks imports it from here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from examples.shop.settings import settings
from fastapi_taskflow import QueueConfig, TaskManager, task_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi_taskflow import TaskContext

SLOW: Final = 5.0

task_manager = TaskManager(
    snapshot_db=settings.db,
    requeue_pending=True,
    queues={
        # Reports keep a core busy: few at a time, and whoever orders too many gets 429.
        "reports": QueueConfig(concurrency=2, max_size=50),
        # What the partner bears.
        "webhooks": QueueConfig(concurrency=10, rate_limit="50/s"),
    },
    log_file=settings.data / "shop.log",
    retention_days=7,
)


@task_manager.middleware
async def tell_slow_ones(context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
    """Leave a line where an attempt took longer than it should."""
    began = time.perf_counter()
    try:
        return await call_next()
    finally:
        seconds = time.perf_counter() - began
        if seconds > SLOW:
            task_log(f"{context.func_name} took {seconds:.1f} s", level="warning")
