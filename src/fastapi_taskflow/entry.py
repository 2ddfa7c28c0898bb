"""A live task in this process: its newest record and what is needed to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from fastapi_taskflow import clock
    from fastapi_taskflow.task.context import TaskContext
    from fastapi_taskflow.task.record import TaskRecord


class Entry:
    """One task from ``add_task`` until its end is stored. Changed on the loop's thread only, once admitted.

    Attributes:
        record: The newest record.
        committed: What the store holds of it, or None while it holds nothing.
        definition: The task's definition.
        func: What is called: the definition's function, or a bound method of it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        admitted: Whether it was taken in: it runs from here on. Before that it can be withdrawn without a trace.
        lost: Whether another instance took it over; nothing of it is written any more.
        uncertain: Whether the store may hold it, though it never said so.
        withdrawn: Whether the request that added it failed, so that it must not run.
        cancel_requested: Whether somebody asked for its cancellation while it ran.
        context: The running attempt's context.
        runner: The asyncio task that awaits an async attempt.
        leave_line: Takes it out of the line of its queue; None while it is in none.
        ended: Set when the task has ended, for those who wait; made on demand.
        overrun: What the last attempt left running beyond its time limit, a thread, or None.
        expiry: Cancels it if it has not started in time; None if it may start at any time, or has.
        checkpoint_due: Whether what the running attempt told is to be stored soon.
    """

    __slots__ = (
        "__weakref__", "admitted", "args", "cancel_requested", "checkpoint_due", "committed", "context", "definition",
        "ended", "expiry", "func", "kwargs", "leave_line", "lost", "overrun", "record", "runner", "uncertain",
        "withdrawn",
    )  # fmt: skip

    def __init__(
        self,
        record: TaskRecord,
        definition: TaskDefinition,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.record = record
        self.definition = definition
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.committed: TaskRecord | None = None
        self.admitted = False
        self.lost = False
        self.withdrawn = False
        self.uncertain = False
        self.cancel_requested = False
        self.context: TaskContext | None = None
        self.runner: asyncio.Task[Any] | None = None
        self.leave_line: Callable[[], None] | None = None
        self.ended: asyncio.Event | None = None
        self.overrun: asyncio.Task[None] | None = None
        self.expiry: clock.Timer | None = None
        self.checkpoint_due = False

    def leave(self) -> None:
        """Leave the line of its queue, if it waits in one: it will not run here."""
        if self.leave_line is not None:
            self.leave_line()


def never_called() -> None:
    """Stand for the function of a task that is only written."""


def unknown_definition(record: TaskRecord) -> TaskDefinition:
    """Return a definition for a task whose function is not known, or not needed."""
    name = record.func_name
    return TaskDefinition(name=name, func=never_called, is_async=False, code_name=name)


def ended_entry(record: TaskRecord) -> Entry:
    """Return an entry of a task that has ended, as the store holds it."""
    entry = Entry(record, unknown_definition(record), never_called, (), {})
    entry.committed = record
    return entry


def live_record(entry: Entry) -> TaskRecord:
    """Return the entry's record with what its running attempt told so far: its lines and its progress."""
    record, context = entry.record, entry.context
    if context is None or record.status is not TaskStatus.RUNNING:
        return record
    lines = context.logs
    if lines:
        earlier = tuple(line for line in record.logs if line.attempt != record.attempt)
        if len(earlier) + len(lines) != len(record.logs):
            record = record._replace(logs=(*earlier, *lines))
    progress = context.progress
    if progress is not None and progress != (record.progress, record.progress_text):
        record = record._replace(progress=progress.part, progress_text=progress.text)
    return record
