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
    """Brings admitted tasks to a runner, in the order and within the limits of their queues."""

    @property
    def bounded(self) -> bool:
        """Whether some queue bounds how many may wait: otherwise ``reserve`` need not be called."""

    def require_room(self, queue: str) -> None:
        """Make sure that another task may be added to a queue. May be called in any thread.

        Raises:
            QueueFullError: If as many wait as may.
        """

    def reserve(self, entry: Entry) -> None:
        """Count a new task as waiting, until it is run or submitted, or has gone. May be called in any thread.

        Raises:
            QueueFullError: If as many wait as may.
        """

    def is_paused(self, queue: str) -> bool:
        """Tell whether nothing of a queue starts."""

    def has_limits(self, queue: str) -> bool:
        """Tell whether a queue makes tasks wait for their turn."""

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
        """Run ``entry`` until its attempt has ended. What is due later, or held up for long, runs on its own."""

    def submit(self, entry: Entry) -> None:
        """Run ``entry`` on its own, at once or when it is due."""

    async def drain(self, *, within: float) -> bool:
        """Let what waits start and what runs finish within that many seconds; return whether all did.

        What waits in a paused queue stays in the store.
        """

    async def stop(self, *, within: float) -> bool:
        """Start nothing more and let what runs finish within that many seconds; return whether all did."""

    async def abort(self, *, within: float) -> bool:
        """Cancel what still runs, wait that many seconds for it to notice, and return whether all has ended."""
