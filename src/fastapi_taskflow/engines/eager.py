"""Begins a coroutine at once, and gives it an asyncio task of its own if it has to wait.

Most small tasks never wait. Begun in the next turn of the loop, as ``create_task`` does it, each of them would keep
its whole request alive until then: with many requests at a time the garbage collector's passes over all of these
cost more than the tasks. Python 3.12 has eager tasks for this; here the same is built for every version, on the
functions that asyncio documents for makers of tasks (https://docs.python.org/3/library/asyncio-extending.html).
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, Final

_NOTHING: Final = object()


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine after its first step; the task goes on with what that step waits for."""

    __slots__ = ("coroutine", "waits_for")

    def __init__(self) -> None:
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self.waits_for: Any = _NOTHING

    def send(self, value: Any) -> Any:
        """Go on."""
        if self.coroutine is None:
            raise StopIteration
        waits_for, self.waits_for = self.waits_for, _NOTHING
        return self.coroutine.send(value) if waits_for is _NOTHING else waits_for

    def throw(self, *error: Any) -> Any:
        """Go on with an error; most often it is a cancellation."""
        self.waits_for = _NOTHING
        if self.coroutine is None:
            raise StopIteration
        return self.coroutine.throw(*error)

    def close(self) -> None:
        """Give up."""
        if self.coroutine is not None:
            self.coroutine.close()

    def __await__(self) -> Any:
        """Be a coroutine by its methods alone."""
        raise NotImplementedError


def begin(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Begin ``coroutine`` now; return the task that ends it, or None if it has ended already.

    It runs in a copy of the caller's context, and sees its own task as the current one from the first step on.

    Args:
        coroutine: What to run.
        loop: The running loop.

    Raises:
        BaseException: What the first step raises.
    """
    context = copy_context()
    rest = _Rest()
    # Not by the loop's task factory: an eager one of Python 3.12 would begin with what is left.
    task: asyncio.Task[None] = asyncio.Task(rest, loop=loop, context=context)
    caller = asyncio.current_task(loop)
    if caller is not None:
        _leave_task(loop, caller)
    _enter_task(loop, task)
    try:
        rest.waits_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    finally:
        _leave_task(loop, task)
        if caller is not None:
            _enter_task(loop, caller)
    rest.coroutine = coroutine
    return task
