"""What users' observers are told: two frozen facts and the base class that receives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.telemetry.metrics import attempt_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime

    from fastapi_taskflow.task.event import TaskEvent


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line that a task wrote with ``task_log``.

    Attributes:
        task_id: The task's id.
        func_name: The task's registered name.
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        message: The text, as the task wrote it: it may hold line breaks.
        extra: Further fields of the line.
        timestamp: When, aware and in UTC.
        attempt: The attempt that wrote it, from 1.
        tags: The task's tags.
        trace_id: 32 hex digits, or None without a trace.
        span_id: 16 hex digits of the attempt's span, or None.
    """

    task_id: str
    func_name: str
    level: str
    message: str
    extra: dict[str, Any]
    timestamp: datetime
    attempt: int
    tags: tuple[str, ...] = ()
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One change in a task's life.

    Attributes:
        task_id: The task's id.
        func_name: The task's registered name.
        event: ``enqueued``, ``started``, ``retried`` (failed, and another attempt follows), ``finished`` or
            ``recovered`` (taken over from an instance that went away).
        status: The task's status after the change, such as ``success``.
        timestamp: When, aware and in UTC.
        attempt: The current or last attempt, from 1; 0 before the first one.
        max_attempts: 1 plus the retries allowed.
        queue: The queue's name.
        source: ``request``, ``manual``, ``retry`` or ``scheduled``.
        duration: Seconds that the attempt took which ended now, else None.
        error: The message of the last exception, or why the task was cancelled or interrupted.
        error_type: The last exception's class, fully qualified.
        stacktrace: The last exception's traceback.
        tags: The task's tags.
        trace_id: 32 hex digits, or None without a trace.
        span_id: 16 hex digits of the attempt's span, or None.
    """

    task_id: str
    func_name: str
    event: str
    status: str
    timestamp: datetime
    attempt: int
    max_attempts: int = 1
    queue: str = "default"
    source: str = "request"
    duration: float | None = None
    error: str | None = None
    error_type: str | None = None
    stacktrace: str | None = None
    tags: tuple[str, ...] = ()
    trace_id: str | None = None
    span_id: str | None = None


class TaskObserver:
    """Base class of observers. Override what you need; each method may be sync or ``async``.

    Sync methods are called in a thread of the observer's own, async ones on the event loop, always off the request's
    way and one event after another. What one raises is logged and stops nothing.

    Attributes:
        lifecycle: Whether ``on_lifecycle`` is to be called.
    """

    lifecycle: bool = True

    def startup(self) -> Awaitable[None] | None:
        """Get ready, before the first event. If it raises, the observer is left out."""
        return None

    def shutdown(self) -> Awaitable[None] | None:
        """Clean up, after the last event."""
        return None

    def on_log(self, event: LogEvent) -> Awaitable[None] | None:  # noqa: ARG002 - for subclasses
        """Take note of a line that a task wrote."""
        return None

    def on_lifecycle(self, event: LifecycleEvent) -> Awaitable[None] | None:  # noqa: ARG002 - for subclasses
        """Take note of a change in a task's life."""
        return None


def log_event(event: TaskEvent) -> LogEvent:
    """Return what observers are told of a ``logged`` event."""
    record, line = event.record, event.log
    if line is None:
        msg = "a logged event carries its line"
        raise ValueError(msg)
    return LogEvent(
        task_id=record.task_id,
        func_name=record.func_name,
        level=line.level,
        message=line.message,
        extra=dict(line.extra or {}),
        timestamp=clock.to_datetime(line.at),
        attempt=line.attempt,
        tags=record.tags,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )


def lifecycle_event(event: TaskEvent) -> LifecycleEvent:
    """Return what observers are told of any other event."""
    record = event.record
    ended = event.kind in (EventKind.FINISHED, EventKind.RETRIED)
    return LifecycleEvent(
        task_id=record.task_id,
        func_name=record.func_name,
        event=event.kind.value,
        status=record.status.value,
        timestamp=clock.to_datetime(event.at),
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        queue=record.queue,
        source=record.source,
        duration=attempt_duration(event) if ended else None,
        error=record.error,
        error_type=record.error_type,
        stacktrace=record.stacktrace,
        tags=record.tags,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )
