"""One task, run to its end where the test stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.manager import TaskManager
from fastapi_taskflow.task.registry import split_call
from fastapi_taskflow.testing.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi_taskflow.task.context import TaskContext
    from fastapi_taskflow.task.record import TaskRecord


@dataclass(frozen=True, slots=True)
class InlineRun:
    """How a task ended.

    Attributes:
        record: Its record: status, attempts, logs, progress and all else that the dashboard would show.
        error: What its last attempt raised, or None.
        value: What its last attempt returned, or None.
    """

    record: TaskRecord
    error: BaseException | None
    value: Any

    def result(self) -> Any:
        """Return what the task returned.

        Raises:
            BaseException: What it raised, if that was its end.
        """
        if self.error is not None:
            raise self.error
        return self.value


async def run_inline(task_manager: TaskManager, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> InlineRun:
    """Run ``func(*args, **kwargs)`` as a task to its end, retries included, and return how it ended.

    It runs as ``task_manager`` says, with its options, middleware and dependencies (``app.dependency_overrides``
    included), but in memory and for itself: that manager need not be started, and knows nothing of it. No retry
    or delay is waited for.

    Args:
        task_manager: The manager of the application.
        func: A function, sync or async, decorated or not.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments, and options of ``enqueue``, such as ``tags``.

    Raises:
        TaskArgumentError: If the manager has a database that could not keep an argument.
        ConfigurationError: If an option is wrong.
    """
    if task_manager.store.persistent:
        task_manager.calls.store(*split_call(func, args, kwargs))
    alone = TaskManager()
    for definition in task_manager.registry:
        alone.registry.add(definition)
    end = _End()
    alone.surroundings.dependencies = task_manager.surroundings.dependencies
    alone.surroundings.middleware = [end.see, *task_manager.surroundings.middleware]
    with FakeClock(alone, start=clock.to_datetime(clock.now()), within=600.0) as time:
        await alone.startup()
        try:
            task_id = await alone.enqueue(func, *args, **kwargs)
            entry = alone.journal.live[task_id]
            await time.advance_until(lambda: entry.record.finished)
            return InlineRun(entry.record, end.error, end.value)
        finally:
            await alone.shutdown()


class _End:
    """Sees how each attempt ends."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.value: Any = None

    async def see(self, _context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Be the outermost middleware."""
        self.error = self.value = None
        try:
            self.value = await call_next()
        except BaseException as error:
            self.error = error
            raise
        return self.value
