"""Holds the callback of a group back until all members have succeeded, wherever they run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import InvalidTransitionError, StoreError, TaskArgumentError, TaskNotFoundError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.follow import ALARM, group_size, member_id, steps_of, waits_for_group
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.record import LIVE, Resolution, TaskRecord, TaskStatus
from fastapi_taskflow.task.step import awaits_result, filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.following import Following
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.results import Results

logger = logging.getLogger("fastapi_taskflow.groups")

LOOK_FIRST: Final = 0.25
LOOK_MOST: Final = 5.0
"""Seconds between two looks at members that run in other instances; those that end here are noticed at once."""
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Members:
    """How a group stands.

    Attributes:
        newest: The newest run of each member, in their order; None for one that the store does not have any more.
    """

    newest: tuple[TaskRecord | None, ...]

    @property
    def live(self) -> bool:
        """Whether one of them waits or runs."""
        return any(each is not None and each.status in LIVE for each in self.newest)

    @property
    def done(self) -> bool:
        """Whether all have succeeded."""
        return all(each is not None and each.status is TaskStatus.SUCCESS for each in self.newest)

    @property
    def failed(self) -> bool:
        """Whether one has failed for good."""
        return any(each is not None and each.status is TaskStatus.FAILED for each in self.newest)

    @property
    def end(self) -> str | None:
        """Why the callback never will run, or None if it still may."""
        for number, each in enumerate(self.newest, 1):
            if each is None:
                return f"member {number} of its group is not in the store any more"
            if each.resolution == Resolution.DISCARDED:
                return f"task {each.task_id} of its group was discarded"
            if each.status in (TaskStatus.CANCELLED, TaskStatus.REJECTED):
                return f"task {each.task_id} of its group was {each.status.value}"
        return None


class Groups:
    """Looks after callbacks that wait. Told of events, for members that end here.

    A callback is a stored task like any other: the instance that owns it looks after it, and when that one dies
    whoever takes it over does.

    Args:
        journal: Where tasks are found.
        dispatcher: Ends and starts them.
        following: Adds what follows a failure.
        results: Restores what the members returned.
    """

    def __init__(self, journal: Journal, dispatcher: Dispatcher, following: Following, results: Results) -> None:
        self._journal = journal
        self._dispatcher = dispatcher
        self._following = following
        self._results = results
        self._news: dict[str, asyncio.Event] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._listens = False

    def has(self, record: TaskRecord) -> bool:
        """Tell whether a task is the callback of a group."""
        return waits_for_group(record)

    def submit(self, entry: Entry) -> None:
        """Have a callback run when its group has succeeded."""
        if not self._listens:
            # Where there are no groups, no task pays for them.
            self._listens = True
            self._journal.add_observer(self)
        work = asyncio.get_running_loop().create_task(self._hold(entry), name="taskflow-group")
        self._waiting.add(work)
        work.add_done_callback(self._waiting.discard)

    async def stop(self) -> None:
        """Leave what waits in the store, for the next start."""
        waiting = set(self._waiting)
        for work in waiting:
            work.cancel()
        if waiting:
            await asyncio.wait(waiting)

    def observe(self, event: TaskEvent) -> None:
        """Look again at a group when a member has ended here."""
        if event.record.group_id is not None and event.kind is EventKind.FINISHED:
            news = self._news.get(event.record.group_id)
            if news is not None:
                news.set()

    async def _hold(self, entry: Entry) -> None:
        group_id = entry.record.group_id or ""
        news = self._news[group_id] = asyncio.Event()
        entry.leave_line = news.set
        try:
            if not await self._released(entry, news) and entry.record.status is TaskStatus.CANCELLED:
                await self._cancel_members(entry.record)
        finally:
            if self._news.get(group_id) is news:
                del self._news[group_id]

    async def _released(self, entry: Entry, news: asyncio.Event) -> bool:
        """Look again and again until the callback runs or has ended; return whether it runs."""
        pause = LOOK_FIRST
        while entry.record.status is TaskStatus.PENDING and not entry.lost:
            news.clear()
            try:
                members = await self._members(entry.record)
                if members is not None and await self._decide(entry, members):
                    return True
            except StoreError as error:
                logger.warning("task %s waits for its group: %s", entry.record.task_id, error)
            try:
                async with asyncio.timeout(pause):
                    await news.wait()
                pause = LOOK_FIRST
            except TimeoutError:
                pause = min(2 * pause, LOOK_MOST)
        return False

    async def _members(self, callback: TaskRecord) -> Members | None:
        """Return how the group stands; None while members wait or run."""
        group_id = callback.group_id or ""
        live = await self._journal.list(TaskQuery(group_id=group_id, statuses=LIVE, limit=2))
        if any(record.task_id != callback.task_id for record in live.records):
            return None
        found: dict[str, TaskRecord] = {}
        again: dict[str, TaskRecord] = {}
        query = TaskQuery(group_id=group_id, oldest_first=True, limit=PAGE)
        while True:
            page = await self._journal.list(query)
            for record in page.records:
                found[record.task_id] = record
                if record.retry_of is not None:
                    again[record.retry_of] = record
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)
        newest = []
        for index in range(group_size(callback)):
            member = found.get(member_id(group_id, index))
            while member is not None and member.task_id in again:
                member = again[member.task_id]
            newest.append(member)
        return Members(tuple(newest))

    async def _decide(self, entry: Entry, members: Members) -> bool:
        """Do what is due now; return whether the callback runs."""
        if members.live:
            return False
        if members.done:
            return await self._release(entry, [each for each in members.newest if each is not None])
        if members.failed:
            await self._raise_alarm(entry)
        if members.end is not None and _waits(entry):
            await self._dispatcher.end_waiting(entry, members.end)
        return False

    async def _raise_alarm(self, entry: Entry) -> None:
        """Add what follows a failed member, once: nothing else follows a callback that waits."""
        steps = steps_of(entry.record.follow, ALARM)
        if steps:
            page = await self._journal.list(TaskQuery(parent_id=entry.record.task_id, limit=1))
            if not page.records and _waits(entry):
                self._following.add(entry, steps)

    async def _release(self, entry: Entry, members: Sequence[TaskRecord]) -> bool:
        args, kwargs = entry.args, dict(entry.kwargs)
        if awaits_result(args, kwargs):
            try:
                args, kwargs = filled(args, kwargs, [await self._value(each.task_id) for each in members])
            except TaskArgumentError as error:
                if _waits(entry):
                    self._fail(entry, f"it cannot be started: {error}")
                return False
        if not _waits(entry):
            return False
        entry.leave_line = None
        entry.args, entry.kwargs = args, kwargs
        entry.record = entry.record._replace(ready_at=clock.now())
        self._dispatcher.engine.submit(entry)
        return True

    async def _value(self, task_id: str) -> Any:
        if not self._results.keeps:
            msg = "no results are kept, as TaskManager(result_max_bytes=0) says"
            raise TaskArgumentError(msg, argument="result")
        record = await self._journal.get(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        return self._results.value_of(record)

    def _fail(self, entry: Entry, why: str) -> None:
        now = clock.now()
        record = lifecycle.fail(entry.record, Failure("fastapi_taskflow.TaskArgumentError", why), at=now)
        self._journal.append(entry, record)
        self._following.ended(entry)
        self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))

    async def _cancel_members(self, callback: TaskRecord) -> None:
        """Cancel what waits or runs of a group whose callback was cancelled."""
        query = TaskQuery(group_id=callback.group_id, statuses=LIVE, limit=PAGE)
        with contextlib.suppress(StoreError):
            for record in (await self._journal.list(query)).records:
                with contextlib.suppress(TaskNotFoundError, InvalidTransitionError):
                    await self._dispatcher.cancel(record.task_id)


def _waits(entry: Entry) -> bool:
    return entry.record.status is TaskStatus.PENDING and not entry.lost
