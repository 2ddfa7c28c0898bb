"""Who may start: each queue within its limits, all of them within the process's, and each queue in its turn."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_taskflow.engines.lane import Lane
from fastapi_taskflow.engines.waiting import Waiter, is_gone
from fastapi_taskflow.errors import QueueFullError
from fastapi_taskflow.task.queue import DEFAULT, NO_LIMITS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.engines.waiting import Turn
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.task.queue import QueueConfig

logger = logging.getLogger("fastapi_taskflow.queues")

NAMES_TOLD: Final = 100
"""Undeclared queues that are warned of."""

PAUSE_NOTICE: Final = 30.0
"""Seconds after which a client may try again to add to a queue that is full and paused."""


class Timers(Protocol):
    """A clock that is never set back, and calls at a later time: an event loop."""

    def time(self) -> float:
        """Return the time in seconds."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Have ``callback`` called after ``delay`` seconds."""


class Queues:
    """Hands out slots. All but ``require_room`` and ``reserve`` is called on the loop's thread only.

    Between the queues with somebody who may start it goes round: one start each. Nobody is passed over, since a queue
    leaves the round only while its own limits hold it up, and comes back at the end of it as soon as they do not.

    Args:
        limit: Attempts at the same time in all queues together; None is without limit.
        declared: The queues that the code gives limits.

    Attributes:
        bounded: Whether some queue has a ``max_size``.
        lanes: The queues that are known, or have somebody in them.
        waiting: How many wait in all lines.
        shrunk: Called each time that somebody left a line.
    """

    def __init__(self, limit: int | None, declared: Mapping[str, QueueConfig]) -> None:
        self.declared = dict(declared)
        self.bounded = False
        self.waiting = 0
        self.shrunk: Callable[[], None] | None = None
        self._limit = limit
        self._running = 0
        self.lanes: dict[str, Lane] = {}
        self._ring: deque[Lane] = deque()
        self._timers: Timers | None = None
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._closing = False
        self.reset()

    def reset(self) -> None:
        """Begin anew, with the declared limits."""
        self._closing = False
        self._timers = None
        self._running = self.waiting = 0
        self._ring.clear()
        self.lanes = {}
        for name, config in {DEFAULT: NO_LIMITS, **self.declared}.items():
            self.change(name, config, paused=False)

    def open(self, timers: Timers) -> None:
        """Begin to hand out slots."""
        self._timers = timers

    # -- what is known -----------------------------------------------------------------------------------------------

    def lane(self, name: str) -> Lane:
        """Return a queue; one that nobody declared has no limits of its own."""
        found = self.lanes.get(name)
        if found is None:
            found = self._added(name)
            if self.declared and name not in self._told and len(self._told) < NAMES_TOLD:
                self._told.add(name)
                logger.warning("the queue %r is not among TaskManager(queues=…): it has no limits of its own", name)
        return found

    def _added(self, name: str) -> Lane:
        lane = self.lanes[name] = Lane(name, free=self._limit is None)
        return lane

    def is_paused(self, name: str) -> bool:
        """Tell whether a queue is paused."""
        lane = self.lanes.get(name)
        return lane is not None and lane.paused

    def has_limits(self, name: str) -> bool:
        """Tell whether what is added to a queue may have to wait for its turn."""
        lane = self.lanes.get(name)
        return not lane.free if lane is not None else self._limit is not None

    def limits(self) -> Mapping[str, int | None]:
        """Return how many may run at once in each known queue; None is without limit."""
        most = math.inf if self._limit is None else self._limit
        least = {
            name: min(most, math.inf if lane.config.concurrency is None else lane.config.concurrency)
            for name, lane in list(self.lanes.items())
            if lane.known
        }
        return {name: None if limit == math.inf else int(limit) for name, limit in least.items()}

    # -- limits ------------------------------------------------------------------------------------------------------

    def change(self, name: str, config: QueueConfig, *, paused: bool) -> None:
        """Set a queue's limits. What runs goes on; what may start by them starts at once."""
        lane = self.lanes.get(name) or self._added(name)
        lane.known = name in self.declared or name == DEFAULT or config != NO_LIMITS or paused
        lane.limit(config, paused=paused, free=self._limit is None and config == NO_LIMITS and not paused)
        self.bounded = any(each.config.max_size is not None for each in self.lanes.values())
        if lane.slow:
            for waiter in lane.line:
                waiter.turn.let_go()
        self._wake(lane)
        self._drop_if_idle(lane)

    def require_room(self, name: str) -> None:
        """Make sure that another task may be added to a queue. May be called in any thread.

        Raises:
            QueueFullError: If as many wait as may.
        """
        lane = self.lanes.get(name)
        if lane is not None and not lane.has_room():
            raise self._full(lane)

    def reserve(self, entry: Entry) -> None:
        """Count a new task as waiting before it comes to its line. May be called in any thread.

        Raises:
            QueueFullError: If as many wait as may.
        """
        lane = self.lanes.get(entry.record.queue)
        if lane is None or lane.config.max_size is None:
            return
        with self._lock:
            if entry.record.task_id in lane.reserved:
                return
            if not lane.has_room():
                raise self._full(lane)
            lane.reserve(entry)

    def _full(self, lane: Lane) -> QueueFullError:
        seconds = 1.0
        if lane.paused:
            seconds = PAUSE_NOTICE
        elif lane.window is not None and self._timers is not None:
            seconds = max(1.0, lane.window.wait(self._timers.time()))
        return QueueFullError(lane.name, max_size=lane.config.max_size or 0, retry_after=math.ceil(seconds))

    # -- slots -------------------------------------------------------------------------------------------------------

    def enter(self, lane: Lane, entry: Entry, turn: Turn) -> Waiter | None:
        """Take a slot for ``entry``, or let it wait for one.

        Returns:
            None if it has a slot, which is to be given back by ``leave``. Otherwise what waits; ``turn`` is told when
            it has its slot, or has left the line.
        """
        lane.reserved.pop(entry.record.task_id, None)
        now = self._now()
        has_place = self._limit is None or self._running < self._limit
        if has_place and not lane.line and self._may_start(lane, now):
            self._take_slot(lane, now)
            return None
        if self._closing and lane.paused:
            return self._refused(entry, turn)
        waiter = lane.line.add(entry, turn, now=now)
        self.waiting += 1
        entry.leave_line = partial(self.give_up, lane, waiter)
        if lane.slow:
            turn.let_go()
        self._wake(lane)
        return waiter

    def give_up(self, lane: Lane, waiter: Waiter) -> None:
        """Take one who waits out of its line. Harmless when it has left."""
        if waiter.left:
            return
        lane.line.remove(waiter)
        self._gone(waiter)
        waiter.turn.let_go()
        self._drop_if_idle(lane)

    def leave(self, lane: Lane) -> None:
        """Give a slot back; whoever may start by that does."""
        lane.running -= 1
        if self._limit is not None:
            self._running -= 1
        if self.waiting:
            self._wake(lane)
        elif not lane.known:
            self._drop_if_idle(lane)

    def let_paused_go(self) -> None:
        """Take all out of the lines of paused queues, now and later: they stay as they are in the store."""
        self._closing = True
        self._clear([lane for lane in self.lanes.values() if lane.paused])

    def close(self) -> None:
        """Take all out of all lines."""
        self._clear(list(self.lanes.values()))

    def _clear(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            for waiter in lane.line:
                self.give_up(lane, waiter)

    def _refused(self, entry: Entry, turn: Turn) -> Waiter:
        waiter = Waiter(entry, turn)
        waiter.left = True
        turn.let_go()
        return waiter

    def _wake(self, lane: Lane) -> None:
        """Let a queue that may have somebody who may start come to its turn."""
        if lane.line and not lane.ringed:
            lane.ringed = True
            self._ring.append(lane)
        while self._ring and (self._limit is None or self._running < self._limit):
            self._serve(self._ring.popleft())

    def _serve(self, lane: Lane) -> None:
        """Let one of a queue start. The queue stays in the round if another one may."""
        lane.ringed = False
        now = self._now()
        while lane.line and self._may_start(lane, now):
            waiter = lane.line.pop()
            self._gone(waiter)
            if is_gone(waiter.entry):
                waiter.turn.let_go()
                continue
            self._take_slot(lane, now)
            if lane.line:
                lane.ringed = True
                self._ring.append(lane)
            waiter.turn.come()
            return
        self._drop_if_idle(lane)

    def _may_start(self, lane: Lane, now: float) -> bool:
        if lane.paused or lane.full:
            return False
        wait = 0.0 if lane.window is None else lane.window.wait(now)
        if wait > 0 and lane.timer is None and self._timers is not None:
            lane.timer = self._timers.call_later(wait, self._due, lane)
        return wait <= 0

    def _due(self, lane: Lane) -> None:
        lane.timer = None
        self._wake(lane)

    def _take_slot(self, lane: Lane, now: float) -> None:
        lane.running += 1
        if self._limit is not None:
            self._running += 1
        if lane.window is not None:
            lane.window.note(now)

    def _gone(self, waiter: Waiter) -> None:
        self.waiting -= 1
        waiter.entry.leave_line = None
        if self.shrunk is not None:
            self.shrunk()

    def _drop_if_idle(self, lane: Lane) -> None:
        """Forget a queue that nobody declared and nobody is in, or names that are made up would fill the memory."""
        if not (lane.known or lane.running or lane.line) and self.lanes.get(lane.name) is lane:
            del self.lanes[lane.name]

    def _now(self) -> float:
        return 0.0 if self._timers is None else self._timers.time()
