"""One queue in this process: its limits, who runs and who waits."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from fastapi_taskflow.engines.rate import StartWindow
from fastapi_taskflow.engines.waiting import Line, is_gone
from fastapi_taskflow.task.queue import NO_LIMITS

if TYPE_CHECKING:
    import asyncio

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.task.queue import QueueConfig


class Lane:
    """One queue.

    Args:
        name: Its name.
        free: See below.

    Attributes:
        config: Its limits.
        paused: Whether nothing starts.
        free: Whether everything may start at once, without asking: nothing limits it.
        known: Whether it stays when nobody is in it.
        running: Attempts that run, or are about to.
        line: Who waits.
        window: Its last starts, if their rate is limited.
        timer: Set while only the rate holds it up.
        ringed: Whether it waits for its turn among the queues.
        reserved: New tasks that have not come to the line yet, where ``max_size`` counts them. One whose request or
            transaction failed is not referred to by anything else, and so leaves by itself.
    """

    __slots__ = (
        "config", "free", "known", "line", "name", "paused", "reserved", "ringed", "running", "timer", "window",
    )  # fmt: skip

    def __init__(self, name: str, *, free: bool) -> None:
        self.name = name
        self.config = NO_LIMITS
        self.paused = False
        self.free = free
        self.known = False
        self.running = 0
        self.line = Line()
        self.window: StartWindow | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.ringed = False
        self.reserved: dict[str, weakref.ref[Entry]] = {}

    @property
    def slow(self) -> bool:
        """Whether one who waits may wait for long, though those who run end: nobody should follow it step by step."""
        return self.paused or self.window is not None

    @property
    def full(self) -> bool:
        """Whether as many run as may."""
        return self.config.concurrency is not None and self.running >= self.config.concurrency

    def limit(self, config: QueueConfig, *, paused: bool, free: bool) -> None:
        """Set its limits. Those that run go on; what started lately counts for a new rate."""
        starts = self.window.starts if self.window is not None else ()
        rate = config.rate
        self.window = None if rate is None else StartWindow(rate, starts)
        self.config = config
        self.paused = paused
        self.free = free
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def reserve(self, entry: Entry) -> None:
        """Count a new task as waiting, until it comes to the line."""
        self.reserved[entry.record.task_id] = weakref.ref(entry)

    def has_room(self) -> bool:
        """Tell whether another task may wait. May be called in any thread.

        Only where it seems full it is looked for those who have gone, so adding costs the same however many wait.
        """
        most = self.config.max_size
        return most is None or len(self.line) + len(self.reserved) < most or self.waiting() < most

    def waiting(self) -> int:
        """Count those who wait, in the line or on their way to it. May be called in any thread."""
        for task_id, held in self.reserved.copy().items():
            entry = held()
            if entry is None or is_gone(entry):
                self.reserved.pop(task_id, None)
        return sum(not is_gone(waiter.entry) for waiter in self.line) + len(self.reserved)
