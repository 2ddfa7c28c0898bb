"""The user's own spans under a process span, kept with the record."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from fastapi_taskflow.telemetry.spans import SpanCapture
from fastapi_taskflow.telemetry.tracing import OtelTracing
from tests.unit.telemetry.samples import DEFINITION, SEND_ID, TRACE_ID, TRACEPARENT, pending

if TYPE_CHECKING:
    from opentelemetry.util.types import AnyValue

    from fastapi_taskflow.telemetry.process_span import ProcessSpan


class Attempt:
    """A running attempt, and the app's tracer."""

    def __init__(self, provider: TracerProvider, capture: SpanCapture) -> None:
        self.provider = provider
        self.capture = capture
        self.tracing = OtelTracing(tracer_provider=provider, capture=capture)
        self.tracer = provider.get_tracer("app")
        self.span = self.begin()

    def begin(self, traceparent: str | None = TRACEPARENT) -> ProcessSpan:
        """Begin another attempt."""
        span = self.tracing.process(DEFINITION, pending(traceparent=traceparent), attempt=1, queue_wait=0.0)
        assert span is not None
        return span


@pytest.fixture
def attempt(provider: TracerProvider) -> Attempt:
    """An attempt that runs."""
    return Attempt(provider, SpanCapture())


def test_children_and_grandchildren_are_handed_over(attempt: Attempt) -> None:
    """Every span below the process span is told with its facts, in the order of their starts."""
    token = attempt.span.activate()
    start = attempt.tracer.start_as_current_span
    with (
        start("render", attributes={"pages": 3, "ok": True}) as render,
        start("GET /font", kind=SpanKind.CLIENT) as fetch,
    ):
        fetch.set_status(StatusCode.ERROR, "404")
    attempt.span.deactivate(token)
    outer, inner = attempt.span.end("success", None, None)

    assert (outer.name, outer.kind, outer.status, outer.attributes) == (
        "render",
        "internal",
        "unset",
        {"pages": 3, "ok": True},
    )
    assert (inner.name, inner.kind, inner.status) == ("GET /font", "client", "error")
    assert outer.parent_id == attempt.span.span_id
    assert outer.span_id == f"{render.get_span_context().span_id:016x}" == inner.parent_id
    assert 0 < outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time
    assert attempt.capture.open_spans == 0


def test_a_child_that_begins_after_its_parent_ended_is_kept(attempt: Attempt) -> None:
    """A callback may run later than the span it was started from."""
    token = attempt.span.activate()
    with attempt.tracer.start_as_current_span("first") as first:
        pass
    attempt.tracer.start_span("later", context=trace.set_span_in_context(first)).end()
    attempt.span.deactivate(token)
    assert [fact.name for fact in attempt.span.end("success", None, None)] == ["first", "later"]


def test_spans_of_other_traces_are_not_kept(attempt: Attempt) -> None:
    """A span that runs at the same time elsewhere belongs to nobody here, and nothing is remembered of it."""
    before = attempt.capture.open_spans
    with attempt.tracer.start_as_current_span("GET /"):
        assert attempt.capture.open_spans == before
    assert attempt.span.end("success", None, None) == ()


def test_two_attempts_at_once_keep_apart(attempt: Attempt) -> None:
    """Each attempt is handed its own spans only."""
    other = attempt.begin()
    for span, name in ((attempt.span, "mine"), (other, "yours")):
        token = span.activate()
        attempt.tracer.start_span(name).end()
        span.deactivate(token)
    assert [fact.name for fact in other.end("success", None, None)] == ["yours"]
    assert [fact.name for fact in attempt.span.end("success", None, None)] == ["mine"]
    assert attempt.capture.open_spans == 0


def test_a_task_run_inside_another_one_keeps_its_own_spans(attempt: Attempt) -> None:
    """The outer task shows that it sent the inner one; what the inner one did is told there."""
    token = attempt.span.activate()
    carried = attempt.tracing.send(DEFINITION, "id-2", queue="default", source="request", priority=0)
    assert carried is not None
    inner = attempt.begin(carried.traceparent)
    inner_token = inner.activate()
    attempt.tracer.start_span("inner work").end()
    inner.deactivate(inner_token)
    attempt.span.deactivate(token)
    assert [fact.name for fact in attempt.span.end("success", None, None)] == ["send send_email"]
    assert [fact.name for fact in inner.end("success", None, None)] == ["inner work"]
    assert attempt.capture.open_spans == 0


