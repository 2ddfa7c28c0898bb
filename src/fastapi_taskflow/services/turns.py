"""Lets the tasks of a schedule with ``overlap="queue"`` run one after another, wherever they run."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.task.record import LIVE, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.schedule import Schedules

logger = logging.getLogger("fastapi_taskflow.schedules")

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at a task that runs in another instance."""


class Turns:
    """Holds such a task back until all that were added before it have ended. Told of events, for those that end here.

    Args:
        schedules: All of them.
        journal: Where tasks are found.
        go: Called with each whose turn it is.
    """

    def __init__(self, schedules: Schedules, journal: Journal, go: Callable[[Entry], None]) -> None:
        self._schedules = schedules
        self._journal = journal
        self._go = go
        self._waiting: dict[asyncio.Task[None], str] = {}
        self._ended: dict[str, asyncio.Event] = {}

    def has(self, record: TaskRecord) -> bool:
        """Tell whether a task has to wait for its turn."""
        schedule = self._schedules.get(record.schedule) if record.schedule is not None else None
        return schedule is not None and schedule.overlap == "queue" and record.source == "scheduled"

    async def enter(self, entry: Entry) -> None:
        """Have a new task run, at once if it is its turn.

        Raises:
            StoreError: If the store fails.
        """
        if not self.has(entry.record) or await self._is_next(entry, entry.record.schedule or ""):
            self._go(entry)
        else:
            self.submit(entry)

    def submit(self, entry: Entry) -> None:
        """Have a task that `has` to wait run when it is its turn."""
        name = entry.record.schedule or ""
        work = asyncio.get_running_loop().create_task(self._in_turn(entry, name), name=f"taskflow-turn-{name}")
        self._waiting[work] = name
        work.add_done_callback(self._forget)

    def _forget(self, work: asyncio.Task[None]) -> None:
        name = self._waiting.pop(work)
        if name not in self._waiting.values():
            self._ended.pop(name, None)

    async def stop(self) -> None:
        """Leave what waits in the store, for the next start."""
        waiting = set(self._waiting)
        for work in waiting:
            work.cancel()
        if waiting:
            await asyncio.wait(waiting)

    def observe(self, event: TaskEvent) -> None:
        """Look again at those that wait for a task that has ended."""
        if event.kind is EventKind.FINISHED and event.record.schedule in self._ended:
            self._ended[event.record.schedule].set()

    async def _in_turn(self, entry: Entry, name: str) -> None:
        while entry.record.status is TaskStatus.PENDING and not entry.lost:
            ended = self._ended.setdefault(name, asyncio.Event())
            ended.clear()
            try:
                if await self._is_next(entry, name):
                    self._go(entry)
                    return
            except StoreError as error:
                logger.warning("task %s waits for its turn: %s", entry.record.task_id, error)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await ended.wait()
            except TimeoutError:
                continue

    async def _is_next(self, entry: Entry, name: str) -> bool:
        # The oldest ones: the own task is among them, unless several must end before it.
        page = await self._journal.list(TaskQuery(schedule=name, statuses=LIVE, oldest_first=True, limit=2))
        first = [record for record in page.records if not self._has_ended(record)][:1]
        return not first or first[0].task_id == entry.record.task_id

    def _has_ended(self, record: TaskRecord) -> bool:
        """Tell whether a task has ended here, though the store does not know it yet."""
        entry = self._journal.live.get(record.task_id)
        return entry is not None and entry.record.finished
