"""The telemetry contract's spans, seen by an in-memory exporter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.telemetry import traceparent
from fastapi_taskflow.telemetry.process_span import ProcessSpan
from fastapi_taskflow.telemetry.tracing import OtelTracing, SendContext
from tests.unit.telemetry.samples import DEFINITION, SEND_ID, TRACE_ID, TRACEPARENT, failure, pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from fastapi_taskflow.task.record import TaskRecord


@pytest.fixture
def tracing(provider: TracerProvider) -> OtelTracing:
    """Tracing with the recording provider."""
    return OtelTracing(tracer_provider=provider)


@pytest.fixture
def ambient(provider: TracerProvider) -> Iterator[trace.Span]:
    """A server span that is current."""
    with provider.get_tracer("host").start_as_current_span("GET /orders", kind=SpanKind.SERVER) as span:
        yield span


def send(tracing: OtelTracing, **changes: Any) -> SendContext | None:
    """Make a send span with ordinary facts."""
    facts: dict[str, Any] = {"queue": "mail", "source": "request", "priority": 2}
    return tracing.send(DEFINITION, "id-1", **(facts | changes))


def process(tracing: OtelTracing, record: TaskRecord, attempt: int = 1) -> ProcessSpan:
    """Start a process span that has to be there."""
    span = tracing.process(DEFINITION, record, attempt=attempt, queue_wait=0.25)
    assert span is not None
    return span


def finished(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """Return the one exported span of that name."""
    (found,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


def context_of(span: trace.Span | ReadableSpan) -> SpanContext:
    """Return a span's context."""
    context = span.get_span_context()
    assert context is not None
    return context


def ids(context: SpanContext | None) -> tuple[str, str] | None:
    """Return trace and span id in hex."""
    return None if context is None else (f"{context.trace_id:032x}", f"{context.span_id:016x}")


