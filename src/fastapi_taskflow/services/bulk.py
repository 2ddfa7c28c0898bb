"""Jobs on many dead letters. Each is a task itself: stored, seen with its progress, and run again after a crash."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import InvalidTransitionError, QueueFullError, TaskNotFoundError
from fastapi_taskflow.store import Selection, TaskQuery
from fastapi_taskflow.task.context import task_progress
from fastapi_taskflow.task.definition import INNER, TaskDefinition
from fastapi_taskflow.task.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Literal

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.registry import Registry

logger = logging.getLogger("fastapi_taskflow.bulk")

AT_ONCE: Final = 50
"""Tasks that are changed together, so that they share a commit."""
MOST: Final = 100_000
"""Tasks that one job takes; a second one takes the rest."""
PAGE: Final = 500
ROOM_PAUSE: Final = 0.2
"""Seconds until a job tries again to put a task into a queue that is full."""
POLICY: Final = RetryPolicy(retries=5, delay=1.0, backoff=2.0, max_delay=30.0)
"""For a store that fails in between. What was done is not done again."""


class BulkJobs:
    """Retries or discards all dead letters that match.

    Args:
        dispatcher: Changes one.
        journal: Lists them.
        registry: Gets the functions of the jobs.
    """

    def __init__(self, dispatcher: Dispatcher, journal: Journal, registry: Registry) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._jobs = {
            verb: self._job(verb, change)
            for verb, change in (("retry", dispatcher.retry), ("discard", dispatcher.discard))
        }
        self._names = {verb: f"{INNER}bulk_{verb}" for verb in self._jobs}
        for verb, func in self._jobs.items():
            name = self._names[verb]
            registry.add(
                TaskDefinition(
                    name=name, func=func, is_async=True, code_name=f"{__name__}.{name}", retry=POLICY, persist=True,
                    requeue_on_interrupt=True, declared=True,
                )
            )  # fmt: skip

    async def begin(self, verb: Literal["retry", "discard"], selection: Selection) -> TaskRecord:
        """Begin a job on the dead letters that there are now; return the job's own task.

        Raises:
            StoreUnavailableError: If the store did not commit in time.
        """
        until = clock.now() if selection.until is None else selection.until
        entry = self._dispatcher.prepare(self._jobs[verb], (replace(selection, until=until),), {}, source="manual")
        await self._dispatcher.enqueue(entry)
        return entry.record

    def _job(
        self, verb: str, change: Callable[[str], Awaitable[Any]]
    ) -> Callable[[Selection], Awaitable[dict[str, int]]]:
        async def bulk_job(selection: Selection) -> dict[str, int]:
            ids = await self._ids(selection)
            counts = {"done": 0, "skipped": 0}
            for start in range(0, len(ids), AT_ONCE):
                task_progress(start, len(ids), f"{verb}: {start} of {len(ids)}")
                for done in await asyncio.gather(*(_changed(change, each) for each in ids[start : start + AT_ONCE])):
                    counts["done" if done else "skipped"] += 1
            task_progress(1.0, f"{verb}: {counts['done']} done, {counts['skipped']} skipped")
            return counts

        return bulk_job

    async def _ids(self, selection: Selection) -> Sequence[str]:
        """Return the ids of all that match, oldest first: changing while reading would move the pages."""
        query = TaskQuery(
            dead=True, func_name=selection.func_name, queue=selection.queue, tag=selection.tag, text=selection.text,
            since=selection.since, until=selection.until, oldest_first=True, limit=PAGE,
        )  # fmt: skip
        ids: list[str] = []
        names = frozenset(self._names.values())
        while len(ids) < MOST:
            page = await self._journal.list(query)
            ids += [record.task_id for record in page.records if record.func_name not in names]
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)
        return ids[:MOST]


async def _changed(change: Callable[[str], Awaitable[Any]], task_id: str) -> bool:
    while True:
        try:
            await change(task_id)
        except QueueFullError:
            await asyncio.sleep(ROOM_PAUSE)
        except (InvalidTransitionError, TaskNotFoundError) as error:
            logger.info("task %s is left as it is: %s", task_id, error)
            return False
        else:
            return True
