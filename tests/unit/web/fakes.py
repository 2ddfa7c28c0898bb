"""Small stand-ins for the parts that the admin application gets, and a set of records to show."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, cast

from fastapi_taskflow.engines.queues import Queues
from fastapi_taskflow.errors import InvalidTransitionError, ScheduleNotFoundError, TaskNotFoundError
from fastapi_taskflow.services.queue_settings import QueueSettings
from fastapi_taskflow.store import DURATION_BOUNDS, Act, FunctionStats, Page, Selection
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.record import LIVE, TaskRecord, TaskStatus, new_task_id
from fastapi_taskflow.task.retry import RetryPolicy
from fastapi_taskflow.web.parts import AdminParts, AdminSettings
from fastapi_taskflow.web.stream import ChangeFeed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi_taskflow.store import Instance, Store, TaskQuery
    from fastapi_taskflow.task.once import ScheduledOnce
    from fastapi_taskflow.task.schedule import ScheduleView


class FakeStore:
    """Settings and instances only, as `Store.get_meta` and `Store.put_meta` have them."""

    def __init__(self) -> None:
        self.meta: dict[str, tuple[str, float | None]] = {}
        self.rows: list[Instance] = []
        self.error: Exception | None = None
        self.acts_done: list[Act] = []

    async def add_act(self, act: Act) -> None:
        self.acts_done.append(act)

    async def get_meta(self, key: str) -> str | None:
        if self.error is not None:
            raise self.error
        value, expires = self.meta.get(key, (None, None))
        return None if expires is not None and expires <= time.time() else value

    async def instances(self) -> list[Instance]:
        if self.error is not None:
            raise self.error
        return self.rows

    async def put_meta(self, key: str, value: str, *, expires_at: float | None = None) -> str:
        kept = await self.get_meta(key)
        if kept is not None:
            return kept
        self.meta[key] = (value, expires_at)
        return value


class FakeJournal:
    """Records in a dict, with the filters that the tests use."""

    def __init__(self, records: list[TaskRecord]) -> None:
        self.records = {record.task_id: record for record in records}
        self.backlog = 0
        self.full = False
        self.failure: str | None = None
        self.writing_for = 0.0
        self.queries: list[TaskQuery] = []

    async def get(self, task_id: str) -> TaskRecord | None:
        return self.records.get(task_id)

    async def list(self, query: TaskQuery) -> Page:
        self.queries.append(query)
        if query.cursor is not None and not query.cursor.isdigit():
            msg = "no cursor of this store"
            raise ValueError(msg)
        found = [record for record in self.records.values() if matches(record, query)]
        found.sort(key=lambda record: (record.created_at, record.task_id), reverse=not query.oldest_first)
        begin = int(query.cursor or 0)
        end = begin + query.limit
        more = str(end) if end < len(found) else None
        plain = query == dataclasses.replace(query, text=None, tag=None, trace_id=None)
        return Page(tuple(found[begin:end]), more, len(found) if plain else None)

    async def stats(self) -> Mapping[str, FunctionStats]:
        stats: dict[str, FunctionStats] = {}
        for record in self.records.values():
            old = stats.get(record.func_name, FunctionStats())
            counts = {**old.counts, record.status: old.counts.get(record.status, 0) + 1}
            buckets = list(old.buckets)
            measured, seconds = old.duration_count, old.duration_sum
            if record.duration is not None:
                buckets[sum(record.duration > bound for bound in DURATION_BOUNDS)] += 1
                measured, seconds = measured + 1, seconds + record.duration
            stats[record.func_name] = FunctionStats(counts, measured, seconds, tuple(buckets))
        return stats

    def live_counts(self) -> Mapping[tuple[str, TaskStatus], int]:
        counts: dict[tuple[str, TaskStatus], int] = {}
        for record in self.records.values():
            if record.status in LIVE:
                counts[record.queue, record.status] = counts.get((record.queue, record.status), 0) + 1
        return counts


def matches(record: TaskRecord, query: TaskQuery) -> bool:
    """Tell whether ``record`` is among those asked for."""
    text = (query.text or "").lower()
    haystack = " ".join([record.task_id, record.func_name, record.error or "", *record.tags]).lower()
    return (
        (not query.statuses or record.status in query.statuses)
        and (query.func_name is None or record.func_name == query.func_name)
        and (query.queue is None or record.queue == query.queue)
        and (query.tag is None or query.tag in record.tags)
        and (query.trace_id is None or record.trace_id == query.trace_id)
        and (query.since is None or record.created_at >= query.since)
        and (query.until is None or record.created_at < query.until)
        and text in haystack
    )


class FakeDispatcher:
    """Cancels what lives and retries what did not succeed."""

    owner = "me"

    def __init__(self, journal: FakeJournal) -> None:
        self.journal = journal

    async def cancel(self, task_id: str) -> TaskRecord:
        record = self.journal.records.get(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        if record.status not in LIVE:
            msg = f"cannot cancel a task that is {record.status.value}"
            raise InvalidTransitionError(msg)
        if record.status is TaskStatus.RUNNING and record.executor == "thread":
            return record
        return self._keep(record.evolve(status=TaskStatus.CANCELLED, end_time=time.time()))

    async def retry(self, task_id: str) -> TaskRecord:
        record = self.journal.records.get(task_id)
        if record is None:
            raise TaskNotFoundError(task_id)
        if record.status in LIVE or record.status is TaskStatus.SUCCESS:
            msg = f"cannot retry a task that is {record.status.value}"
            raise InvalidTransitionError(msg)
        now = time.time()
        return self._keep(
            TaskRecord(new_task_id(), record.func_name, TaskStatus.PENDING, now, ready_at=now, retry_of=task_id)
        )

    async def discard(self, task_id: str) -> TaskRecord:
        record = self.journal.records[task_id]
        if record.status is not TaskStatus.FAILED:
            msg = f"cannot discard a task that is {record.status.value}"
            raise InvalidTransitionError(msg)
        return self._keep(record.evolve(resolution="discarded"))

    def _keep(self, record: TaskRecord) -> TaskRecord:
        self.journal.records[record.task_id] = record
        return record


class FakeBulk:
    """Takes down what is to be done."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, Selection]] = []

    async def begin(self, verb: str, selection: Selection) -> TaskRecord:
        self.begun.append((verb, selection))
        return TaskRecord("job", f"taskflow.bulk_{verb}", TaskStatus.PENDING, 1.0)


