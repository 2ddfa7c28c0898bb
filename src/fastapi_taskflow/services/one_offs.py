"""Adds tasks that run once at a certain time; replaces, cancels and lists those that wait, wherever they wait."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.entry import Entry, never_called, unknown_definition
from fastapi_taskflow.errors import StoreError, StoreUnavailableError
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.once import PREFIX, once_id, scheduled_once
from fastapi_taskflow.task.record import LIVE, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.task.once import ScheduledOnce
    from fastapi_taskflow.task.placing import Placing
    from fastapi_taskflow.task.record import TaskRecord

logger = logging.getLogger("fastapi_taskflow.schedules")

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at what others have taken from this instance."""

TRIES: Final = 20
PAGE: Final = 500
SOURCE: Final = "scheduled"
NEVER_RAN: Final = frozenset({TaskStatus.CANCELLED, TaskStatus.REJECTED})
BRIEFLY: Final = 0.05
TAKEN: Final = "taken:"
"""Settings by which an instance is told that a task is not its own any more: its id and the task's follow."""


class OneOffs:
    """Tasks that run once at a certain time.

    They are ordinary tasks with a time: whoever owns one waits for it, and recovery takes it over if its owner dies.
    A key is part of the task's ``schedule``, so an index finds the newest task with it.

    Args:
        journal: Where tasks are found.
        dispatcher: Takes new tasks, and ends those that wait.
    """

    def __init__(self, journal: Journal, dispatcher: Dispatcher) -> None:
        self._journal = journal
        self._dispatcher = dispatcher
        self._unsure: dict[str, TaskRecord] = {}
        self._under_way: set[asyncio.Task[bool]] = set()
        self._loop = Loop("one-offs", self._look, interval=LOOK_EVERY, first=LOOK_EVERY)

    async def start(self) -> None:
        """Begin to look at what others have taken, where there can be others."""
        if self._journal.store.persistent:
            self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def add(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        placing: Placing,
        *,
        run_key: str | None,
        replace: bool,
    ) -> str:
        """Add a task, or replace the one with its key; return the id of the one that there is then.

        Raises:
            TaskArgumentError: If an argument cannot be stored.
            ConfigurationError: If an option has the name of an argument.
            StoreUnavailableError: If the store did not commit in time.
        """
        if run_key is None:
            placing = dataclasses.replace(placing, schedule=PREFIX)
            return await self._dispatcher.enqueue(self._dispatcher.prepare(func, args, kwargs, placing, source=SOURCE))
        placing = dataclasses.replace(placing, schedule=PREFIX + run_key, idempotency_key=run_key)
        for _ in range(TRIES):
            before = await self._newest(run_key)
            if before is not None and not replace and before.status not in NEVER_RAN:
                return before.task_id
            placing = dataclasses.replace(placing, task_id=once_id(run_key, before))
            entry = self._dispatcher.prepare(func, args, kwargs, placing, source=SOURCE)
            if before is not None and entry.record.created_at <= before.created_at:
                # That one was added by a clock that is ahead of this one; the newest must be this one.
                entry.record = entry.record._replace(created_at=before.created_at + 0.001)
            if before is not None and before.status is TaskStatus.PENDING:
                added = await self._seen_through(self._end(before, f"replaced by task {entry.record.task_id}", entry))
            else:
                await self._dispatcher.enqueue(entry)
                added = entry.admitted or not replace  # somebody else was first, with the same id
            if added:
                return entry.record.task_id
        msg = f"the task with run_key={run_key!r} was replaced by others again and again; try again"
        raise StoreUnavailableError(msg)

    async def cancel(self, key: str) -> bool:
        """Cancel the task with this key, or this id, if it waits; return whether it was cancelled.

        Raises:
            StoreUnavailableError: If the store did not commit in time.
        """
        for _ in range(TRIES):
            found = await self._newest(key) or await self._journal.get(key)
            if found is None or found.status is not TaskStatus.PENDING or not (found.schedule or "").startswith(PREFIX):
                return False
            if await self._seen_through(self._end(found, "cancelled before it started")):
                return True
        return False

    async def _seen_through(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Await ``work``, which goes on if the caller is cancelled: nobody else would run what it has taken."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _end(self, record: TaskRecord, reason: str, instead: Entry | None = None) -> bool:
        """End a task that waits, and add ``instead`` in its place; return False if somebody else was faster."""
        entry = self._journal.live.get(record.task_id)
        if entry is not None and not entry.lost:
            if entry.record.status is not TaskStatus.PENDING:
                return False
            await self._dispatcher.end_waiting(entry, reason, instead=instead)
            return instead is None or not instead.lost
        if record.owner == self._dispatcher.owner:
            await asyncio.sleep(BRIEFLY)  # another call here is just taking it
            return False
        taken = await self._take(record, of=record.owner, owner=self._dispatcher.owner)
        if taken is None:
            return False
        entry = Entry(taken, unknown_definition(taken), never_called, (), {})
        entry.committed, entry.admitted = taken, True
        self._journal.live[taken.task_id] = entry
        try:
            await self._dispatcher.end_waiting(entry, reason, instead=instead)
        finally:
            if entry.record.status is TaskStatus.PENDING:
                self._journal.give_up(entry)
                await self._let_go(taken)
            else:
                await self._tell(record)
        return instead is None or not instead.lost

    async def _tell(self, record: TaskRecord) -> None:
        """Let the former owner know; without it that one finds out when it begins."""
        try:
            await self._journal.store.set_meta(f"{TAKEN}{record.owner}:{record.task_id}", "")
        except StoreError as error:
            logger.warning("the owner of task %s does not know that it was taken: %s", record.task_id, error)

    async def _take(self, record: TaskRecord, *, of: str, owner: str) -> TaskRecord | None:
        try:
            return await self._journal.store.take(record.task_id, of=of, owner=owner)
        except StoreError:
            # It may have been done all the same.
            self._unsure[record.task_id] = record
            raise

    async def _let_go(self, record: TaskRecord) -> None:
        """Leave a task that this instance owns and does not hold to the recovery, in whatever instance."""
        if record.task_id not in self._journal.live:
            await self._take(record, of=self._dispatcher.owner, owner="")

    async def waiting(self) -> Sequence[ScheduledOnce]:
        """Return all that wait, the first due first.

        Raises:
            StoreError: If the store fails.
        """
        query = TaskQuery(schedule=f"{PREFIX}*", statuses=LIVE, oldest_first=True, limit=PAGE)
        records: list[TaskRecord] = []
        while True:
            page = await self._journal.list(query)
            records += (record for record in page.records if record.status is TaskStatus.PENDING)
            if page.next_cursor is None:
                break
            query = dataclasses.replace(query, cursor=page.next_cursor)
        return sorted(map(scheduled_once, records), key=lambda each: each.run_at)

    async def _newest(self, run_key: str) -> TaskRecord | None:
        page = await self._journal.list(TaskQuery(schedule=PREFIX + run_key, limit=1))
        for record in page.records:
            entry = self._journal.live.get(record.task_id)
            return entry.record if entry is not None and not entry.lost else record
        return None

    async def _look(self) -> None:
        """Forget what others have taken from here, and leave to others what was taken by mistake."""
        unsure, self._unsure = self._unsure, {}
        for record in unsure.values():
            await self._let_go(record)
        store = self._journal.store
        notices = await store.metas(TAKEN)
        if not notices:
            return
        living = {each.instance_id for each in await store.instances()}
        for key in notices:
            owner, _, task_id = key.removeprefix(TAKEN).partition(":")
            entry = self._journal.live.get(task_id)
            if owner == self._dispatcher.owner and entry is not None and entry.record.status is TaskStatus.PENDING:
                self._journal.give_up(entry)
                entry.leave()
            if owner == self._dispatcher.owner or owner not in living:
                await store.drop_meta(key)
