"""Runs sync functions in threads."""

from __future__ import annotations

import asyncio
import functools
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

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._limiter: anyio.CapacityLimiter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call ``func`` in a thread, with this context. A cancellation waits for the call's real end."""
        loop = asyncio.get_running_loop()
        if self._limiter is None or self._loop is not loop:
            self._loop, self._limiter = loop, anyio.CapacityLimiter(self._max_threads)
        call = functools.partial(func, *args, **kwargs)
        value = await anyio.to_thread.run_sync(call, limiter=self._limiter)
        # A sync callable may hand back a coroutine, as a lambda around an async function does.
        return await value if inspect.iscoroutine(value) else value
