"""The span of one attempt, from its start to its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from fastapi_taskflow.task.outcome import Failure
    from fastapi_taskflow.task.record import SpanFact
    from fastapi_taskflow.telemetry.spans import SpanCapture


class ProcessSpan:
    """The process span of one attempt. Fills the seam `AttemptSpan`.

    Args:
        span: The span, started.
        context: Its context.
        recorded: Whether it records. Told, since a span that has ended says no.
        capture: Where the user's spans under it are kept, or None.
    """

    __slots__ = ("_capture", "_context", "_recorded", "_span")

    def __init__(self, span: Span, context: SpanContext, *, recorded: bool, capture: SpanCapture | None) -> None:
        self._span = span
        self._context = context
        self._capture = capture
        self._recorded = recorded

    @property
    def span_id(self) -> str | None:
        """16 hex digits, or None if nothing is recorded."""
        return f"{self._context.span_id:016x}" if self._recorded else None

    @property
    def trace_id(self) -> str | None:
        """32 hex digits, or None if nothing is recorded. With ``trace_relationship="link"`` not the record's one."""
        return f"{self._context.trace_id:032x}" if self._recorded else None

    @property
    def sampled(self) -> bool:
        """Whether the span is sampled."""
        return self._context.trace_flags.sampled

    def activate(self) -> object:
        """Make it the current span of this context; return the token for ``deactivate``."""
        return otel_context.attach(set_span_in_context(self._span))

    def deactivate(self, token: object) -> None:
        """Undo ``activate``."""
        otel_context.detach(token)  # type: ignore[arg-type]

    def end(self, status: str, failure: Failure | None, error: BaseException | None) -> tuple[SpanFact, ...]:  # noqa: ARG002 - the failure tells it already
        """End the span and return the user's spans under it; see `AttemptSpan.end`."""
        span = self._span
        spans = self._capture.take(self._context.span_id) if self._capture is not None else ()
        if failure is None:
            span.set_attribute(names.STATUS, status)
        else:
            span.set_attributes({names.STATUS: status, names.ERROR_TYPE: failure.error_type})
            span.set_status(StatusCode.ERROR, failure.message)
            # Not record_exception(): it would format the traceback a second time.
            details: dict[str, AttributeValue] = {
                names.EXCEPTION_TYPE: failure.error_type,
                names.EXCEPTION_MESSAGE: failure.message,
            }
            if failure.stacktrace is not None:
                details[names.EXCEPTION_STACKTRACE] = failure.stacktrace
            span.add_event(names.EXCEPTION_EVENT, details)
        span.end()
        return spans


def is_process_span(span: Span) -> bool:
    """Tell whether ``span`` is one of this package's attempts."""
    scope = getattr(span, "instrumentation_scope", None)
    return getattr(scope, "name", None) == names.SCOPE and getattr(span, "kind", None) is SpanKind.CONSUMER
