"""Waits until a task has ended, wherever it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import TaskNotFoundError, WaitTimeoutError

if TYPE_CHECKING:
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.task.record import TaskRecord

POLL_FIRST: Final = 0.05
POLL_MOST: Final = 0.5
"""Seconds between two looks at the store, while another instance has the task."""


async def wait_for_end(journal: Journal, task_id: str, timeout: float | None) -> TaskRecord:  # noqa: ASYNC109 - the API
    """Return the record of a task once it has ended and that is stored.

    Args:
        journal: Knows the tasks.
        task_id: Which one.
        timeout: Seconds to wait at most; None is without limit.

    Raises:
        TaskNotFoundError: If there is no such task.
        WaitTimeoutError: If it has not ended by then.
        StoreError: If the store fails.
    """
    try:
        async with asyncio.timeout(timeout) as limit:
            return await _ended(journal, task_id)
    except TimeoutError:
        if not limit.expired():
            raise
        msg = f"task {task_id} has not ended within {timeout:g} s"
        raise WaitTimeoutError(msg) from None


async def _ended(journal: Journal, task_id: str) -> TaskRecord:
    pause = POLL_FIRST
    while True:
        entry = journal.live.get(task_id)
        if entry is not None and not entry.lost and not entry.withdrawn:
            entry.ended = entry.ended or asyncio.Event()
            if not entry.record.finished:
                await entry.ended.wait()
            commit = journal.commit_of(task_id)
            if commit is not None:
                await commit.wait()
            continue
        record = await journal.store.get(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        if record.finished:
            return record
        await asyncio.sleep(pause)
        pause = min(2 * pause, POLL_MOST)
