"""One commit that is under way or to come, for those who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Commit:
    """Lets any number of waiters wait, each with its own patience; one that gives up disturbs no other."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: list[asyncio.Future[bool]] = []

    async def wait(self, within: float | None = None) -> bool:
        """Wait until it is done; return False if that took longer than ``within`` seconds."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append(waiter)
        if within is None:
            return await waiter
        timer = self._loop.call_later(within, _settle, waiter, False)  # noqa: FBT003 - call_later takes no keywords
        try:
            return await waiter
        finally:
            timer.cancel()

    def done(self) -> None:
        """Let all waiters go on."""
        for waiter in self._waiters:
            _settle(waiter, True)  # noqa: FBT003
        self._waiters.clear()

    def take_over(self, other: Commit) -> None:
        """Let those who wait for ``other`` wait for this one."""
        self._waiters += other._waiters
        other._waiters = self._waiters


def _settle(waiter: asyncio.Future[bool], committed: bool) -> None:  # noqa: FBT001
    if not waiter.done():
        waiter.set_result(committed)
