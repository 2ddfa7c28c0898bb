"""The user's spans in a process of the process executor, kept for the task's timeline as those of this process are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

from fastapi_taskflow.telemetry.spans import SpanCapture

if TYPE_CHECKING:
    from fastapi_taskflow.task.record import SpanFact


class ChildSpans:
    """Keeps what runs under the attempt's span, whose context came from the parent. Fills the seam `SpanKeeper`."""

    def __init__(self) -> None:
        self._capture = SpanCapture()
        self._span_id = 0

    def begin(self) -> None:
        """Begin to keep what runs under the current span; nothing, where no SDK is set up."""
        context = trace.get_current_span().get_span_context()
        sampled = context.is_valid and context.trace_flags.sampled
        self._span_id = context.span_id if sampled and self._capture.attach(trace.get_tracer_provider()) else 0
        if self._span_id:
            self._capture.open(self._span_id)

    def end(self) -> tuple[SpanFact, ...]:
        """Return what ran under it, by start time."""
        return self._capture.take(self._span_id) if self._span_id else ()
