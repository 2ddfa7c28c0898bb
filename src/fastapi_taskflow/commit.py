"""One commit that is under way or to come, for those who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Commit:
    """Lets any number of waiters wait, each with its own patience; one that gives up disturbs no other."""

    __slots__ = ("_done", "_heir", "_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # A dict for its order: one that gives up must go, or a long outage would gather them all.
        self._waiters: dict[asyncio.Future[bool], None] = {}
        self._heir: Commit | None = None
        self._done = False

    @property
    def waiting(self) -> int:
        """How many wait for it now."""
        return len(self._last()._waiters)  # noqa: SLF001 - of this class

    async def wait(self, within: float | None = None) -> bool:
        """Wait until it is done; return False if that took longer than ``within`` seconds."""
        commit = self._last()
        if commit._done:  # noqa: SLF001 - of this class
            return True
        waiter: asyncio.Future[bool] = self._loop.create_future()
        commit._waiters[waiter] = None  # noqa: SLF001
        timer = None
        if within is not None:
            timer = self._loop.call_later(within, _settle, waiter, False)  # noqa: FBT003 - it takes no keywords
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._last()._waiters.pop(waiter, None)  # noqa: SLF001

    def done(self) -> None:
        """Let all waiters go on, now and later."""
        self._done = True
        for waiter in self._waiters:
            _settle(waiter, True)  # noqa: FBT003
        self._waiters = {}

    def take_over(self, other: Commit) -> None:
        """Let those who wait for ``other``, now or later, wait for this one."""
        self._waiters |= other._waiters
        other._waiters = {}
        other._heir = self

    def _last(self) -> Commit:
        """Return the one that has taken this one over in the end."""
        last = self
        while last._heir is not None:
            last = last._heir
        if last is not self:
            self._heir = last
        return last


def _settle(waiter: asyncio.Future[bool], committed: bool) -> None:  # noqa: FBT001
    if not waiter.done():
        waiter.set_result(committed)
