"""Traces and metrics of a real server, as an independent OTLP receiver gets them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from fastapi_taskflow.telemetry import names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.integration.conftest import Server

SETUP = """
import asyncio, os
from fastapi import BackgroundTasks, FastAPI
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from fastapi_taskflow import TaskAdmin, TaskManager, get_task_context

manager = TaskManager(snapshot_db="tasks.db", requeue_pending=True)

@manager.task(retries=2)
async def send_email(address: str) -> None:
    with trace.get_tracer("app").start_as_current_span("render"):
        if get_task_context().attempt == 1:
            raise ConnectionError("no route")

@manager.task(requeue_on_interrupt=True)
async def long_job() -> None:
    with trace.get_tracer("app").start_as_current_span("work"):
        pass
    if not os.path.exists("crashed"):
        open("crashed", "w").close()
        await asyncio.sleep(60)

@manager.task()
def resize() -> None:
    with trace.get_tracer("app").start_as_current_span("thumbnail"):
        pass

@manager.task()
async def outer() -> None:
    await manager.enqueue(resize)

def set_up_sdk() -> None:
    endpoint = os.environ["TAP"]
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces"), schedule_delay_millis=50))
    trace.set_tracer_provider(provider)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint}/v1/metrics"), export_interval_millis=100)
    metrics.set_meter_provider(MeterProvider([reader]))
"""

ROUTES = """
@app.get("/ready")
async def ready() -> None: ...

