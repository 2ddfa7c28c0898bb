"""What the measured apps share: the task, a count of its runs, and the app with or without an SDK."""

from __future__ import annotations

import gc
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult


class Runs:
    """How often the task ran: a variant that drops tasks must not look fast."""

    def __init__(self) -> None:
        self.done = 0


runs = Runs()


async def noop() -> None:
    """Do nothing but count."""
    runs.done += 1


@asynccontextmanager
async def frozen(_: FastAPI) -> AsyncIterator[None]:
    """Take what the start has loaded out of the garbage collector's passes."""
    gc.collect()
    gc.freeze()
    yield


def make_app() -> FastAPI:
    """Return the app, with telemetry as ``BENCH_SDK`` says.

    Without it there is no SDK. ``tasks`` traces with FastAPI's own telemetry off, so that what is left is the cost of
    the tasks' spans; ``all`` leaves FastAPI's on. Spans go through a BatchSpanProcessor into an exporter that drops
    them. ``BENCH_FREEZE`` freezes what was loaded.
    """
    lifespan = frozen if os.environ.get("BENCH_FREEZE") else None
    wanted = os.environ.get("BENCH_SDK")
    if not wanted:
        return FastAPI(lifespan=lifespan)
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class DropExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(DropExporter()))
    trace.set_tracer_provider(provider)
    if wanted == "all":
        return FastAPI(lifespan=lifespan)
    return FastAPI(
        lifespan=lifespan, telemetry={"tracing": False, "operation_spans": False, "metrics": False, "logs": False}
    )
