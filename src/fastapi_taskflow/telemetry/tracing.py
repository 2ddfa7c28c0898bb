"""The spans of the telemetry contract, made with the OpenTelemetry API."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from fastapi_taskflow.__about__ import __version__
from fastapi_taskflow.telemetry import names
from fastapi_taskflow.telemetry.process_span import ProcessSpan, is_process_span
from fastapi_taskflow.telemetry.traceparent import parse, to_traceparent, to_tracestate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.telemetry.spans import SpanCapture

TraceRelationship = Literal["parent", "link"]
"""``parent``: an attempt belongs to the trace of the request. ``link``: it has a trace of its own, linked to it."""

MAX_KNOWN_ATTEMPTS: Final = 4_096
NEW_TRACE_SOURCES: Final = frozenset({"scheduled", "retry"})


@dataclass(frozen=True, slots=True)
class SendContext:
    """The trace context that a new task carries.

    Attributes:
        traceparent: W3C trace context.
        tracestate: W3C trace state, or None.
    """

    traceparent: str | None
    tracestate: str | None


class OtelTracing:
    """Makes send and process spans. Fills the seam `Tracing`.

    Args:
        tracer_provider: The provider to use; by default the global one, also when it is set later.
        trace_relationship: ``parent``: attempts are in the trace of the request. ``link``: each has a new trace.
        capture: Keeps the user's own spans with the record; None keeps none.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        trace_relationship: TraceRelationship = "parent",
        capture: SpanCapture | None = None,
    ) -> None:
        self._fixed_provider = tracer_provider
        self._linked = trace_relationship == "link"
        self._capture = capture
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._known_attempts: OrderedDict[str, int] = OrderedDict()
        # Lets the API load a provider that OTEL_PYTHON_TRACER_PROVIDER names, as any get_tracer() does.
        trace.get_tracer_provider()

    def close(self) -> None:
        """Let go of the provider. The next span takes it up again."""
        if self._capture is not None:
            self._capture.detach()
        self._provider = self._tracer = None

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
    ) -> SendContext | None:
        """Make the send span below the current one and return its context; see `Tracing.send`."""
        tracer = self._current_tracer()
        new_trace = link is not None or source in NEW_TRACE_SOURCES
        if tracer is None:
            if after is not None:
                return SendContext(after.traceparent, after.tracestate) if after.traceparent else None
            return None if new_trace else _passed_on()
        linked = parse(link)
        span = tracer.start_span(
            names.span_name(names.SEND, definition.name),
            context=self._around(new_trace, after),
            kind=SpanKind.PRODUCER,
            attributes={
                names.MESSAGING_SYSTEM: names.SYSTEM,
                names.MESSAGING_OPERATION_NAME: names.SEND,
                names.MESSAGING_OPERATION_TYPE: names.SEND,
                names.MESSAGING_DESTINATION_NAME: definition.name,
                names.MESSAGING_MESSAGE_ID: task_id,
                names.QUEUE: queue,
                names.SOURCE: source,
                names.PRIORITY: priority,
                names.CODE_FUNCTION_NAME: definition.code_name,
            },
            links=(Link(linked),) if linked is not None else None,
        )
        context = span.get_span_context()
        span.end()
        return SendContext(to_traceparent(context), to_tracestate(context)) if context.is_valid else None

    def _around(self, new_trace: bool, after: TaskRecord | None) -> Context | None:  # noqa: FBT001 - read above
        if after is not None:
            sent = parse(after.traceparent, after.tracestate)
            last = self._previous(after, sent) or sent
            return trace.set_span_in_context(INVALID_SPAN if last is None else NonRecordingSpan(last))
        return trace.set_span_in_context(INVALID_SPAN) if new_trace else None

    def process(
        self, definition: TaskDefinition, record: TaskRecord, *, attempt: int, queue_wait: float
    ) -> ProcessSpan | None:
        """Start the process span of an attempt; see `Tracing.process`."""
        tracer = self._current_tracer()
        if tracer is None:
            return None
        sent = parse(record.traceparent, record.tracestate)
        parent = INVALID_SPAN if sent is None or self._linked else NonRecordingSpan(sent)
        span = tracer.start_span(
            names.span_name(names.PROCESS, definition.name),
            context=trace.set_span_in_context(parent),
            kind=SpanKind.CONSUMER,
            attributes={
                names.MESSAGING_SYSTEM: names.SYSTEM,
                names.MESSAGING_OPERATION_NAME: names.PROCESS,
                names.MESSAGING_OPERATION_TYPE: names.PROCESS,
                names.MESSAGING_DESTINATION_NAME: definition.name,
                names.MESSAGING_MESSAGE_ID: record.task_id,
                names.QUEUE: record.queue,
                names.SOURCE: record.source,
                names.PRIORITY: record.priority,
                names.ATTEMPT: attempt,
                names.MAX_ATTEMPTS: record.max_attempts,
                names.QUEUE_WAIT: queue_wait,
                names.CODE_FUNCTION_NAME: definition.code_name,
            },
            links=self._links(record, sent, attempt),
        )
        context = span.get_span_context()
        recorded = span.is_recording()
        if self._linked and recorded:
            self._remember(context)
        capture = self._capture if recorded and context.trace_flags.sampled else None
        if capture is not None:
            capture.open(context.span_id)
        return ProcessSpan(span, context, recorded=recorded, capture=capture)

    def _links(self, record: TaskRecord, sent: SpanContext | None, attempt: int) -> Sequence[Link] | None:
        links = []
        if self._linked and sent is not None:
            links.append(Link(sent))
        previous = self._previous(record, sent) if attempt > 1 else None
        if previous is not None:
            links.append(Link(previous))
        ambient = trace.get_current_span()
        around = ambient.get_span_context()
        if around.is_valid and (previous is None or around.span_id != previous.span_id):
            elsewhere = sent is None or around.trace_id != sent.trace_id
            if elsewhere or is_process_span(ambient):
                links.append(Link(around))
        return links or None

    def _previous(self, record: TaskRecord, sent: SpanContext | None) -> SpanContext | None:
        """Return the context of the attempt before this one."""
        if record.span_id is None:
            return None
        if self._linked:
            trace_id = self._known_attempts.get(record.span_id)
        else:
            trace_id = sent.trace_id if sent is not None else None
        if trace_id is None:
            return None
        flags = sent.trace_flags if sent is not None else TraceFlags(TraceFlags.SAMPLED)
        context = SpanContext(trace_id, int(record.span_id, 16), True, flags)  # noqa: FBT003 - the API's order
        return context if context.is_valid else None

    def _remember(self, context: SpanContext) -> None:
        """Keep the trace of an attempt that has one of its own: the record has only its span."""
        self._known_attempts[f"{context.span_id:016x}"] = context.trace_id
        if len(self._known_attempts) > MAX_KNOWN_ATTEMPTS:
            self._known_attempts.popitem(last=False)

    def _current_tracer(self) -> Tracer | None:
        """Return the tracer, or None without an SDK. It is looked up each time, since the SDK may be set up later."""
        provider = self._fixed_provider or _global_provider()
        if provider is self._provider:
            return self._tracer
        self._provider = provider
        self._tracer = None
        if provider is not None and not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            tracer = provider.get_tracer(names.SCOPE, __version__, names.SCHEMA_URL)
            if not isinstance(tracer, trace.NoOpTracer):
                self._tracer = tracer
                if self._capture is not None:
                    self._capture.attach(provider)
        return self._tracer


_MISSING: Final = object()


def _global_provider() -> TracerProvider | None:
    """Return the global provider, or None while none is set.

    The public getter reads the environment twice on each call while no SDK is set up, which is most of what a task
    without an SDK would cost here. So the variable behind it is read where it still exists.
    """
    found = getattr(trace, "_TRACER_PROVIDER", _MISSING)
    return trace.get_tracer_provider() if found is _MISSING else found  # type: ignore[return-value]


def _passed_on() -> SendContext | None:
    """Return the current context, if somebody upstream has a trace although this process records none."""
    span = trace.get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    return SendContext(to_traceparent(context), to_tracestate(context)) if context.is_valid else None
