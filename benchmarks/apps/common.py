"""What the measured apps share: the task, a count of its runs, and an SDK whose exporter drops everything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def configure_sdk() -> None:
    """With ``BENCH_SDK`` set, trace into a BatchSpanProcessor whose exporter drops what it gets."""
    if not os.environ.get("BENCH_SDK"):
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class DropExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(DropExporter()))
    trace.set_tracer_provider(provider)
