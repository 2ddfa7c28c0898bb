"""Queues on a clock that a test moves."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.engines.queues import Queues
from tests.unit.fakes import make_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.engines.lane import Lane
    from fastapi_taskflow.engines.waiting import Waiter
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.task.queue import QueueConfig


class FakeTimer:
    """A call that is to be made."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not make it."""
        self.callback = None


class FakeTimers:
    """A clock and its calls, without a loop."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._order = itertools.count()
        self._planned: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        """Return the time."""
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Any:
        """Plan a call."""
        timer = FakeTimer(lambda: callback(*args))
        heapq.heappush(self._planned, (self.now + delay, next(self._order), timer))
        return timer

    @property
    def planned(self) -> int:
        """How many calls are to be made."""
        return sum(timer.callback is not None for _, _, timer in self._planned)

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that are due."""
        end = self.now + seconds
        while self._planned and self._planned[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._planned)
            if timer.callback is not None:
                timer.callback()
        self.now = end


class Waits:
    """A turn that takes down what became of it."""

    def __init__(self, world: World, lane: Lane, entry: Entry) -> None:
        self._world = world
        self._lane = lane
        self.entry = entry
        self.let_goes = 0
        self.waiter: Waiter | None = None

    def come(self) -> None:
        """Start."""
        self._world.started(self._lane, self.entry)

    def let_go(self) -> None:
        """Take it down."""
        self.let_goes += 1


class World:
    """Queues, who runs in them, and the order of starts."""

    def __init__(self, limit: int | None = None, **queues: QueueConfig) -> None:
        self.timers = FakeTimers()
        self.queues = Queues(limit, queues)
        self.queues.open(self.timers)
        self.starts: list[str] = []
        self.started_at: list[tuple[float, str]] = []
        self.running: dict[str, tuple[Lane, Entry]] = {}
        self._numbers = itertools.count(1)

    def started(self, lane: Lane, entry: Entry) -> None:
        """Take down a start."""
        task_id = entry.record.task_id
        self.starts.append(task_id)
        self.started_at.append((self.timers.now, entry.record.queue))
        self.running[task_id] = (lane, entry)

    def add(self, queue: str = "default", priority: int = 0, task_id: str | None = None) -> Waits:
        """Submit a task."""
        entry = make_entry(task_id or f"t{next(self._numbers)}", queue=queue, priority=priority)
        return self.enter(entry)

    def enter(self, entry: Entry) -> Waits:
        """Let an entry start or wait."""
        lane = self.queues.lane(entry.record.queue)
        turn = Waits(self, lane, entry)
        turn.waiter = self.queues.enter(lane, entry, turn)
        if turn.waiter is None:
            self.started(lane, entry)
        return turn

    def end(self, task_id: str) -> None:
        """Let a running one end."""
        lane, _ = self.running.pop(task_id)
        self.queues.leave(lane)

    def end_all(self) -> None:
        """Let those that run end, and those that start by it, until nobody runs."""
        while self.running:
            self.end(next(iter(self.running)))

    def set(self, name: str, config: QueueConfig, *, paused: bool = False) -> None:
        """Set a queue's limits."""
        self.queues.change(name, config, paused=paused)

    def count(self, queue: str) -> int:
        """Return how many of a queue run."""
        return sum(entry.record.queue == queue for _, entry in self.running.values())

    def facts(self) -> Mapping[str, Lane]:
        """Return the queues."""
        return self.queues.lanes