@app.post("/orders/{number}")
async def order(number: int, background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(send_email, "ann@example.com")

@app.post("/jobs")
async def job(background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(long_job)

@app.post("/images")
def image(background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(resize)

@app.post("/albums")
async def album(background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(outer)

TaskAdmin(app, manager, auto_install=True)
"""

NATIVE = f"""{SETUP}
set_up_sdk()
app = FastAPI()
{ROUTES}"""

INSTRUMENTED = f"""{SETUP}
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
set_up_sdk()
app = FastAPI(telemetry={{"tracing": False, "metrics": False, "operation_spans": False}})
{ROUTES}
FastAPIInstrumentor.instrument_app(app)
"""

LATE = f"""{SETUP}
import contextlib

@contextlib.asynccontextmanager
async def lifespan(app):
    set_up_sdk()
    yield

app = FastAPI(lifespan=lifespan)
{ROUTES}"""

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
ERROR = 2


class Tap:
    """The receiver, with what it got so far."""

    def __init__(self, receiver: OtelTapHttpProtobufReceiver, url: str) -> None:
        self.receiver = receiver
        self.url = url
        self.spans: list[Span] = []
        self._arrived = asyncio.Event()

    async def collect(self) -> None:
        """Take in every span that arrives."""
        async for span in self.receiver.stream_traces():
            self.spans.append(span)
            self._arrived.set()

    async def until(self, done: Callable[[], object]) -> None:
        """Wait for spans until ``done`` says so."""
        async with asyncio.timeout(30):
            while not done():
                self._arrived.clear()
                await self._arrived.wait()

    async def until_processed(self, task_id: str, *, attempts: int) -> None:
        """Receive spans until that many attempts of the task have ended."""
        await self.until(lambda: sum(span.name.startswith("process ") for span in self.of_task(task_id)) >= attempts)

    def of_task(self, task_id: str) -> list[Span]:
        """Return the task's own spans."""
        return [span for span in self.spans if attribute(span, "messaging.message.id") == task_id]

    def trace_of(self, task_id: str) -> list[Span]:
        """Return all spans of the task's trace."""
        (trace_id,) = {span.trace_id for span in self.of_task(task_id)}
        return [span for span in self.spans if span.trace_id == trace_id]


@pytest.fixture
async def tap(free_port: int) -> AsyncIterator[Tap]:
    """An OTLP receiver that listens."""
    receiver = OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=free_port))
    async with receiver:
        made = Tap(receiver, f"http://127.0.0.1:{free_port}")
        collecting = asyncio.create_task(made.collect())
        await asyncio.sleep(0)  # the stream has only what arrives once it is listened to
        yield made
        collecting.cancel()


def attribute(span: Span, name: str) -> Any:
    """Return an attribute's value, or None."""
    for item in span.attributes:
        if item.key == name:
            return getattr(item.value, item.value.WhichOneof("value"))
    return None


def tree(spans: list[Span]) -> str:
    """Draw a trace."""
    known = {span.span_id for span in spans}
    lines: list[str] = []

    def draw(span: Span, depth: int) -> None:
        facts = [KINDS[span.kind]]
        for key in ("attempt", "status"):
            value = attribute(span, f"taskflow.{key}")
            facts += [f"{key}={value}"] if value is not None else []
        facts += ["ERROR"] if span.status.code == ERROR else []
        facts += [f"linked to {by_id.get(link.span_id, 'another trace')}" for link in span.links]
        lines.append(f"{'  ' * depth}{span.name} [{', '.join(facts)}]")
        children = [other for other in spans if other.parent_span_id == span.span_id]
        for child in sorted(children, key=lambda other: other.start_time_unix_nano):
            draw(child, depth + 1)

    by_id = {span.span_id: f"{span.name} attempt {attribute(span, 'taskflow.attempt')}" for span in spans}
    for root in [span for span in spans if span.parent_span_id not in known]:
        draw(root, 0)
    return "\n".join(lines)


NATIVE_TREE = """\
POST /orders/{number} [SERVER]
  fastapi.dependencies [INTERNAL]
  fastapi.endpoint [INTERNAL]
    send send_email [PRODUCER]
      process send_email [CONSUMER, attempt=1, status=failed, ERROR]
        render [INTERNAL, ERROR]
      process send_email [CONSUMER, attempt=2, status=success, linked to process send_email attempt 1]
        render [INTERNAL]
  fastapi.serialization [INTERNAL]"""

INSTRUMENTED_TREE = """\
POST /orders/{number} [SERVER]
  send send_email [PRODUCER]
    process send_email [CONSUMER, attempt=1, status=failed, ERROR]
      render [INTERNAL, ERROR]
    process send_email [CONSUMER, attempt=2, status=success, linked to process send_email attempt 1]
      render [INTERNAL]
  POST /orders/{number} http send [INTERNAL]
  POST /orders/{number} http send [INTERNAL]"""


async def start(start_server: Callable[..., Server], source: str, tap: Tap) -> Server:
    """Start a server whose SDK exports to ``tap``."""
    return await asyncio.to_thread(start_server, source, TAP=tap.url)


async def post(url: str) -> str:
    """Make a request; return the id of the task that it added."""
    async with httpx.AsyncClient() as client:
        task_id: str = (await client.post(url)).raise_for_status().json()
    return task_id


@pytest.mark.parametrize(
    ("source", "expected"),
    [(NATIVE, NATIVE_TREE), (LATE, NATIVE_TREE), (INSTRUMENTED, INSTRUMENTED_TREE)],
    ids=["native", "native-sdk-set-up-in-lifespan", "instrumentor"],
)
async def test_request_and_task_are_one_trace(
    tap: Tap, start_server: Callable[..., Server], source: str, expected: str
) -> None:
    """Request, send, both attempts and the app's own span are one tree, beside the host's own spans."""
    server = await start(start_server, source, tap)
    task_id = await post(f"{server.url}/orders/7")
    await tap.until_processed(task_id, attempts=2)
    # A batch arrives in parts, one for each library. When a later batch is there, nothing of the first is missing.
    await tap.until_processed(await post(f"{server.url}/orders/8"), attempts=2)
    assert tree(tap.trace_of(task_id)) == expected


SYNC_TREE = """\
POST /images [SERVER]
  fastapi.dependencies [INTERNAL]
  fastapi.endpoint [INTERNAL]
    send resize [PRODUCER]
      process resize [CONSUMER, attempt=1, status=success]
        thumbnail [INTERNAL]
  fastapi.serialization [INTERNAL]"""

NESTED_TREE = """\
POST /albums [SERVER]
  fastapi.dependencies [INTERNAL]
  fastapi.endpoint [INTERNAL]
    send outer [PRODUCER]
      process outer [CONSUMER, attempt=1, status=success]
        send resize [PRODUCER]
          process resize [CONSUMER, attempt=1, status=success, linked to process outer attempt 1]
            thumbnail [INTERNAL]
  fastapi.serialization [INTERNAL]"""


@pytest.mark.parametrize(("route", "expected"), [("images", SYNC_TREE), ("albums", NESTED_TREE)])
async def test_threads_and_tasks_of_tasks_are_in_the_same_trace(
    tap: Tap, start_server: Callable[..., Server], route: str, expected: str
) -> None:
    """A sync route and a sync task, and a task that adds another one, stay in the request's trace."""
    server = await start(start_server, NATIVE, tap)
    task_id = await post(f"{server.url}/{route}")
    await tap.until_processed(task_id, attempts=1)
    await tap.until(lambda: [span for span in tap.spans if span.name == "process resize"])
    await tap.until_processed(await post(f"{server.url}/orders/8"), attempts=2)
    assert tree(tap.trace_of(task_id)) == expected


async def test_the_timeline_shows_the_apps_own_spans(tap: Tap, start_server: Callable[..., Server]) -> None:
    """``GET /tasks/{id}/trace`` has the span that ran under the attempt, without any other tool."""
    server = await start(start_server, NATIVE, tap)
    task_id = await post(f"{server.url}/orders/7")
    await tap.until_processed(task_id, attempts=2)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/tasks/{task_id}/trace")
    assert answer.status_code == 200
    assert "render" in answer.text
    assert tap.trace_of(task_id)[0].trace_id.hex() in answer.text


async def test_a_task_continues_its_trace_after_a_crash(
    tap: Tap, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """After a SIGKILL the next process runs the task in the trace of the request that added it."""
    server = await start(start_server, NATIVE, tap)
    task_id = await post(f"{server.url}/jobs")
    await tap.until(lambda: [span for span in tap.spans if span.name == "work"])
    (cut_off,) = [span for span in tap.spans if span.name == "work"]
    server.kill()

    await start(start_server, NATIVE, tap)
    await tap.until_processed(task_id, attempts=1)
    spans = {span.name: span for span in tap.trace_of(task_id) if attribute(span, "messaging.message.id") == task_id}
    sent, processed = spans["send long_job"], spans["process long_job"]
    assert processed.trace_id == sent.trace_id == cut_off.trace_id
    assert processed.parent_span_id == sent.span_id
    assert attribute(processed, "taskflow.attempt") == 2
    assert [link.span_id for link in processed.links] == [cut_off.parent_span_id]


async def test_metrics_arrive(tap: Tap, start_server: Callable[..., Server]) -> None:
    """The semantic conventions' metrics come through the app's meter provider, failed attempts apart."""
    server = await start(start_server, NATIVE, tap)
    await post(f"{server.url}/orders/7")

    def both_attempts(metric: Metric) -> bool:
        return metric.name == "messaging.process.duration" and len(metric.histogram.data_points) == 2

    duration = await tap.receiver.await_metric(both_attempts, 20)
    errors = {
        tuple(item.value.string_value for item in p.attributes if item.key == "error.type")
        for p in duration.histogram.data_points
    }
    assert errors == {(), ("ConnectionError",)}
    assert list(duration.histogram.data_points[0].explicit_bounds) == list(names.SEMCONV_BUCKETS)
