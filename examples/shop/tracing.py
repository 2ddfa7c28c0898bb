"""An OpenTelemetry SDK for the shop: with it, the dashboard shows the shop's own spans below each task."""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

tracer = trace.get_tracer("examples.shop")


def configure_tracing() -> TracerProvider:
    """Set the global tracer provider, as an application does once.

    Spans are exported if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set. Without it they go nowhere else than to the dashboard.
    """
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "shop")})
    provider = TracerProvider(resource=resource)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
