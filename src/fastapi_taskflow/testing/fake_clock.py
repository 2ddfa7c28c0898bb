"""A clock that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.placing import instant_of, seconds_of
from fastapi_taskflow.testing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

    from fastapi_taskflow.manager import TaskManager


class FakeClock:
    """The time of all managers in this process, which stands still until a test moves it.

    Retries, delays, schedules and expiries wait for it; ``asyncio.sleep``, time limits of attempts and rate limits go
    on by real time. Enter it before the manager starts: what waits already goes on to wait for the real clock.

    Args:
        *managers: Whose tasks `advance` waits for.
        start: The time at first, with a time zone; None is now.
        within: Real seconds that the tasks of one step may take.

    Raises:
        ConfigurationError: If ``start`` is no ``datetime`` with a time zone.
    """

    def __init__(self, *managers: TaskManager, start: datetime | None = None, within: float = 10.0) -> None:
        self._managers = list(managers)
        self._now = clock.now() if start is None else instant_of("start", start)
        self._within = within
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()
        self._awake: set[asyncio.Task[Any]] = set()
        self._before: clock.Clock | None = None

    def __enter__(self) -> Self:
        """Stop the time."""
        self._before = clock.use(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the real clock, or the one before, go on, with what still waits.

        Raises:
            ConfigurationError: If another clock was begun later and is still in use.
        """
        if clock.current() is not self:
            msg = (
                "the clocks of a test end one within the other: do not run two things side by side that have their own"
            )
            raise ConfigurationError(msg)
        clock.use(self._before)
        for when, _, call in sorted(self._timers):
            if not call.cancelled and not call.loop.is_closed():
                call.loop.call_soon_threadsafe(clock.call_at, when, call.make)
        self._timers.clear()

    def watch(self, manager: TaskManager) -> None:
        """Wait for the tasks of ``manager`` too."""
        if manager not in self._managers:
            self._managers.append(manager)

    @property
    def time(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    # -- moved by the test -------------------------------------------------------------------------------------------

    async def advance(self, by: float | timedelta) -> None:
        """Move the time forward, and run all that becomes due on the way, each at its time and to its end.

        Args:
            by: Seconds, or a ``timedelta``.

        Raises:
            ConfigurationError: If it is negative, or this is not the loop that the tasks run on.
            TimeoutError: If a task runs for more than ``within`` real seconds.
        """
        await self._advance_to(self._now + seconds_of("by", by))

    async def advance_to(self, when: datetime) -> None:
        """Do what `advance` does, until it is ``when``, a ``datetime`` with a time zone.

        Raises:
            ConfigurationError: If that is in the past, or this is not the loop that the tasks run on.
            TimeoutError: If a task runs for more than ``within`` real seconds.
        """
        await self._advance_to(instant_of("when", when))

    async def advance_until(self, done: Callable[[], bool]) -> None:
        """Move the time forward from one due call to the next, until ``done()`` says yes.

        Raises:
            ConfigurationError: If this is not the loop that the tasks run on.
            TimeoutError: If nothing is due any more, or a task runs for more than ``within`` real seconds.
        """
        await self._settle()
        while not done():
            if not await self._step(math.inf):
                msg = "nothing waits for its time any more, and what was waited for has not come"
                raise TimeoutError(msg)

    async def _advance_to(self, target: float) -> None:
        if target < self._now:
            msg = f"time goes forward only: it is {clock.to_iso(self._now)} already"
            raise ConfigurationError(msg)
        await self._settle()
        while await self._step(target):
            pass
        self._now = target
        await self._settle()

    async def _step(self, until: float) -> bool:
        """Make the calls that are due next, if that is before ``until``; return whether there were any."""
        self._forget_cancelled()
        if not self._timers or self._timers[0][0] > until:
            return False
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            call = heapq.heappop(self._timers)[2]
            if call.loop is not asyncio.get_running_loop():
                msg = (
                    "the time has to be moved on the loop that the tasks run on; with TestClient: "
                    "client.portal.call(clock.advance, seconds)"
                )
                raise ConfigurationError(msg)
            call.make()
        await self._settle()
        return True

    def _forget_cancelled(self) -> None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)

    async def _settle(self) -> None:
        await settled(
            self._managers,
            within=self._within,
            others=lambda: [task for task in self._awake if not task.done()],
        )
        self._awake.clear()

    # -- asked by the package ----------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the seconds since the Unix epoch."""
        return self._now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> clock.Timer:
        """Call ``callback(*args)`` once the test has moved the time to ``when``; at once if that is past."""
        loop = asyncio.get_running_loop()
        if when <= self._now:
            return loop.call_soon(callback, *args)
        call = _Call(loop, callback, args)
        heapq.heappush(self._timers, (when, next(self._numbers), call))
        return call

    async def sleep_until(self, when: float) -> None:
        """Return once the test has moved the time to ``when``. It waits then until the caller sleeps again, or ends."""
        me = asyncio.current_task()
        if me is not None:
            self._awake.discard(me)
        due = asyncio.get_running_loop().create_future()
        timer = self.call_at(when, due.set_result, None)
        try:
            await due
        finally:
            timer.cancel()
        if me is not None:
            self._awake.add(me)


class _Call:
    """A call that is due at some time."""

    __slots__ = ("_args", "_callback", "cancelled", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.loop = loop
        self._callback = callback
        self._args = args
        self.cancelled = False

    def make(self) -> None:
        """Make it, unless it was cancelled."""
        if not self.cancelled:
            self._callback(*self._args)

    def cancel(self) -> None:
        """Do not make it."""
        self.cancelled = True
