"""Runs tasks in this process, on the loop that serves the requests."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.engines.eager import Starter

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fastapi_taskflow.engine import RunEntry
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.lease import Lease


class LocalEngine:
    """Starts each task as soon as it may run.

    Args:
        max_concurrent_tasks: Attempts at the same time, or None for no limit. A task that waits for its retry holds no
            place.
        lease: What waits goes on only while it is not frozen; None without leases.
    """

    def __init__(self, max_concurrent_tasks: int | None, lease: Lease | None = None) -> None:
        self._lease = lease
        self._limit = max_concurrent_tasks
        self._places: asyncio.Semaphore | None = None
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

    def start(self, run: RunEntry) -> None:
        """Begin to run tasks by ``run``, those that were held first."""
        self._run = run
        self._places = asyncio.Semaphore(self._limit) if self._limit is not None else None
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
        """Run ``entry`` until its attempt has ended. A retry without a delay follows at once, another one when due."""
        run = self._run
        if run is None or not self.takes_tasks():
            return
        while True:
            run_at = entry.record.run_at
            if run_at is not None and run_at > clock.now():
                self._plan(entry, run_at)
                return
            if self._places is None:
                due = await run(entry)
            else:
                async with self._places:
                    due = await run(entry) if self.takes_tasks() else None
            if due is None or not self.takes_tasks():
                return

    def submit(self, entry: Entry) -> None:
        """Run ``entry`` on its own, at once or when it is due; before the start it waits for that."""
        if self._run is None:
            self._held.append(entry)
        else:
            self.spawn(self.run(entry))

    async def drain(self, *, within: float) -> bool:
        """Let what waits start and what runs finish within that many seconds; return whether all did.

        What is added meanwhile counts as well; what is due later is not waited for.
        """
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        deadline = time.monotonic() + within
        me = asyncio.current_task()
        while others := {task for task in self._tasks if task is not me and not task.done()}:
            await asyncio.wait(others, timeout=max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return all(task.done() for task in self._tasks if task is not me)
        return True

    async def stop(self, *, within: float) -> bool:
        """Start nothing more and let what runs finish within that many seconds; return whether all did."""
        self._stopping = True
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
