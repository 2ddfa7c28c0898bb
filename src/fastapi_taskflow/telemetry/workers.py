"""One user's observer and its queue: emptied by a thread, or by an asyncio task."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.telemetry.task_observer import TaskObserver, lifecycle_event, log_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi_taskflow.task.event import TaskEvent

logger = logging.getLogger("fastapi_taskflow.observers")

PAUSE: Final = 0.02
"""Seconds between batches: a thread that woke up for each event would fight the event loop for the interpreter."""


class Worker(ABC):
    """Feeds one observer from a bounded queue. Subclasses say where the queue is emptied.

    Args:
        observer: Whom to feed.
        capacity: Events that may wait.
    """

    def __init__(self, observer: TaskObserver, capacity: int) -> None:
        self.dropped = 0
        self._observer = observer
        self._capacity = capacity
        self._takes_lines = type(observer).on_log is not TaskObserver.on_log
        self._takes_changes = observer.lifecycle and type(observer).on_lifecycle is not TaskObserver.on_lifecycle
        self._queue: deque[TaskEvent] = deque()
        self._finishing = False
        self._failures = 0

    @property
    def name(self) -> str:
        """The observer's class."""
        return type(self._observer).__name__

    @abstractmethod
    def start(self) -> None:
        """Begin: first with the observer's ``startup()``."""

    @abstractmethod
    def wake(self) -> None:
        """Look at the queue; may be called from any thread."""

    @abstractmethod
    async def ended(self) -> None:
        """Wait until everything is delivered and ``shutdown()`` has returned."""

    def offer(self, event: TaskEvent) -> None:
        """Queue ``event`` if the observer takes its kind and has room; may be called from any thread."""
        if not (self._takes_lines if event.kind is EventKind.LOGGED else self._takes_changes):
            return
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("observer %s does not keep up: events for it are dropped", self.name)
            return
        self._queue.append(event)
        self.wake()

    def finish(self) -> None:
        """Take what is queued to be the last events."""
        self._finishing = True
        self.wake()

    def give_up(self) -> int:
        """Wait no longer; return how many events the observer never got."""
        lost = len(self._queue)
        self._queue.clear()
        return lost

    def _next(self) -> TaskEvent | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _hook_for(self, event: TaskEvent) -> Callable[[], Awaitable[None] | None]:
        observer = self._observer
        if event.kind is EventKind.LOGGED:
            line = log_event(event)
            return lambda: observer.on_log(line)
        change = lifecycle_event(event)
        return lambda: observer.on_lifecycle(change)

    def _failed(self, error: BaseException) -> None:
        """Log the first failure with its traceback, and count the rest."""
        self._failures += 1
        if self._failures == 1:
            logger.error("observer %s failed; further failures are only counted", self.name, exc_info=error)

    def _leave_out(self) -> None:
        """Take no more events: the observer could not get ready."""
        logger.error("observer %s could not start and is left out", self.name)
        self._takes_lines = self._takes_changes = False
        self._queue.clear()

    def _sum_up(self) -> None:
        if self._failures > 1:
            logger.error("observer %s failed %d times", self.name, self._failures)
        if self.dropped:
            logger.error("observer %s lost %d events because it did not keep up", self.name, self.dropped)


class ThreadWorker(Worker):
    """Calls a sync observer in a thread of its own."""

    def __init__(self, observer: TaskObserver, capacity: int) -> None:
        super().__init__(observer, capacity)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Start the thread. It is a daemon: a hung observer must not keep the process alive."""
        threading.Thread(target=self._run, name=f"taskflow-{self.name}", daemon=True).start()

    def wake(self) -> None:
        """Look at the queue."""
        if not self._wake.is_set():
            self._wake.set()

    def finish(self) -> None:
        """Take what is queued to be the last events."""
        super().finish()
        self._stop.set()

    async def ended(self) -> None:
        """Wait for the thread's end."""
        await self._done.wait()

    def _run(self) -> None:
        try:
            if self._tried(self._observer.startup):
                self._deliver()
                self._tried(self._observer.shutdown)
            else:
                self._leave_out()
            self._sum_up()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed without waiting for this thread
                self._loop.call_soon_threadsafe(self._done.set)

    def _deliver(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while (event := self._next()) is not None:
                self._tried(self._hook_for(event))
            if self._finishing:
                return
            self._stop.wait(PAUSE)

    def _tried(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - SystemExit too must not end the thread
            self._failed(error)
            return False
        return True


class LoopWorker(Worker):
    """Calls an observer with async methods on the event loop; its sync methods go to a thread."""

    def __init__(self, observer: TaskObserver, capacity: int) -> None:
        super().__init__(observer, capacity)
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the asyncio task."""
        self._task = self._loop.create_task(self._run(), name=f"taskflow-{self.name}")

    def wake(self) -> None:
        """Look at the queue."""
        if threading.get_ident() == self._home:
            self._wake.set()
        elif not self._wake.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the observer with it
                self._loop.call_soon_threadsafe(self._wake.set)

    async def ended(self) -> None:
        """Wait for the asyncio task's end."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def give_up(self) -> int:
        """Cancel what hangs."""
        if self._task is not None:
            self._task.cancel()
        return super().give_up()

    async def _run(self) -> None:
        if await self._tried(self._observer.startup, in_loop=_is_async(self._observer.startup)):
            await self._deliver()
            await self._tried(self._observer.shutdown, in_loop=_is_async(self._observer.shutdown))
        else:
            self._leave_out()
        self._sum_up()

    async def _deliver(self) -> None:
        async_lines, async_changes = _is_async(self._observer.on_log), _is_async(self._observer.on_lifecycle)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (event := self._next()) is not None:
                in_loop = async_lines if event.kind is EventKind.LOGGED else async_changes
                await self._tried(self._hook_for(event), in_loop=in_loop)
            if self._finishing:
                return

    async def _tried(self, call: Callable[[], Awaitable[None] | None], *, in_loop: bool) -> bool:
        try:
            awaitable = call() if in_loop else await asyncio.to_thread(call)
            if awaitable is not None:
                await awaitable
        except asyncio.CancelledError as error:
            if self._task is not None and self._task.cancelling():
                raise
            self._failed(error)
            return False
        except Exception as error:  # noqa: BLE001 - the observer's failure is its own
            self._failed(error)
            return False
        return True


def worker_for(observer: TaskObserver, capacity: int) -> Worker:
    """Return the worker that suits ``observer``: a thread, or an asyncio task if any of its methods is async."""
    hooks = (observer.startup, observer.shutdown, observer.on_log, observer.on_lifecycle)
    return (LoopWorker if any(_is_async(hook) for hook in hooks) else ThreadWorker)(observer, capacity)


def _is_async(hook: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(hook)
