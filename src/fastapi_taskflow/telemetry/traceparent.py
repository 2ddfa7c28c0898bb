"""W3C Trace Context as text, to and from a ``SpanContext``."""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

_PATTERN: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


def to_traceparent(context: SpanContext) -> str:
    """Return the ``traceparent`` header's value."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def to_tracestate(context: SpanContext) -> str | None:
    """Return the ``tracestate`` header's value, or None if it is empty."""
    state = context.trace_state
    return state.to_header() if state else None


def parse(traceparent: str | None, tracestate: str | None = None) -> SpanContext | None:
    """Return the context that the header values tell of, or None if they are missing or wrong."""
    found = _PATTERN.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    state = TraceState.from_header([tracestate]) if tracestate else None
    context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)  # noqa: FBT003 - the API's order
    return context if context.is_valid else None
