"""Begins a coroutine at once, and gives it an asyncio task of its own if it has to wait.

Most small tasks never wait. Begun in the next turn of the loop, as ``create_task`` does it, each of them would keep
its whole request alive until then: with many requests at a time the garbage collector's passes over all of these
cost more than the tasks. Python 3.12 has eager tasks for this; here the same is built for every version, on the
functions that asyncio documents for makers of tasks (https://docs.python.org/3/library/asyncio-extending.html).

What never waits still has to see an asyncio task of its own as the current one, since time limits and cancel scopes
cling to it. Making one costs more than all else here, so the one that a coroutine did not need is kept for the next
coroutine, unless anybody got hold of it meanwhile.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from contextvars import Context, copy_context
from sys import getrefcount
from typing import TYPE_CHECKING, Any, Final
from weakref import getweakrefcount

if TYPE_CHECKING:
    from fastapi_taskflow.lease import Lease

_NOTHING: Final = object()


class _Rest(Coroutine[Any, Any, None]):
    """What an asyncio task drives: nothing at first, then what is left of a coroutine after its first step."""

    __slots__ = ("_context", "_coroutine", "_idle", "_lease", "_needed", "_waits_for")

    def __init__(self, lease: Lease | None) -> None:
        self._lease = lease
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._context = Context()
        self._waits_for: Any = _NOTHING
        self._idle: asyncio.Future[None] | None = None
        self._needed = True

    def adopt(self, coroutine: Coroutine[Any, Any, None], context: Context, waits_for: Any) -> None:
        """Take over a coroutine that ran to its first wait."""
        self._coroutine, self._context, self._waits_for = coroutine, context, waits_for
        self._wake()

    def retire(self) -> None:
        """Let the task end: no coroutine will need it."""
        self._needed = False
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def send(self, value: Any) -> Any:
        """Go on."""
        if self._coroutine is None:
            return self._wait_for_work()
        waits_for, self._waits_for = self._waits_for, _NOTHING
        if waits_for is not _NOTHING:
            return waits_for
        if self._lease is not None and self._lease.frozen:
            # What it would do next may be somebody else's to do by now.
            return _wait_for(self._lease.regained())
        return self._context.run(self._coroutine.send, value)

    def _wait_for_work(self) -> asyncio.Future[None]:
        if not self._needed:
            raise StopIteration
        self._idle = asyncio.get_running_loop().create_future()
        return _wait_for(self._idle)

    def throw(self, *error: Any) -> Any:
        """Go on with an error; most often it is a cancellation."""
        self._waits_for = _NOTHING
        if self._coroutine is None:
            raise StopIteration
        return self._context.run(self._coroutine.throw, *error)

    def close(self) -> None:
        """Give up."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Any:
        """Be a coroutine by its methods alone."""
        raise NotImplementedError


class Starter:
    """Begins coroutines on one loop.

    Args:
        loop: The loop.
        lease: A coroutine that waited goes on only while this is not frozen, and is cancelled if its task was lost
            meanwhile; None without leases.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lease: Lease | None = None) -> None:
        self._loop = loop
        self._lease = lease
        self._spare: tuple[_Rest, asyncio.Task[None]] | None = None
        self._closed = False

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Begin ``coroutine`` now; return the task that ends it, or None if it has ended already.

        It runs in a copy of the caller's context, and sees its own task as the current one from the first step on.

        Args:
            coroutine: What to run.

        Raises:
            BaseException: What the first step raises.
        """
        loop = self._loop
        spare, self._spare = self._spare, None
        if spare is None or not _is_untouched(spare[1]):
            spare = self._made()
        rest, task = spare
        holders = getrefcount(task), getweakrefcount(task)
        context = copy_context()
        caller = asyncio.current_task(loop)
        if caller is not None:
            _leave_task(loop, caller)
        _enter_task(loop, task)
        waits, waits_for = False, None
        try:
            waits_for = context.run(coroutine.send, None)
            waits = True
        except StopIteration:
            pass
        finally:
            _leave_task(loop, task)
            if caller is not None:
                _enter_task(loop, caller)
            if waits:
                rest.adopt(coroutine, context, waits_for)
            elif holders == (getrefcount(task), getweakrefcount(task)) and _is_untouched(task):
                self._keep(spare)
            else:
                rest.retire()
        return task if waits else None

    def _keep(self, spare: tuple[_Rest, asyncio.Task[None]]) -> None:
        if self._spare is None and not self._closed:
            self._spare = spare
        else:
            spare[0].retire()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin ``coroutine`` in the loop's next turn; return its task."""
        rest = _Rest(self._lease)
        rest.adopt(coroutine, copy_context(), _NOTHING)
        return asyncio.Task(rest, loop=self._loop, context=Context())

    def _made(self) -> tuple[_Rest, asyncio.Task[None]]:
        rest = _Rest(self._lease)
        # Not by the loop's task factory: an eager one of Python 3.12 would begin with what is left. The context is an
        # empty one: a task that is kept must keep nothing of a request.
        return rest, asyncio.Task(rest, loop=self._loop, context=Context())

    def close(self) -> None:
        """Let the kept task end, in the loop's next turn."""
        spare, self._spare = self._spare, None
        self._closed = True
        if spare is not None:
            spare[0].retire()


def _wait_for(future: asyncio.Future[None]) -> asyncio.Future[None]:
    """Return what a coroutine yields that awaits ``future``."""
    yielded: asyncio.Future[None] = next(future.__await__())
    return yielded


def _is_untouched(task: asyncio.Task[None]) -> bool:
    callbacks = task._callbacks  # noqa: SLF001 - there is no public way to see that somebody waits for the end
    return not (callbacks or task.done() or task.cancelling())
