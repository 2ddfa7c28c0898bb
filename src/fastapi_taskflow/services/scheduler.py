"""Adds the tasks of schedules when they are due: each slot once, however many instances look at the clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.services.schedule_notes import Notes, Place, ScheduleNotes
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.placing import Placing
from fastapi_taskflow.task.record import LIVE
from fastapi_taskflow.task.schedule import ScheduleView

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.journal import Journal
    from fastapi_taskflow.services.turns import Turns
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.schedule import Schedule, Schedules

logger = logging.getLogger("fastapi_taskflow.schedules")

PRECEDENCE: Final = 0.25
"""Seconds for which a slot is left to the instance that dealt with the last one. With that the others find it done, and
need not add a task that is there; if that instance is gone they do it, and whoever is first counts."""

AGAIN_AFTER: Final = 1.0
"""Seconds after which it is tried again when the store fails."""

NEXT_RUNS: Final = 3


class Scheduler:
    """Looks at the clock for all schedules of a manager.

    The key of a slot's task decides its id, so the store takes one. Everything else here only saves work or decides
    what becomes of slots that are late.

    Args:
        schedules: All of them.
        journal: Where tasks are found.
        dispatcher: Takes new tasks.
        turns: Has them run, one after another where that is asked for.
        lease: Seconds after which an instance without a sign of life is gone.
    """

    def __init__(
        self, schedules: Schedules, journal: Journal, dispatcher: Dispatcher, turns: Turns, *, lease: float
    ) -> None:
        self._schedules = schedules
        self._journal = journal
        self._dispatcher = dispatcher
        self._turns = turns
        self._lease = lease
        self._notes = ScheduleNotes(journal.store)
        self._last: dict[str, float] = {}
        self._next: dict[str, float] = {}
        self._failing = False
        self._work: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make up for what was missed, as each schedule says, and go on.

        Raises:
            StoreError: If the store fails.
        """
        if not len(self._schedules):
            return
        # In a context of their own: what is current where the application starts is not the parent of any task.
        await _spawned(self._begin())
        self._work = [_spawned(self._go_on())]
        if self._journal.store.persistent and any(schedule.run_on_startup for schedule in self._schedules):
            self._work.append(_spawned(self._begin_late()))

    async def stop(self) -> None:
        """End, in the middle of a look if need be: what it did counts, and the rest is done at the next start."""
        work, self._work = self._work, []
        for each in work:
            each.cancel()
        for each in work:
            with contextlib.suppress(asyncio.CancelledError):
                await each
        await self._turns.stop()

    # -- by the clock ------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        now = clock.now()
        notes = await self._notes.read()
        for schedule in self._schedules:
            place = notes.place(schedule)
            if place is None:
                place = Place(now, str(schedule.times), self._dispatcher.owner, ran=False)
                if notes.last(schedule) is None:
                    place = await self._notes.see_first(schedule, place)
                else:
                    await self._notes.move(schedule, place)
            self._move(schedule, min(place.slot, now))
        await self._run_at_start()
        await self._look()

    async def _go_on(self) -> None:
        while (due := min(self._next.values(), default=math.inf)) < math.inf:
            await clock.sleep_until(due)
            try:
                await self._look()
                self._failing = False
            except StoreError as error:
                if not self._failing:
                    logger.warning("schedules wait for the store: %s", error)
                self._failing = True
                await asyncio.sleep(AGAIN_AFTER)

    async def _look(self) -> None:
        """Deal with all slots that have come.

        Raises:
            StoreError: If the store fails; the slots are dealt with by the next look.
        """
        due = [schedule for schedule in self._schedules if self._next[schedule.name] <= clock.now()]
        notes = await self._notes.read() if due else Notes({})
        me = self._dispatcher.owner
        others = []
        for schedule in due:
            place = notes.place(schedule)
            if place is None or place.owner == me:
                await self._deal_with(schedule, notes)
            else:
                others.append(schedule)
        if others:
            await asyncio.sleep(PRECEDENCE)
            notes = await self._notes.read()
            for schedule in others:
                await self._deal_with(schedule, notes)

    async def _deal_with(self, schedule: Schedule, notes: Notes) -> None:
        now = clock.now()
        place = notes.place(schedule)
        last = self._last[schedule.name]
        if place is not None:
            # Some instance's clock may have been ahead: what it added is there, and is not added again.
            last = max(min(place.slot, now), last)
        # What comes is the same for all: the newest slot, whatever is run of those before it.
        newest = schedule.newest(last, now)
        if newest is not None:
            if not notes.is_paused(schedule):
                for slot in schedule.due(last, now):
                    await self._add_safely(schedule, slot)
            await self._notes.move(schedule, Place(newest, str(schedule.times), self._dispatcher.owner))
        self._move(schedule, last if newest is None else newest)

    def _move(self, schedule: Schedule, last: float) -> None:
        self._last[schedule.name] = last
        following = schedule.times.after(last)
        self._next[schedule.name] = math.inf if following is None else following

    async def _add_safely(self, schedule: Schedule, slot: float) -> None:
        try:
            await self._add(schedule, schedule.key(slot), run_at=schedule.run_at(slot))
        except StoreError:
            raise
        except Exception:
            logger.exception("schedule %s: its task for %s could not be added", schedule.name, clock.to_iso(slot))

    async def _add(self, schedule: Schedule, key: str, *, run_at: float) -> None:
        entry = self._prepared(schedule, key, source="scheduled", run_at=run_at)
        if schedule.overlap == "skip":
            before = await self._live(schedule, but=entry.record.task_id)
            if before is not None:
                reason = f"skipped: task {before.task_id} of this schedule had not ended"
                await self._dispatcher.turn_away(entry, reason)
                return
        await self._dispatcher.admit([entry])
        if entry.admitted:
            await self._turns.enter(entry)

    def _prepared(self, schedule: Schedule, key: str | None, *, source: str, run_at: float | None = None) -> Entry:
        later = run_at if run_at is not None and run_at > clock.now() else None
        placing = Placing(tags=schedule.tags, idempotency_key=key, run_at=later, schedule=schedule.name)
        definition = schedule.definition
        return self._dispatcher.prepare(definition.func, (), {}, placing, source=source, definition=definition)

    async def _live(self, schedule: Schedule, *, but: str) -> TaskRecord | None:
        """Return a task of the schedule, other than ``but``, that has not ended."""
        page = await self._journal.list(TaskQuery(schedule=schedule.name, statuses=LIVE, limit=10))
        for record in page.records:
            entry = self._journal.live.get(record.task_id)
            ended_here = entry is not None and entry.record.finished
            if record.task_id != but and not ended_here:
                return record
        return None

    # -- at the start ------------------------------------------------------------------------------------------------

    async def _run_at_start(self) -> None:
        """Run what is to run at a start, once for all instances that start together.

        The one that does it notes its id. Whoever starts while that one lives has nothing to do; afterwards the next
        one to look does it, by a key that is made from the id of the one that is gone.
        """
        schedules = [schedule for schedule in self._schedules if schedule.run_on_startup]
        if not schedules:
            return
        notes = await self._notes.read()
        living = {each.instance_id for each in await self._journal.store.instances()}
        for schedule in schedules:
            before = notes.started_by(schedule)
            if before in living or before == self._dispatcher.owner or notes.is_paused(schedule):
                continue
            await self._add(schedule, f"{schedule.name}@start after {before or 'none'}", run_at=clock.now())
            await self._notes.started(schedule, self._dispatcher.owner)

    async def _begin_late(self) -> None:
        """Look once more when a killed instance of another host counts as dead."""
        await asyncio.sleep(self._lease * 1.5)
        try:
            await self._run_at_start()
        except StoreError as error:
            logger.warning("what is to run at a start is not looked at again: %s", error)

    # -- by hand -----------------------------------------------------------------------------------------------------

    async def views(self) -> Sequence[ScheduleView]:
        """Return all schedules as they are now.

        Raises:
            StoreError: If the store fails.
        """
        notes = await self._notes.read()
        return [await self._view(schedule, notes) for schedule in self._schedules]

    async def _view(self, schedule: Schedule, notes: Notes) -> ScheduleView:
        page = await self._journal.list(TaskQuery(schedule=schedule.name, limit=1))
        place = notes.last(schedule)
        return ScheduleView(
            schedule=schedule,
            paused=notes.is_paused(schedule),
            next_runs=tuple(islice(schedule.slots_after(clock.now()), NEXT_RUNS)),
            last_slot=place.slot if place is not None and place.ran else None,
            last_task=_first(page.records),
        )

    async def run(self, name: str) -> TaskRecord:
        """Run a schedule's function now, whatever else it does; return the new task's record.

        Raises:
            ScheduleNotFoundError: If there is no such schedule.
            QueueFullError: If as many tasks wait in its queue as may.
            StoreUnavailableError: If the store did not commit in time.
        """
        entry = self._prepared(self._schedules.named(name), None, source="manual")
        await self._dispatcher.enqueue(entry)
        return entry.record

    async def pause(self, name: str) -> ScheduleView:
        """Let a schedule's slots pass by, in all instances, until `resume`; what was added before still runs.

        Raises:
            ScheduleNotFoundError: If there is no such schedule.
            StoreError: If the store fails.
        """
        schedule = self._schedules.named(name)
        await self._notes.pause(schedule)
        return await self._view(schedule, await self._notes.read())

    async def resume(self, name: str) -> ScheduleView:
        """Have a schedule's slots run again, from the next one on.

        Raises:
            ScheduleNotFoundError: If there is no such schedule.
            StoreError: If the store fails.
        """
        schedule = self._schedules.named(name)
        await self._notes.resume(schedule)
        return await self._view(schedule, await self._notes.read())


def _spawned(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name="taskflow-scheduler", context=Context())


def _first(records: Iterable[TaskRecord]) -> TaskRecord | None:
    return next(iter(records), None)
