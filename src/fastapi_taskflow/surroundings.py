"""What surrounds the call of a task's function: the user's middleware, and inside of it the dependencies.

The order of one attempt: process span → task context → middleware, the first one outermost → dependencies → function.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.definition import calls_async, short_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi_taskflow.dependencies import Dependencies
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.executor import Executor
    from fastapi_taskflow.task.context import TaskContext

    CallNext = Callable[[], Awaitable[Any]]
    AttemptMiddleware = Callable[[TaskContext, CallNext], Awaitable[Any]]


class Surroundings:
    """Middleware and dependencies of one manager's tasks.

    Args:
        dependencies: Fills what functions need.

    Attributes:
        middleware: What runs around each attempt, the outermost one first.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.middleware: list[AttemptMiddleware] = []

    def add(self, middleware: Any) -> None:
        """Add a middleware inside of those that are there.

        Raises:
            ConfigurationError: If it cannot be called as one.
        """
        what = "middleware must be an async function that takes the task's context and call_next"
        if not callable(middleware) or not calls_async(middleware):
            msg = f"{what}, not {middleware!r}"
            raise ConfigurationError(msg)
        try:
            inspect.signature(middleware).bind(None, None)
        except TypeError as error:
            msg = f"{what}; {short_name(middleware)} cannot be called so: {error}"
            raise ConfigurationError(msg) from None
        self.middleware.append(middleware)

    def call(self, executor: Executor, entry: Entry, context: TaskContext) -> Awaitable[Any]:
        """Return the call of the task's function by ``executor``, with all that surrounds it, to be awaited."""
        if self.middleware or entry.definition.needs:
            return self.run(executor, entry, context)
        return executor.run(entry.func, entry.args, entry.kwargs)

    async def run(self, executor: Executor, entry: Entry, context: TaskContext) -> Any:
        """Call the task's function by ``executor`` with all that surrounds it; return what comes out.

        Raises:
            asyncio.CancelledError: If the attempt was cancelled, also if a middleware kept that to itself.
            BaseException: Whatever comes out.
        """
        cut_off: list[asyncio.CancelledError] = []

        async def innermost() -> Any:
            try:
                return await self._filled(executor, entry)
            except asyncio.CancelledError as error:
                cut_off.append(error)
                raise

        try:
            return await _layered(self.middleware, context, innermost)()
        finally:
            me = asyncio.current_task()
            if cut_off and me is not None and me.cancelling():
                # Whoever cancelled it, by hand, at the shutdown or by a time limit, has to hear that it worked.
                raise cut_off[0]

    async def _filled(self, executor: Executor, entry: Entry) -> Any:
        needs = entry.definition.needs
        if not needs:
            return await executor.run(entry.func, entry.args, entry.kwargs)
        given = _given(entry)
        failure: BaseException | None = None
        value: Any = None
        async with AsyncExitStack() as stack:
            try:
                missing = tuple(need for need in needs if need.parameter not in given)
                filled = await self.dependencies.fill(missing, stack, {})
                value = await executor.run(entry.func, entry.args, {**entry.kwargs, **filled})
            except BaseException as error:
                failure = error
                raise
        if failure is not None:
            # A dependency that does not raise it again after its yield must not make a success of it.
            raise failure
        return value


def _given(entry: Entry) -> frozenset[str]:
    """Return the names of the parameters that the caller gave a value for."""
    try:
        return frozenset(inspect.signature(entry.func).bind_partial(*entry.args, **entry.kwargs).arguments)
    except TypeError:
        return frozenset(entry.kwargs)  # the call itself is wrong, and will say so


def _layered(middleware: Sequence[AttemptMiddleware], context: TaskContext, innermost: CallNext) -> CallNext:
    call = innermost
    for each in reversed(middleware):
        call = _layer(each, context, call)
    return call


def _layer(middleware: AttemptMiddleware, context: TaskContext, inner: CallNext) -> CallNext:
    called = False

    async def call_next() -> Any:
        nonlocal called
        if called:
            msg = (
                f"the middleware {short_name(middleware)} called call_next() twice, but an attempt calls its function "
                "once: to have it tried again let the error out, and give the task retries"
            )
            raise ConfigurationError(msg)
        called = True
        return await inner()

    return lambda: middleware(context, call_next)