def test_send_is_a_producer_span_below_the_current_one(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """The send span has its name, kind, parent and attributes, and the task carries its context."""
    carried = send(tracing)

    span = finished(exporter, "send send_email")
    assert span.kind is SpanKind.PRODUCER
    assert ids(span.parent) == ids(context_of(ambient))
    assert span.attributes == {
        "messaging.system": "fastapi_taskflow",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "send_email",
        "messaging.message.id": "id-1",
        "taskflow.queue": "mail",
        "taskflow.source": "request",
        "taskflow.priority": 2,
        "code.function.name": "app.mail.send_email",
    }
    assert carried == SendContext(traceparent.to_traceparent(context_of(span)), None)
    assert span.status.status_code is StatusCode.UNSET
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("fastapi_taskflow", "https://opentelemetry.io/schemas/1.44.0")
    assert scope.version


def test_process_continues_the_trace_of_the_row(tracing: OtelTracing, exporter: InMemorySpanExporter) -> None:
    """An attempt is a child of the send span that the record tells of, also in another process."""
    span = process(tracing, pending(traceparent=TRACEPARENT, tracestate="vendor=x", queue="mail", source="request"))
    assert span.end("success", None, None) == ()

    made = finished(exporter, "process send_email")
    assert made.kind is SpanKind.CONSUMER
    assert ids(made.parent) == (TRACE_ID, SEND_ID)
    assert ids(context_of(made)) == (TRACE_ID, span.span_id)
    assert context_of(made).trace_state.to_header() == "vendor=x"
    assert made.links == ()
    assert made.attributes == {
        "messaging.system": "fastapi_taskflow",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "send_email",
        "messaging.message.id": "id-1",
        "taskflow.queue": "mail",
        "taskflow.source": "request",
        "taskflow.priority": 0,
        "taskflow.attempt": 1,
        "taskflow.max_attempts": 3,
        "taskflow.queue_wait": 0.25,
        "code.function.name": "app.mail.send_email",
        "taskflow.status": "success",
    }
    assert made.status.status_code is StatusCode.UNSET
    assert made.events == ()


def test_attributes_are_there_when_a_sampler_decides(exporter: InMemorySpanExporter) -> None:
    """Samplers see queue, attempt and wait, for these are set at creation."""
    seen: dict[str, Any] = {}

    class Watching(sampling.Sampler):
        def should_sample(self, parent_context: Any, trace_id: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            seen[name] = set(args[1])
            return sampling.ALWAYS_ON.should_sample(parent_context, trace_id, name, *args, **kwargs)

        def get_description(self) -> str:
            return "watching"

    tracing = OtelTracing(tracer_provider=TracerProvider(sampler=Watching(), shutdown_on_exit=False))
    send(tracing)
    process(tracing, pending()).end("success", None, None)
    assert {"taskflow.queue", "messaging.message.id", "code.function.name"} <= seen["send send_email"]
    assert {"taskflow.attempt", "taskflow.queue_wait"} <= seen["process send_email"]


def test_failed_attempt_is_an_error_with_the_exception(tracing: OtelTracing, exporter: InMemorySpanExporter) -> None:
    """A failure sets the status, its description, error.type and one exception event."""
    facts = failure()
    process(tracing, pending(traceparent=TRACEPARENT)).end("failed", facts, ConnectionError("no route"))

    span = finished(exporter, "process send_email")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no route")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ConnectionError"
    assert span.attributes["taskflow.status"] == "failed"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes == {
        "exception.type": "ConnectionError",
        "exception.message": "no route",
        "exception.stacktrace": facts.stacktrace,
    }


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
async def test_cancelled_is_not_an_error(tracing: OtelTracing, exporter: InMemorySpanExporter, status: str) -> None:
    """An attempt that was stopped has its status told and is no error, even when CancelledError went through it."""
    span = process(tracing, pending(traceparent=TRACEPARENT))
    token = span.activate()
    with pytest.raises(asyncio.CancelledError):
        raise asyncio.CancelledError
    span.deactivate(token)
    span.end(status, None, asyncio.CancelledError())

    made = finished(exporter, "process send_email")
    assert made.status.status_code is StatusCode.UNSET
    assert made.events == ()
    assert made.attributes is not None
    assert made.attributes["taskflow.status"] == status
    assert "error.type" not in made.attributes


def test_second_attempt_is_linked_to_the_first(tracing: OtelTracing, exporter: InMemorySpanExporter) -> None:
    """Every attempt has a span below the send span; a later one links to the one before."""
    first = process(tracing, pending(traceparent=TRACEPARENT))
    first.end("failed", failure(), None)
    again = lifecycle.retry(
        lifecycle.start(pending(traceparent=TRACEPARENT), at=101.0, owner="me", span_id=first.span_id),
        failure(),
        at=102.0,
        run_at=103.0,
    )
    process(tracing, again, attempt=2).end("success", None, None)

    second = exporter.get_finished_spans()[-1]
    assert ids(second.parent) == (TRACE_ID, SEND_ID)
    assert [ids(link.context) for link in second.links] == [(TRACE_ID, first.span_id)]


def test_the_requests_own_span_is_not_linked(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """A task that runs in its request's context is in that trace already: a link would be noise."""
    carried = send(tracing)
    assert carried is not None
    process(tracing, pending(traceparent=carried.traceparent)).end("success", None, None)
    made = finished(exporter, "process send_email")
    assert made.links == ()
    assert context_of(made).trace_id == context_of(ambient).trace_id


def test_a_span_of_another_trace_around_it_is_linked(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """A task that runs where another trace is current keeps its own trace and links to that one."""
    process(tracing, pending(traceparent=TRACEPARENT)).end("success", None, None)
    made = finished(exporter, "process send_email")
    assert ids(made.parent) == (TRACE_ID, SEND_ID)
    assert [ids(link.context) for link in made.links] == [ids(context_of(ambient))]


def test_a_task_run_inside_another_task_is_linked_to_it(tracing: OtelTracing, exporter: InMemorySpanExporter) -> None:
    """A process span that is current although it belongs to another task is linked, also in the same trace."""
    outer = process(tracing, pending(traceparent=TRACEPARENT))
    token = outer.activate()
    carried = send(tracing)
    assert carried is not None
    process(tracing, pending(task_id="id-2", traceparent=carried.traceparent)).end("success", None, None)
    outer.deactivate(token)
    inner = finished(exporter, "process send_email")
    assert ids(inner.parent) == (TRACE_ID, (carried.traceparent or "")[36:52])
    assert [ids(link.context) for link in inner.links] == [(TRACE_ID, outer.span_id)]


def test_a_scheduled_task_begins_a_new_trace(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """What a clock starts belongs to no request, whatever span is current."""
    carried = send(tracing, source="scheduled")
    span = finished(exporter, "send send_email")
    assert span.parent is None
    assert span.links == ()
    assert context_of(span).trace_id != context_of(ambient).trace_id
    assert carried is not None


def test_a_manual_retry_begins_a_new_trace_linked_to_the_original(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """An operator's retry is a trace of its own that leads back to the task it repeats."""
    send(tracing, source="retry", link=TRACEPARENT)
    span = finished(exporter, "send send_email")
    assert span.parent is None
    assert [ids(link.context) for link in span.links] == [(TRACE_ID, SEND_ID)]
    assert f"{context_of(span).trace_id:032x}" != TRACE_ID


def test_a_manual_retry_of_a_task_without_a_trace_begins_one(
    tracing: OtelTracing, exporter: InMemorySpanExporter, ambient: trace.Span
) -> None:
    """Where the original had no trace, there is nothing to link."""
    send(tracing, source="retry")
    span = finished(exporter, "send send_email")
    assert (span.parent, span.links) == (None, ())


def test_link_relationship_gives_each_attempt_its_own_trace(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """With ``link`` every attempt is a new trace, linked to the send span and to the attempt before."""
    tracing = OtelTracing(tracer_provider=provider, trace_relationship="link")
    first = process(tracing, pending(traceparent=TRACEPARENT))
    first.end("failed", failure(), None)
    second = process(tracing, pending(traceparent=TRACEPARENT, span_id=first.span_id), attempt=2)
    second.end("success", None, None)

    one, two = exporter.get_finished_spans()
    assert one.parent is None
    assert two.parent is None
    assert len({TRACE_ID, first.trace_id, second.trace_id}) == 3
    assert [ids(link.context) for link in one.links] == [(TRACE_ID, SEND_ID)]
    assert [ids(link.context) for link in two.links] == [(TRACE_ID, SEND_ID), (first.trace_id, first.span_id)]


def test_link_relationship_leaves_out_an_attempt_of_another_process(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """With ``link`` the record does not tell the trace of an attempt made elsewhere, so no wrong one is claimed."""
    tracing = OtelTracing(tracer_provider=provider, trace_relationship="link")
    process(tracing, pending(traceparent=TRACEPARENT, span_id="00f067aa0ba902b7"), attempt=2).end("success", None, None)
    assert [ids(link.context) for link in exporter.get_finished_spans()[0].links] == [(TRACE_ID, SEND_ID)]


def test_a_task_added_without_an_sdk_begins_its_trace_when_it_runs(
    tracing: OtelTracing, exporter: InMemorySpanExporter
) -> None:
    """A row without a trace context gets a root span; a previous attempt of an unknown trace is not linked."""
    process(tracing, pending(span_id="00f067aa0ba902b7"), attempt=2).end("success", None, None)
    made = finished(exporter, "process send_email")
    assert (made.parent, made.links) == (None, ())


def test_activate_makes_the_users_spans_children(tracing: OtelTracing, provider: TracerProvider) -> None:
    """Between activate and deactivate the process span is current, and after that it is not."""
    before = otel_context.get_current()
    span = process(tracing, pending(traceparent=TRACEPARENT))
    token = span.activate()
    child = provider.get_tracer("app").start_span("SELECT")
    span.deactivate(token)
    child.end()
    assert isinstance(child, ReadableSpan)
    assert ids(child.parent) == (TRACE_ID, span.span_id)
    assert otel_context.get_current() == before


def test_an_unsampled_trace_stays_unsampled_and_is_passed_on(
    tracing: OtelTracing, exporter: InMemorySpanExporter
) -> None:
    """The request's sampling decision holds for its tasks, and what they call hears of it."""
    span = process(tracing, pending(traceparent=f"00-{TRACE_ID}-{SEND_ID}-00"))
    token = span.activate()
    current = trace.get_current_span().get_span_context()
    span.deactivate(token)
    span.end("success", None, None)
    assert (span.sampled, span.span_id, span.trace_id) == (False, None, None)
    assert f"{current.trace_id:032x}" == TRACE_ID
    assert not current.trace_flags.sampled
    assert exporter.get_finished_spans() == ()


def test_without_an_sdk_there_is_nothing(no_sdk: None) -> None:
    """No provider, no spans, no context."""
    tracing = OtelTracing()
    assert send(tracing) is None
    assert tracing.process(DEFINITION, pending(), attempt=1, queue_wait=0.0) is None


def test_without_an_sdk_a_trace_from_upstream_is_kept(no_sdk: None) -> None:
    """A proxy's trace context that is current goes into the row, although nothing is recorded here."""
    tracing = OtelTracing()
    upstream = SpanContext(int(TRACE_ID, 16), int(SEND_ID, 16), is_remote=True, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(upstream)):
        assert send(tracing) == SendContext(TRACEPARENT, None)
        assert send(tracing, source="retry", link=TRACEPARENT) is None


def test_an_sdk_that_is_set_up_later_is_found(
    no_sdk: None, provider: TracerProvider, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may configure its SDK at startup, after this was built and even used."""
    tracing = OtelTracing()
    assert send(tracing) is None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert send(tracing) is not None
    assert [span.name for span in exporter.get_finished_spans()] == ["send send_email"]


def test_a_later_sdk_is_found_without_the_apis_inner_variable(
    no_sdk: None, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a new API keeps its provider elsewhere, the public way is taken."""
    monkeypatch.delattr(trace, "_TRACER_PROVIDER")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert send(OtelTracing()) is not None


def test_the_api_still_keeps_its_provider_where_it_is_read() -> None:
    """The quick way to tell that no SDK is set up still exists in the installed API."""
    assert hasattr(trace, "_TRACER_PROVIDER")


def test_a_disabled_sdk_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED turns spans off although a provider is there."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing = OtelTracing(tracer_provider=TracerProvider(shutdown_on_exit=False))
    assert send(tracing) is None


@pytest.mark.parametrize(
    "text",
    [
        None, "", "00", "nonsense", TRACEPARENT.upper(), f"ff{TRACEPARENT[2:]}", f"00-{'0' * 32}-{SEND_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01", TRACEPARENT[:-1], f"{TRACEPARENT}x",
    ],
)  # fmt: skip
def test_a_wrong_traceparent_is_no_trace(text: str | None) -> None:
    """A damaged row must not stop a task: its text is left aside."""
    assert traceparent.parse(text) is None


def test_traceparent_goes_there_and_back() -> None:
    """What is written is what is read, flags and state included."""
    context = traceparent.parse("00-" + TRACEPARENT[3:-2] + "03", "a=1,b=2")
    assert context is not None
    assert context.is_remote
    assert traceparent.to_traceparent(context) == "00-" + TRACEPARENT[3:-2] + "03"
    assert traceparent.to_tracestate(context) == "a=1,b=2"
