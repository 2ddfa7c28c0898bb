"""How an instance knows that its tasks are still its own."""

from __future__ import annotations

import asyncio
import time
from typing import Final

STILL: Final = 1 / 6
"""Part of a lease for which the loop must not turn to count as standing still: twice the time between two pulses."""


class Lease:
    """The time for which the last heartbeat keeps others from taking this instance's tasks.

    It runs by the monotonic clock, counted from before each heartbeat: the others count from when they see it, so it
    never ends here later than there. If the loop stood still when it ended, by a SIGSTOP or by code that never awaits,
    what happened meanwhile must be looked up before anything goes on. The last heartbeat may be a third of a lease old
    by then, so a loop that stood still for less than a lease may have lost its tasks too.

    Args:
        seconds: Its length; None for a store that nobody else sees, and a lease that never ends.
    """

    __slots__ = ("_frozen", "_pulse", "_renewed", "_seconds", "_waiting")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._renewed = self._pulse = time.monotonic()
        self._frozen = False
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def held(self) -> bool:
        """Whether new attempts may start: a heartbeat came through within the lease."""
        return not self._frozen and (self._seconds is None or time.monotonic() - self._renewed < self._seconds)

    @property
    def frozen(self) -> bool:
        """Whether the loop stood still while the lease was over, and nobody has looked since what is lost."""
        if self._frozen or self._seconds is None:
            return self._frozen
        now = time.monotonic()
        return now - self._renewed >= self._seconds and now - self._pulse >= self._seconds * STILL

    def pulse(self) -> None:
        """Show that the loop turns. Called several times a lease."""
        if self.frozen:
            self._frozen = True
        self._pulse = time.monotonic()

    def renew(self, since: float) -> None:
        """Begin it anew, and let those who wait go on.

        Args:
            since: ``time.monotonic()`` from before the heartbeat was written.
        """
        self._renewed = since
        self._frozen = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def regained(self) -> asyncio.Future[None]:
        """Return what is done once the lease is renewed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter
