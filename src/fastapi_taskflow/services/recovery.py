"""Takes over what dead instances left: runs it again, or shows it as interrupted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.entry import Entry, never_called, unknown_definition
from fastapi_taskflow.errors import StoreError, TaskArgumentError
from fastapi_taskflow.services.loop import Loop
from fastapi_taskflow.store import OWNERLESS_GRACE
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.expiry import Expiry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.services.liveness import Liveness
    from fastapi_taskflow.services.turns import Turns
    from fastapi_taskflow.settings import Settings
    from fastapi_taskflow.store import Instance, Store
    from fastapi_taskflow.task.call import Calls
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.registry import Registry

    class Groups(Protocol):
        """Holds callbacks back until their group has succeeded."""

        def has(self, record: TaskRecord) -> bool:
            """Tell whether a task is such a callback."""

        def submit(self, entry: Entry) -> None:
            """Have one run when its time has come."""

    class Followers(Protocol):
        """Adds what follows a task."""

        def ended(self, entry: Entry, value: Any = None) -> None:
            """Do so, in the turn in which the journal gets its last record."""


logger = logging.getLogger("fastapi_taskflow.recovery")

EVERY: Final = 1.0
"""Seconds between two looks at the other instances: one that died on this host is found within that."""

BATCH: Final = 500
AT_ONCE: Final = 64
"""Recovered tasks of a queue without limits that run at the same time: a start after a long outage does not run
everything at once."""

POISON: Final = "fastapi_taskflow.PoisonTask"
"""``error_type`` of a task that was parked because its process stopped too often."""


class Recovery:
    """Takes over what dead instances left, at startup and as soon as one dies, whether or not there is traffic."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        engine: Engine,
        registry: Registry,
        calls: Calls,
        expiry: Expiry,
        following: Followers,
        groups: Groups,
        turns: Turns,
        *,
        settings: Settings,
        liveness: Liveness,
        lease: Lease,
        me: Instance,
    ) -> None:
        self._store = store
        self._journal = journal
        self._engine = engine
        self._registry = registry
        self._calls = calls
        self._expiry = expiry
        self._following = following
        self._groups = groups
        self._turns = turns
        self._settings = settings
        self._liveness = liveness
        self._lease = lease
        self._me = me
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._unsure = False
        self._warned = False
        self._known: set[str] = set()
        self._look_at = 0.0
        self._loop = Loop("recovery", self.sweep, interval=EVERY, first=EVERY)

    async def start(self) -> None:
        """Sweep once, and go on sweeping."""
        await self.sweep()
        self._loop.start()

    async def stop(self) -> None:
        """End the sweeps."""
        await self._loop.stop()

    async def sweep(self) -> int:
        """Take over what has no living owner; return how many tasks."""
        if not self._lease.held:
            # Whoever cannot beat cannot tell whether others could.
            return 0
        asked_at = time.monotonic()
        instances = await self._store.instances()
        dead = self._liveness.dead(instances, asked_at)
        self._mind_company(len(instances) - len(dead) - 1)
        if not self._is_due({each.instance_id for each in instances}, asked_at, somebody_died=bool(dead)):
            return 0
        taken = await self._find_strays() if self._unsure else 0
        while True:
            claimed = await self._claim(dead)
            taken += await self._take_up(claimed)
            if len(claimed) < BATCH:
                break
        for instance_id, beat in dead.items():
            await self._store.forget(instance_id, beat=beat)
        if taken:
            logger.info("%d task(s) of stopped instances taken over", taken)
        return taken

    def _mind_company(self, others: int) -> None:
        if others > 0 and not self._warned:
            self._warned = True
            if self._store.company_warning is not None:
                logger.warning("%s", self._store.company_warning)

    def _is_due(self, ids: set[str], now: float, *, somebody_died: bool) -> bool:
        """Tell whether to look at the tasks: when somebody died, came or left, soon after, and else once a lease."""
        changed, self._known = ids != self._known, ids
        if not (changed or somebody_died or self._unsure or now >= self._look_at):
            return False
        # What one that has gone had committed in a user's transaction, and not claimed, is left alone for the grace.
        gone = changed or somebody_died
        self._look_at = now + min(OWNERLESS_GRACE if gone else self._settings.lease, self._settings.lease)
        return True

    async def _claim(self, dead: Mapping[str, float]) -> Sequence[TaskRecord]:
        try:
            return await self._store.claim(self._me.instance_id, dead, limit=BATCH)
        except StoreError:
            # It may have been done all the same, if only the answer was lost.
            self._unsure = True
            raise

    async def _find_strays(self) -> int:
        """Take up what this instance owns and does not know of."""
        owned = await self._store.owned(self._me.instance_id)
        found = [await self._store.get(task_id) for task_id in owned - self._journal.live.keys()]
        me = self._me.instance_id
        strays = [each for each in found if each is not None and not each.finished and each.owner == me]
        taken = await self._take_up([each for each in strays if each.task_id not in self._journal.live])
        self._unsure = False
        return taken

    async def _take_up(self, records: Sequence[TaskRecord]) -> int:
        now = clock.now()
        entries = [self._take_safely(record, now) for record in records if not self._is_taken(record)]
        for entry in entries:
            self._journal.live[entry.record.task_id] = entry
            self._journal.append(entry, entry.record)
            if entry.record.finished and entry.record.follow is not None:
                self._following.ended(entry)
        if entries:
            await self._journal.next_commit().wait()
        ours = [entry for entry in entries if not entry.lost]
        for entry in ours:
            self._go_on(entry)
        return len(ours)

    def _is_taken(self, record: TaskRecord) -> bool:
        """Tell whether this instance has it already: those of a user's transaction are claimed through the journal."""
        entry = self._journal.live.get(record.task_id)
        known = entry.committed if entry is not None else None
        if known is None:
            return False
        return not known.owner or (known.owner == record.owner and known.version >= record.version)

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
        if record.run_at is not None or record.schedule is not None or record.parent_id is not None:
            # It was to run later from the first: a retry, a delayed or a scheduled task, or one that follows another.
            return True
        if self._groups.has(record):
            return True
        if self._engine.is_paused(record.queue):
            # An operator holds it back, so that its process stopped is no reason to give it up.
            return True
        return self._settings.requeue_pending or (definition is not None and definition.persist)

    def _go_on(self, entry: Entry) -> None:
        now = clock.now()
        record = entry.record
        self._journal.publish(TaskEvent(EventKind.RECOVERED, record, now))
        if record.finished:
            self._journal.publish(TaskEvent(EventKind.FINISHED, record, now))
        else:
            self._expiry.mind(entry)
            self._hand_over(entry)

    def _hand_over(self, entry: Entry) -> None:
        if self._turns.has(entry.record):
            self._turns.submit(entry)
        elif self._groups.has(entry.record):
            self._groups.submit(entry)
        elif self._engine.has_limits(entry.record.queue):
            self._engine.submit(entry)
        else:
            self._engine.spawn(self._run(entry))

    async def _run(self, entry: Entry) -> None:
        # A place for each queue: one that is held up meanwhile must not hold up the others.
        async with self._places[entry.record.queue]:
            await self._engine.run(entry)


def _taken(
    record: TaskRecord,
    before: TaskRecord,
    definition: TaskDefinition | None,
    func: Callable[..., Any] = never_called,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Entry:
    entry = Entry(record, definition or unknown_definition(record), func, args, kwargs)
    entry.committed = before
    entry.admitted = True
    return entry
