"""The one place that asks for the time, and that waits for a time of day.

Records carry times as float seconds since the Unix epoch in UTC: they sort, subtract and store as they are, and
cost a tenth of a ``datetime``. They become aware ``datetime`` objects where people or JSON see them.

What is due at a time (a retry, a schedule, an expiry) waits by `call_at` or `sleep_until`, so that a test can put a
clock of its own in the place of this one and move it. Call all three by the module, as in ``clock.now()``: a name that
is imported from here would go on to mean the real clock.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT: Final = 600.0
"""Seconds after which a timer looks at the clock again: it may have been set, or the machine may have slept."""


class Timer(Protocol):
    """A call that is due at some time."""

    def cancel(self) -> None:
        """Do not make it."""


class Clock(Protocol):
    """What can stand in the place of the real clock."""

    def now(self) -> float:
        """Return the seconds since the Unix epoch."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call ``callback(*args)`` on the running loop once it is ``when``."""

    async def sleep_until(self, when: float) -> None:
        """Return once it is ``when``."""


class _LoopTimer:
    """A timer on an asyncio loop."""

    __slots__ = ("_args", "_callback", "_handle", "_loop", "_when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._loop = asyncio.get_running_loop()
        self._when = when
        self._callback = callback
        self._args = args
        self._wait()

    def _wait(self) -> None:
        wait = min(max(0.0, self._when - now()), LONGEST_WAIT)
        self._handle = self._loop.call_later(wait, self._look)

    def _look(self) -> None:
        if now() < self._when:
            self._wait()
        else:
            self._callback(*self._args)

    def cancel(self) -> None:
        """Do not make the call."""
        self._handle.cancel()


def _call_at(when: float, callback: Callable[..., object], *args: Any) -> Timer:
    return _LoopTimer(when, callback, args)


async def _sleep_until(when: float) -> None:
    due = asyncio.get_running_loop().create_future()
    timer = call_at(when, due.set_result, None)
    try:
        await due
    finally:
        timer.cancel()


now: Callable[[], float] = time.time
"""Seconds since the Unix epoch, UTC."""

call_at: Callable[..., Timer] = _call_at
"""``call_at(when, callback, *args)``: make the call on the running loop once it is ``when``; never before."""

sleep_until = _sleep_until
"""``await sleep_until(when)``: return once it is ``when``."""


_used: Clock | None = None


def current() -> Clock | None:
    """Return what stands in the place of the real clock, or None."""
    return _used


def use(clock: Clock | None) -> Clock | None:
    """Put ``clock`` in the place of the real one, for tests; return what was there. None is the real one."""
    global now, call_at, sleep_until, _used
    before, _used = _used, clock
    if clock is None:
        now, call_at, sleep_until = time.time, _call_at, _sleep_until
    else:
        now, call_at, sleep_until = clock.now, clock.call_at, clock.sleep_until
    return before


def to_datetime(seconds: float) -> datetime:
    """Return the aware UTC ``datetime`` for ``seconds`` since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def to_iso(seconds: float) -> str:
    """Return ISO 8601 text in UTC with microseconds, such as ``2026-11-24T22:05:00.000000Z``."""
    return to_datetime(seconds).isoformat(timespec="microseconds").replace("+00:00", "Z")