class FakeRegistry:
    """A fixed set of definitions."""

    def __init__(self, *definitions: TaskDefinition) -> None:
        self._definitions = {definition.name: definition for definition in definitions}

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._definitions.values())

    def get(self, name: str) -> TaskDefinition | None:
        return self._definitions.get(name)


class FakeScheduler:
    """Has no schedule."""

    async def views(self) -> list[ScheduleView]:
        return []

    async def run(self, name: str) -> TaskRecord:
        raise ScheduleNotFoundError(name)

    async def pause(self, name: str) -> ScheduleView:
        raise ScheduleNotFoundError(name)

    async def resume(self, name: str) -> ScheduleView:
        raise ScheduleNotFoundError(name)


class FakeOneOffs:
    """Has no task that waits."""

    async def waiting(self) -> list[ScheduledOnce]:
        return []


class FakePrometheus:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str | None]] = []

    async def scrape(self, accept: str | None, format: str | None) -> tuple[str, bytes]:  # noqa: A002 - the seam's name
        self.asked.append((accept, format))
        return "text/plain; version=0.0.4; charset=utf-8", b"taskflow_tasks_running 0\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Fakes:
    """The stand-ins of one application."""

    parts: AdminParts
    journal: FakeJournal
    store: FakeStore
    prometheus: FakePrometheus
    feed: ChangeFeed


def build(records: list[TaskRecord] | None = None, **settings: Any) -> Fakes:
    """Return stand-ins that hold ``records``."""
    journal, store, prometheus, feed = FakeJournal(records or []), FakeStore(), FakePrometheus(), ChangeFeed()
    registry = FakeRegistry(
        TaskDefinition("send_email", str, is_async=True, code_name="shop.tasks.send_email", retry=RetryPolicy(3, 0.5))
    )
    parts = AdminParts(
        settings=AdminSettings(**settings),
        journal=journal,
        dispatcher=FakeDispatcher(journal),
        bulk=FakeBulk(),
        queues=QueueSettings(MemoryStore(), Queues(None, {})),
        registry=registry,
        scheduler=FakeScheduler(),
        one_offs=FakeOneOffs(),
        store=cast("Store", store),
        prometheus=prometheus,
        feed=feed,
    )
    return Fakes(parts, journal, store, prometheus, feed)
