"""Runs tasks in this process, on the loop that serves the requests."""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.engines.eager import Starter
from fastapi_taskflow.engines.queues import Queues

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fastapi_taskflow.engine import RunEntry
    from fastapi_taskflow.engines.lane import Lane
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.lease import Lease
    from fastapi_taskflow.task.queue import QueueConfig


class _Turn:
    """What is done for an entry in a line: whoever follows it step by step goes on, or else it is begun.

    Args:
        begin: Begins it, in an asyncio task of its own.
        followed: Awaited by whoever follows it; None if nobody does. Its result tells whether it has its slot.
    """

    __slots__ = ("_begin", "_followed")

    def __init__(self, begin: Callable[[], None], followed: asyncio.Future[bool] | None = None) -> None:
        self._begin = begin
        self._followed = followed

    def come(self) -> None:
        """Begin: the slot is taken."""
        if self._followed is not None and not self._followed.done():
            self._followed.set_result(True)
        else:
            self._begin()

    def let_go(self) -> None:
        """Let whoever follows go on."""
        if self._followed is not None and not self._followed.done():
            self._followed.set_result(False)


class LocalEngine:
    """Starts each task as soon as its queue lets it.

    Args:
        max_concurrent_tasks: Attempts at the same time, or None for no limit. A task that waits for its retry holds no
            place.
        lease: What waits goes on only while it is not frozen; None without leases.
        queues: The limits of queues by name.

    Attributes:
        queues: Hands out the slots.
    """

    def __init__(
        self,
        max_concurrent_tasks: int | None,
        lease: Lease | None = None,
        queues: Mapping[str, QueueConfig] | None = None,
    ) -> None:
        self.queues = Queues(max_concurrent_tasks, queues or {})
        self._lease = lease
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[str, clock.Timer] = {}
        self._run: RunEntry | None = None
        self._stopping = False
        self._held: list[Entry] = []
        self._starter: Starter | None = None

    def takes_tasks(self) -> bool:
        """Tell whether it was started and is not stopping."""
        return self._run is not None and not self._stopping

    def hold(self) -> None:
        """Take tasks, and keep them until ``start``."""
        self._run = None
        self._stopping = False
        self._held = []
        self._starter = None
        self.queues.reset()

    def start(self, run: RunEntry) -> None:
        """Begin to run tasks by ``run``, those that were held first."""
        self._run = run
        self.queues.open(asyncio.get_running_loop())
        held, self._held = self._held, []
        for entry in held:
            self.submit(entry)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in an asyncio task of its own, in the caller's context, and see it through at shutdown."""
        self._track(self._started().spawn(work))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Begin ``work`` at once; return the task that ends it, or None if it has ended."""
        task = self._started().begin(work)
        if task is not None:
            self._track(task)
        return task

    def _started(self) -> Starter:
        if self._starter is None:
            self._starter = Starter(asyncio.get_running_loop(), self._lease)
        return self._starter

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, entry: Entry) -> None:
        """Run ``entry`` until its attempt has ended. A retry without a delay follows at once, another one when due.

        One whose queue is paused, or has a limited rate, is not waited for either: it runs on its own.
        """
        run = self._run
        if run is None or not self.takes_tasks():
            return
        lanes = self.queues.lanes
        while True:
            run_at = entry.record.run_at
            if run_at is not None and run_at > clock.now():
                self._plan(entry, run_at)
                return
            lane = lanes.get(entry.record.queue) or self.queues.lane(entry.record.queue)
            if lane.free:
                lane.running += 1
                try:
                    due = await run(entry)
                finally:
                    if lane.known and not self.queues.waiting:
                        lane.running -= 1
                    else:
                        self.queues.leave(lane)
            elif await self._slot(lane, entry):
                due = await self._run_held(lane, entry)
            else:
                return
            if due is None or not self.takes_tasks():
                return

    async def _slot(self, lane: Lane, entry: Entry) -> bool:
        """Wait for a slot; return False if the entry is not to run, or not here and now."""
        followed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiter = self.queues.enter(lane, entry, _Turn(self._beginning(lane, entry), followed))
        if waiter is None:
            return True
        try:
            return await followed
        except asyncio.CancelledError:
            if followed.done() and not followed.cancelled() and followed.result():
                self.queues.leave(lane)
            else:
                self.queues.give_up(lane, waiter)
            raise

    def _beginning(self, lane: Lane, entry: Entry) -> Callable[[], None]:
        """Return what begins an entry that has a slot, in the context of now."""
        return partial(copy_context().run, self._begin_held, lane, entry)

    def _begin_held(self, lane: Lane, entry: Entry) -> None:
        self.spawn(self._go_on(lane, entry))

    async def _go_on(self, lane: Lane, entry: Entry) -> None:
        if await self._run_held(lane, entry) is not None:
            await self.run(entry)

    async def _run_held(self, lane: Lane, entry: Entry) -> float | None:
        """Run an attempt that has a slot, and give the slot back; return when the next one is due."""
        run = self._run
        try:
            return await run(entry) if run is not None and self.takes_tasks() else None
        finally:
            self.queues.leave(lane)

    def submit(self, entry: Entry) -> None:
        """Run ``entry`` on its own, at once or when it is due; before the start it waits for that."""
        if self._run is None:
            self._held.append(entry)
        elif self._stopping:
            return
        elif entry.record.run_at is not None or (lane := self.queues.lane(entry.record.queue)).free:
            self.spawn(self.run(entry))
        else:
            begin = self._beginning(lane, entry)
            # One that waits costs no asyncio task.
            if self.queues.enter(lane, entry, _Turn(begin)) is None:
                begin()

    # -- queues ------------------------------------------------------------------------------------------------------

    @property
    def bounded(self) -> bool:
        """Whether some queue bounds how many may wait."""
        return self.queues.bounded

    def require_room(self, queue: str) -> None:
        """Make sure that another task may be added; see `Engine.require_room`."""
        self.queues.require_room(queue)

    def reserve(self, entry: Entry) -> None:
        """Count a new task as waiting; see `Engine.reserve`."""
        self.queues.reserve(entry)

    def is_paused(self, queue: str) -> bool:
        """Tell whether nothing of a queue starts."""
        return self.queues.is_paused(queue)

    def has_limits(self, queue: str) -> bool:
        """Tell whether a queue makes tasks wait for their turn."""
        return self.queues.has_limits(queue)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def drain(self, *, within: float) -> bool:
        """Let what waits start and what runs finish within that many seconds; return whether all did.

        What is added meanwhile counts as well; what is due later, or waits in a paused queue, is not waited for.
        """
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.queues.let_paused_go()
        deadline = time.monotonic() + within
        me = asyncio.current_task()
        while True:
            others = {task for task in self._tasks if task is not me and not task.done()}
            if not others and not self.queues.waiting:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._something_ends(others, left)

    async def _something_ends(self, others: set[asyncio.Task[Any]], within: float) -> None:
        """Wait until these tasks have ended, or without any until somebody has left the line of a queue."""
        if others:
            await asyncio.wait(others, timeout=within)
            return
        shrunk = asyncio.Event()
        self.queues.shrunk = shrunk.set
        try:
            async with asyncio.timeout(within):
                await shrunk.wait()
        except TimeoutError:
            pass
        finally:
            self.queues.shrunk = None

    async def stop(self, *, within: float) -> bool:
        """Start nothing more and let what runs finish within that many seconds; return whether all did."""
        self._stopping = True
        self.queues.close()
        ended = await self.drain(within=within)
        if self._starter is not None:
            self._starter.close()
        return ended

    async def abort(self, *, within: float) -> bool:
        """Cancel what still runs, wait that many seconds for it to notice, and return whether all has ended."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=within)
        self._tasks.clear()
        return all(task.done() for task in others)

    def _plan(self, entry: Entry, run_at: float) -> None:
        self._timers[entry.record.task_id] = clock.call_at(run_at, self._due, entry)

    def _due(self, entry: Entry) -> None:
        self._timers.pop(entry.record.task_id, None)
        if not self._stopping:
            self.submit(entry)
