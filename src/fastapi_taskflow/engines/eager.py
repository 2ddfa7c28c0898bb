"""Begins a coroutine at once, and gives it an asyncio task of its own if it has to wait.

Most small tasks never wait. Begun in the next turn of the loop, as ``create_task`` does it, each of them would keep
its whole request alive until then: with many requests at a time the garbage collector's passes over all of these
cost more than the tasks. Python 3.12 has eager tasks for this; here the same is built for every version, on the
functions that asyncio documents for makers of tasks (https://docs.python.org/3/library/asyncio-extending.html).
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import tasks as asyncio_tasks
from collections.abc import Coroutine
from typing import Any, Final

_NOTHING: Final = object()


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine after its first step; the task goes on with what that step waits for."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = coroutine
        self._waits_for: Any = _NOTHING

    def begin(self) -> None:
        """Take the first step. StopIteration says that it was the only one."""
        coroutine = self._coroutine
        self._coroutine = None
        assert coroutine is not None  # noqa: S101 - begun once
        self._waits_for = coroutine.send(None)
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        """Go on."""
        if self._coroutine is None:
            raise StopIteration
        waits_for, self._waits_for = self._waits_for, _NOTHING
        return self._coroutine.send(value) if waits_for is _NOTHING else waits_for

    def throw(self, *error: Any) -> Any:
        """Go on with an error; most often it is a cancellation."""
        self._waits_for = _NOTHING
        if self._coroutine is None:
            raise StopIteration
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Give up."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Any:
        """Be a coroutine by its methods alone."""
        raise NotImplementedError


def begin(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Begin ``coroutine`` now; return the task that ends it, or None if it has ended already.

    It runs in a copy of the caller's context, and sees its own task as the current one from the first step on.

    Raises:
        BaseException: What the first step raises.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    rest = _Rest(coroutine)
    task: asyncio.Task[None] = loop.create_task(rest, context=context)
    caller = asyncio.current_task()
    if caller is not None:
        asyncio_tasks._leave_task(loop, caller)  # noqa: SLF001 - documented, see above
    asyncio_tasks._enter_task(loop, task)  # noqa: SLF001
    try:
        context.run(rest.begin)
    except StopIteration:
        return None
    finally:
        asyncio_tasks._leave_task(loop, task)  # noqa: SLF001
        if caller is not None:
            asyncio_tasks._enter_task(loop, caller)  # noqa: SLF001
    return task
