"""How many attempts of a queue start within a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi_taskflow.task.queue import RateLimit


class StartWindow:
    """Remembers the last starts, as many as are allowed within the time of the limit.

    A bucket of tokens would be smaller, but lets almost twice as many through within one period: what it holds, and
    what flows in meanwhile.

    Args:
        limit: The limit.
        starts: Starts before it, oldest first.
    """

    def __init__(self, limit: RateLimit, starts: Iterable[float] = ()) -> None:
        self._limit = limit
        self.starts = deque(starts, maxlen=limit.count)

    def wait(self, now: float) -> float:
        """Return in how many seconds another one may start; 0 if it may now."""
        if len(self.starts) < self._limit.count:
            return 0.0
        return max(0.0, self.starts[0] + self._limit.seconds - now)

    def note(self, now: float) -> None:
        """Take note of a start."""
        self.starts.append(now)
