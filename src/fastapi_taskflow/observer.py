"""The seams through which others are told of tasks. Fillings are in ``telemetry/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.task.outcome import Failure
    from fastapi_taskflow.task.record import SpanFact, TaskRecord


class Observer(Protocol):
    """Is told of each event on the loop, soon after it: it must be quick and must not block."""

    def observe(self, event: TaskEvent) -> None:
        """Take note of ``event``. What it raises is logged and stops nothing."""


class AttemptSpan(Protocol):
    """The process span of one attempt."""

    @property
    def span_id(self) -> str | None:
        """16 hex digits, or None if nothing is recorded."""

    @property
    def sampled(self) -> bool:
        """Whether the span is sampled."""

    def activate(self) -> object:
        """Make it the current span of this context; return the token for ``deactivate``."""

    def deactivate(self, token: object) -> None:
        """Undo ``activate``."""

    def end(self, status: str, failure: Failure | None, error: BaseException | None) -> tuple[SpanFact, ...]:
        """End the span with the attempt's ``taskflow.status`` and return the user's spans recorded under it."""


class SendSpan(Protocol):
    """The trace context that a new task carries."""

    @property
    def traceparent(self) -> str | None:
        """W3C traceparent."""

    @property
    def tracestate(self) -> str | None:
        """W3C tracestate."""


class Tracing(Protocol):
    """Makes the spans of the telemetry contract."""

    def send(
        self,
        definition: TaskDefinition,
        task_id: str,
        *,
        queue: str,
        source: str,
        priority: int,
        link: str | None = None,
        after: TaskRecord | None = None,
    ) -> SendSpan | None:
        """Make the send span below the current one; return its context, or None if there is no trace at all.

        Args:
            definition: The task's definition.
            task_id: The new task's id.
            queue: Its queue.
            source: Its source, as in the record.
            priority: Its priority.
            link: A traceparent. If given, the span begins a new trace that is linked to this one.
            after: The task that the new one follows. If given, the span is below that one's last attempt.
        """

    def process(
        self, definition: TaskDefinition, record: TaskRecord, *, attempt: int, queue_wait: float
    ) -> AttemptSpan | None:
        """Start the process span of an attempt; None without a recording SDK.

        Args:
            definition: The task's definition.
            record: The record as it waited: ``record.span_id`` is the previous attempt's span, if any.
            attempt: From 1.
            queue_wait: Seconds it was ready to run and did not.
        """


__all__ = ["AttemptSpan", "Observer", "SendSpan", "Tracing"]
