"""Runs sync functions in threads."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ThreadExecutor:
    """Runs each call in a thread of anyio's pool, under a limit of its own, so that tasks never starve sync routes.

    Args:
        max_threads: Calls at the same time; further ones wait.
    """

    name = "thread"
    can_stop = False

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._limiter: anyio.CapacityLimiter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call ``func`` in a thread, with this context, and return what becomes of it, cancelled meanwhile or not.

        A thread cannot be stopped: whoever says that it was would let it run twice.
        """
        loop = asyncio.get_running_loop()
        if self._limiter is None or self._loop is not loop:
            self._loop, self._limiter = loop, anyio.CapacityLimiter(self._max_threads)

        def call() -> tuple[Any, BaseException | None]:
            # Caught here, since a SystemExit that comes out of an asyncio task ends the loop.
            try:
                return func(*args, **kwargs), None
            except BaseException as error:  # noqa: BLE001
                return None, error

        thread = loop.create_task(anyio.to_thread.run_sync(call, limiter=self._limiter))
        value, error = await _to_its_end(thread)
        if error is not None:
            raise error
        # A sync callable may hand back a coroutine, as a lambda around an async function does.
        return await value if inspect.iscoroutine(value) else value


async def _to_its_end(thread: asyncio.Task[tuple[Any, BaseException | None]]) -> tuple[Any, BaseException | None]:
    while not thread.done():
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            if thread.done():
                raise
    return thread.result()
