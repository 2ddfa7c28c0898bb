"""Takes over what dead instances left: runs it again, or shows it as interrupted."""

from __future__ import annotations

import asyncio
import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.entry import Entry
from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.services.heartbeat import FORGET_AFTER_LEASES, live_instances
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.settings import Settings
    from fastapi_taskflow.store import Instance, Store
    from fastapi_taskflow.task.call import Calls
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.registry import Registry

logger = logging.getLogger("fastapi_taskflow.recovery")

BATCH: Final = 500
AT_ONCE: Final = 64
"""Recovered tasks that run at the same time, so that a start after a long outage does not run everything at once."""


POISON: Final = "fastapi_taskflow.PoisonTask"
"""``error_type`` of a task that was parked because its process stopped too often."""


def gone() -> None:
    """Stand for the function of a task that is only parked, never called."""


class Recovery:
    """Sweeps at startup and on a timer, whether or not there is traffic."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        engine: Engine,
        registry: Registry,
        calls: Calls,
        *,
        settings: Settings,
        me: Instance,
    ) -> None:
        self._store = store
        self._journal = journal
        self._engine = engine
        self._registry = registry
        self._calls = calls
        self._settings = settings
        self._me = me
        self._places = asyncio.Semaphore(AT_ONCE)
        self._loop = Loop("recovery", self.sweep, interval=settings.lease, first=settings.lease)

    async def start(self) -> None:
        """Sweep once, and go on sweeping."""
        await self.sweep()
        self._loop.start()

    async def stop(self) -> None:
        """End the sweeps."""
        await self._loop.stop()

    async def sweep(self) -> int:
        """Take over what has no living owner; return how many tasks."""
        now = clock.now()
        lease = self._settings.lease
        instances = await self._store.instances()
        live = live_instances(instances, me=self._me, lease=lease, now=now)
        taken = 0
        while True:
            orphans = await self._store.orphans(live, limit=BATCH)
            entries = [self._take_safely(record, now) for record in orphans]
            for entry in entries:
                self._journal.live[entry.record.task_id] = entry
                self._journal.append(entry, entry.record)
            if entries:
                await self._journal.next_commit().wait()
            ours = [entry for entry in entries if not entry.lost]
            for entry in ours:
                self._go_on(entry)
            taken += len(ours)
            if len(orphans) < BATCH or not ours:
                break
        for each in instances:
            if each.instance_id not in live and now - each.heartbeat_at > FORGET_AFTER_LEASES * lease:
                await self._store.forget(each.instance_id)
        if taken:
            logger.info("%d task(s) of stopped instances taken over", taken)
        return taken

    def _take_safely(self, record: TaskRecord, now: float) -> Entry:
        try:
            return self._take(record, now)
        except Exception as error:
            logger.exception("task %s cannot be run again", record.task_id)
            reason = f"it cannot be run again: {error!r}"
            return _taken(lifecycle.interrupt(record, at=now, owner=self._me.instance_id, reason=reason), record, None)

    def _take(self, record: TaskRecord, now: float) -> Entry:
        """Decide what becomes of an orphan: it waits again, or it is parked for an operator."""
        me = self._me.instance_id
        definition = self._registry.find(record.func_name, record.target)
        if not self._runs_again(record, definition):
            did = "ran" if record.status is TaskStatus.RUNNING else "waited"
            parked = lifecycle.interrupt(record, at=now, owner=me, reason=f"its process stopped while it {did}")
            return _taken(parked, record, definition)
        if record.status is TaskStatus.RUNNING and record.recoveries >= self._settings.max_recoveries:
            message = f"its process stopped {record.recoveries + 1} times while it ran; it is not run again"
            return _taken(lifecycle.fail(record, Failure(POISON, message), at=now), record, definition)
        try:
            call = self._calls.restore(record)
        except TaskArgumentError as error:
            return _taken(lifecycle.interrupt(record, at=now, owner=me, reason=str(error)), record, definition)
        return _taken(lifecycle.requeue(record, at=now, owner=me), record, *call)

    def _runs_again(self, record: TaskRecord, definition: TaskDefinition | None) -> bool:
        if record.status is TaskStatus.RUNNING:
            return record.requeue_on_interrupt
        return self._settings.requeue_pending or (definition is not None and definition.persist)

    def _go_on(self, entry: Entry) -> None:
        now = clock.now()
        record = entry.record
        self._journal.publish(TaskEvent(EventKind.RECOVERED, record, now))
        if record.finished:
            self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
        else:
            self._engine.spawn(self._run(entry))

    async def _run(self, entry: Entry) -> None:
        async with self._places:
            await self._engine.run(entry)


def _taken(
    record: TaskRecord,
    before: TaskRecord,
    definition: TaskDefinition | None,
    func: Callable[..., Any] = gone,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Entry:
    known = definition or TaskDefinition(name=record.func_name, func=gone, is_async=False, code_name=record.func_name)
    entry = Entry(record, known, func, args, kwargs)
    entry.committed = before
    entry.admitted = True
    return entry
