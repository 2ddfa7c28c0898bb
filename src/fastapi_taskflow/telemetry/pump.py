"""Carries events from the hot path to users' observers, each of which may be slow, broken or hung."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.telemetry.task_observer import TaskObserver
from fastapi_taskflow.telemetry.workers import Worker, worker_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.task.event import TaskEvent

logger = logging.getLogger("fastapi_taskflow.observers")

CAPACITY: Final = 10_000
"""Events that may wait for one observer."""


class ObserverPump:
    """Feeds `TaskObserver`s. Fills the seam `Observer`; may be told of events from any thread.

    Each observer has a bounded queue and a worker of its own: a thread, or an asyncio task if any of its methods is
    async. So one that is slow, broken or hung holds up neither the tasks nor the other observers.

    Args:
        observers: Whom to feed.
        capacity: Events that may wait for one observer. Beyond that they are dropped, counted and logged once.

    Raises:
        ConfigurationError: If one of ``observers`` is no `TaskObserver`.
    """

    def __init__(self, observers: Sequence[TaskObserver], *, capacity: int = CAPACITY) -> None:
        self._observers = tuple(_checked(observer) for observer in observers)
        self._capacity = capacity
        self._workers: tuple[Worker, ...] = ()

    @property
    def active(self) -> bool:
        """Whether there is anybody to feed."""
        return bool(self._observers)

    @property
    def dropped(self) -> int:
        """Events dropped since the last start, because an observer did not keep up."""
        return sum(worker.dropped for worker in self._workers)

    async def start(self) -> None:
        """Start the workers, which call ``startup()`` of their observers first. It waits for none of them."""
        if not self._workers:
            self._workers = tuple(worker_for(observer, self._capacity) for observer in self._observers)
            for worker in self._workers:
                worker.start()

    async def stop(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a bound for hung observers, not for itself
        """Deliver what waits, call ``shutdown()`` of each observer and end.

        Args:
            timeout: Seconds that all observers together have; one that hangs is given up then.
        """
        workers, self._workers = self._workers, ()
        if not workers:
            return
        for worker in workers:
            worker.finish()
        waits = [asyncio.ensure_future(worker.ended()) for worker in workers]
        _, late = await asyncio.wait(waits, timeout=timeout)
        for wait, worker in zip(waits, workers, strict=True):
            if wait in late:
                logger.error("observer %s hung at shutdown; %d events are lost", worker.name, worker.give_up())
            wait.cancel()
        if late:
            await asyncio.sleep(0)  # for the cancelled ones to end

    def observe(self, event: TaskEvent) -> None:
        """Hand ``event`` to every worker that wants it."""
        if event.kind is EventKind.PROGRESSED:
            return
        for worker in self._workers:
            worker.offer(event)


def _checked(observer: object) -> TaskObserver:
    if isinstance(observer, TaskObserver):
        return observer
    msg = f"an observer must be an instance of a TaskObserver subclass, not {observer!r}"
    raise ConfigurationError(msg)
