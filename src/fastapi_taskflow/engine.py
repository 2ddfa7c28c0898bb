"""The seam to where an admitted task goes next. Fillings are in ``engines/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    from fastapi_taskflow.entry import Entry

    RunEntry = Callable[[Entry], Awaitable[float | None]]
    """Runs one attempt; returns when the next one is due (seconds since the Unix epoch), or None."""


class Engine(Protocol):
    """Brings admitted tasks to a runner."""

    def hold(self) -> None:
        """Take tasks, and keep them until ``start``."""

    def start(self, run: RunEntry) -> None:
        """Begin to run tasks by ``run``, those that were held first."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in an asyncio task of its own, in the caller's context, and see it through at shutdown."""

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Begin ``work`` at once; return the task that ends it and is seen through at shutdown, None if it has ended.

        Raises:
            BaseException: What ``work`` raises before it first waits.
        """

    async def run(self, entry: Entry) -> None:
        """Run ``entry`` until its attempt has ended. A later attempt is started when it is due."""

    def submit(self, entry: Entry) -> None:
        """Run ``entry`` on its own, at once or when it is due."""

    async def drain(self, *, within: float) -> bool:
        """Let what waits start and what runs finish within that many seconds; return whether all did."""

    async def stop(self, *, within: float) -> bool:
        """Start nothing more and let what runs finish within that many seconds; return whether all did."""

    async def abort(self, *, within: float) -> bool:
        """Cancel what still runs, wait that many seconds for it to notice, and return whether all has ended."""
