"""Tasks that are taken down instead of run."""

from __future__ import annotations

import contextlib
import inspect
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.manager import TaskManager
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.task.registry import split_call
from fastapi_taskflow.testing.fake_clock import FakeClock
from fastapi_taskflow.testing.settling import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastapi import FastAPI

    from fastapi_taskflow.engine import Engine
    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.task.record import TaskRecord

NOT_RUN: Final = "captured by a test, and not run"


@dataclass(frozen=True, slots=True)
class CapturedTask:
    """A task that was added and did not run.

    Attributes:
        task_id: Its id.
        func_name: Its registered name.
        func: Its function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        record: Its record as it was added: ``tags``, ``queue``, ``priority``, ``run_at`` and so on.
    """

    task_id: str
    func_name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    record: TaskRecord

    def __str__(self) -> str:
        """Return the call as it is written."""
        record = self.record
        options = {
            "tags": list(record.tags),
            "queue": None if record.queue == "default" else record.queue,
            "priority": record.priority,
            "idempotency_key": record.idempotency_key,
        }
        return _written(self.func_name, self.args, self.kwargs, options)


class CapturedTasks:
    """What was added while tasks were captured; made by `capture_tasks`."""

    def __init__(self, manager: TaskManager, engine: Engine) -> None:
        self._manager = manager
        self._engine = engine
        self._entries: list[Entry] = []
        self._tasks: list[CapturedTask] = []

    @property
    def tasks(self) -> tuple[CapturedTask, ...]:
        """All of them, in the order in which they would have started."""
        return tuple(self._tasks)

    def calls(self, func: Callable[..., Any] | str) -> tuple[CapturedTask, ...]:
        """Return the tasks of one function, which is given itself or by its name."""
        return tuple(task for task in self._tasks if _is_of(task, func))

    def assert_enqueued(
        self,
        func: Callable[..., Any] | str,
        /,
        *args: Any,
        times: int | None = None,
        tags: Sequence[str] = (),
        queue: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> CapturedTask:
        """Make sure that a task was added; return it, the first one if there are more.

        Args:
            func: Its function, or its name.
            *args: Arguments that it must have. What is not given may be anything, and it makes no difference which
                way an argument was given.
            times: How many there must be, from 1; None is one or more.
            tags: Tags that it must have, beside others.
            queue: The queue that it must be in.
            priority: The priority that it must have.
            idempotency_key: The key that it must have.
            **kwargs: Further arguments that it must have.

        Raises:
            AssertionError: If there is no such task, or not so many. It lists what was added.
            ConfigurationError: If ``times`` is below 1.
        """
        if times is not None and times < 1:
            msg = f"times must be 1 or more, not {times!r}; assert_not_enqueued() is for none"
            raise ConfigurationError(msg)
        options = {"tags": list(tags), "queue": queue, "priority": priority, "idempotency_key": idempotency_key}
        found = [task for task in self.calls(func) if _has(task, options) and _is_called(task, args, kwargs)]
        if not found if times is None else len(found) != times:
            wanted = _written(_name(func), args, kwargs, options)
            count = "was not enqueued" if times is None else f"was enqueued {len(found)} times, not {times}"
            raise AssertionError(f"{wanted} {count}. {self._all()}")
        return found[0]

    def assert_not_enqueued(self, func: Callable[..., Any] | str | None = None, /, *args: Any, **kwargs: Any) -> None:
        """Make sure that no such task was added; without ``func``, none at all.

        Raises:
            AssertionError: If there is one. It lists what was added.
        """
        found = self._tasks if func is None else [t for t in self.calls(func) if _is_called(t, args, kwargs)]
        if found:
            what = "Something" if func is None else _written(_name(func), args, kwargs, {})
            raise AssertionError(f"{what} was enqueued. {self._all()}")

    async def run_all(self) -> tuple[TaskRecord, ...]:
        """Run what was captured and has not run, one after another, and what these tasks add; return their records.

        No delay and no retry is waited for: the time is moved, by the `FakeClock` that is in use or one for the
        purpose. Call it on the loop that the tasks run on, as by ``client.portal.call(captured.run_all)``.

        Raises:
            TimeoutError: If a task does not end, since its queue is paused, say.
        """
        done = []
        with contextlib.ExitStack() as stack:
            current = clock.current()
            time = current if isinstance(current, FakeClock) else stack.enter_context(FakeClock(within=600.0))
            time.watch(self._manager)
            while self._entries:
                entry = self._entries.pop(0)
                held.discard(entry)
                self._engine.submit(entry)
                await time.advance_until(lambda entry=entry: entry.record.finished)  # type: ignore[misc]
                done.append(entry.record)
        return tuple(done)

    def take_down(self, entry: Entry) -> None:
        """Capture a task."""
        if entry in self._entries or entry.withdrawn or entry.lost:
            return
        self._entries.append(entry)
        held.add(entry)
        record = entry.record
        self._tasks.append(
            CapturedTask(record.task_id, record.func_name, entry.func, entry.args, dict(entry.kwargs), record)
        )

    def give_up(self) -> None:
        """Cancel what has not run, so that it never will. May be called in any thread."""
        held.difference_update(self._entries)
        if self._manager.is_started:
            self._manager.journal.call_soon(self._cancel_all)

    def _cancel_all(self) -> None:
        entries, self._entries = self._entries, []
        journal = self._manager.journal
        for entry in entries:
            if entry.record.status is TaskStatus.PENDING and not entry.lost:
                now = clock.now()
                journal.append(entry, lifecycle.cancel(entry.record, at=now, reason=NOT_RUN))
                journal.publish(TaskEvent(EventKind.FINISHED, entry.record, now))

    def _all(self) -> str:
        if not self._tasks:
            return "Nothing was enqueued."
        return "\n".join(("Enqueued were:", *(f"  {task}" for task in self._tasks)))


@contextlib.contextmanager
def capture_tasks(target: TaskManager | FastAPI) -> Iterator[CapturedTasks]:
    """Take down the tasks that are added within, instead of running them.

    They are stored, and shown as ``pending``. What has not been run at the end (by `CapturedTasks.run_all`) is
    cancelled. Tasks of a request that failed are not there, and one whose idempotency key was taken is there once.

    Args:
        target: The manager, or the application that it belongs to.

    Raises:
        ConfigurationError: If the application has no manager, or several.
    """
    manager = manager_of(target)
    dispatcher = manager.dispatcher
    captured = CapturedTasks(manager, dispatcher.engine)
    before = dispatcher.lead_to(cast("Engine", _CapturingEngine(dispatcher.engine, captured)))
    try:
        yield captured
    finally:
        dispatcher.lead_to(before)
        captured.give_up()


def manager_of(target: TaskManager | FastAPI) -> TaskManager:
    """Return the manager of an application.

    Raises:
        ConfigurationError: If it has none, or several.
    """
    if isinstance(target, TaskManager):
        return target
    owners = [getattr(arg, "__self__", None) for each in target.user_middleware for arg in each.args]
    managers = list(dict.fromkeys(owner for owner in owners if isinstance(owner, TaskManager)))
    if len(managers) != 1:
        msg = f"the application has {len(managers)} TaskManagers: give the manager itself"
        raise ConfigurationError(msg)
    return managers[0]


class _CapturingEngine:
    """An engine that takes down each task instead of running it, and is the real one otherwise."""

    def __init__(self, engine: Engine, captured: CapturedTasks) -> None:
        self._engine = engine
        self._captured = captured

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def run(self, entry: Entry) -> None:
        """Take it down."""
        self._captured.take_down(entry)

    def submit(self, entry: Entry) -> None:
        """Take it down."""
        self._captured.take_down(entry)


def _is_of(task: CapturedTask, func: Callable[..., Any] | str) -> bool:
    if isinstance(func, str):
        return task.func_name == func
    plain = split_call(func, (), {})[0]
    return bool(task.func == plain) or task.func == getattr(plain, "__wrapped__", None)


def _has(task: CapturedTask, options: Mapping[str, Any]) -> bool:
    record = task.record
    return set(options["tags"]) <= set(record.tags) and all(
        wanted is None or wanted == getattr(record, name) for name, wanted in options.items() if name != "tags"
    )


def _is_called(task: CapturedTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the task has these arguments, among others."""
    signature = inspect.signature(task.func)
    try:
        wanted = signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        raise AssertionError(f"{task.func_name} cannot be called so: {error}") from None
    try:
        bound = signature.bind_partial(*task.args, **task.kwargs)
    except TypeError:
        return False  # it was added with arguments that it does not take
    bound.apply_defaults()
    missing = object()
    return all(value == bound.arguments.get(name, missing) for name, value in wanted.items())


def _name(func: Callable[..., Any] | str) -> str:
    return func if isinstance(func, str) else str(getattr(split_call(func, (), {})[0], "__name__", func))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200


def _written(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    inside = [*(_short.repr(each) for each in args), *(f"{key}={_short.repr(each)}" for key, each in kwargs.items())]
    told = ", ".join(f"{key}={value!r}" for key, value in options.items() if value)
    return f"{name}({', '.join(inside)})" + (f" [{told}]" if told else "")