def test_number_and_length_are_bounded(provider: TracerProvider) -> None:
    """The first spans are kept up to the limit, with the first attributes, each cut."""
    attempt = Attempt(provider, SpanCapture(max_spans=3, max_attributes=2, max_chars=8))
    token = attempt.span.activate()
    for number in range(5):
        with attempt.tracer.start_as_current_span(f"a long name {number}") as span:
            span.set_attributes({"text": "x" * 100, "list": list(range(100)), "third": 1})
    attempt.span.deactivate(token)
    assert attempt.capture.open_spans == 4
    facts = attempt.span.end("success", None, None)
    assert [fact.name for fact in facts] == ["a long …"] * 3
    assert facts[0].attributes == {"text": "xxxxxxx…", "list": "[0, 1, …"}
    assert attempt.capture.open_spans == 0


def test_attributes_are_json_that_any_store_takes(attempt: Attempt) -> None:
    """What JSON or a database refuses is told as text."""
    token = attempt.span.activate()
    odd: dict[str, AnyValue] = {
        "nan": float("nan"),
        "big": 2**70,
        "nul": "a\0b",
        "surrogate": "\ud800",
        "bytes": b"\x01",
        "pair": (1, "a"),
        "n": 1.5,
    }
    attempt.tracer.start_span("odd", attributes=odd).end()
    attempt.span.deactivate(token)
    (fact,) = attempt.span.end("success", None, None)
    text = json.dumps(fact.attributes, allow_nan=False)
    assert "\\u0000" not in text
    assert fact.attributes["surrogate"] == "\\ud800"
    assert fact.attributes["nan"] == "nan"
    assert fact.attributes["big"] == str(2**70)
    assert fact.attributes["pair"] == '[1, "a"]'
    assert fact.attributes["n"] == 1.5


def test_a_span_that_outlives_its_attempt_is_forgotten(attempt: Attempt) -> None:
    """Neither a span that ends too late nor one that never ends is kept or leaks."""
    token = attempt.span.activate()
    late = attempt.tracer.start_span("late")
    attempt.tracer.start_span("never")
    attempt.span.deactivate(token)
    assert attempt.span.end("success", None, None) == ()
    late.end()
    assert attempt.capture.open_spans == 0


def test_unsampled_attempts_are_not_followed(provider: TracerProvider) -> None:
    """Without a sampled process span nothing is opened."""
    attempt = Attempt(provider, SpanCapture())
    attempt.span.end("success", None, None)
    span = attempt.begin(f"00-{TRACE_ID}-{SEND_ID}-00")
    assert attempt.capture.open_spans == 0
    assert span.end("success", None, None) == ()


def test_spans_from_many_threads_are_all_kept(provider: TracerProvider) -> None:
    """A sync task may use threads of its own."""
    attempt = Attempt(provider, SpanCapture(max_spans=1_000))
    token = attempt.span.activate()
    context = trace.set_span_in_context(trace.get_current_span())
    attempt.span.deactivate(token)

    def work() -> None:
        for _ in range(50):
            attempt.tracer.start_span("step", context=context).end()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(attempt.span.end("success", None, None)) == 400
    assert attempt.capture.open_spans == 0


def test_attaching_twice_adds_one_processor(provider: TracerProvider) -> None:
    """Managers that come and go leave one processor with the provider, whatever their number."""
    before = len(provider._active_span_processor._span_processors)
    for _ in range(3):
        capture = SpanCapture()
        assert capture.attach(provider)
        assert capture.attach(provider)
        capture.detach()
    assert len(provider._active_span_processor._span_processors) == before + 1


def test_a_detached_capture_hears_nothing_and_may_come_back(attempt: Attempt) -> None:
    """After close() nothing is kept; the next attempt takes the provider up again."""
    attempt.tracing.close()
    assert attempt.capture.open_spans == 0
    token = attempt.span.activate()
    attempt.tracer.start_span("unheard").end()
    attempt.span.deactivate(token)
    assert attempt.span.end("success", None, None) == ()

    again = attempt.begin()
    token = again.activate()
    attempt.tracer.start_span("heard").end()
    again.deactivate(token)
    assert [fact.name for fact in again.end("success", None, None)] == ["heard"]


def test_a_provider_that_is_no_sdk_is_left_alone() -> None:
    """A vendor's provider without processors, or one that cannot be referred to weakly, is not captured from."""

    class Vendor(TracerProvider):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    assert not SpanCapture().attach(trace.NoOpTracerProvider())
    assert not SpanCapture().attach(Vendor(shutdown_on_exit=False))
