"""Brings SDK spans to the captures that listen. Imported only where an SDK is set up.

A provider cannot lose a processor again. So each provider gets one processor for good, whatever the number of
managers that come and go in the process, and captures join it and leave it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from fastapi_taskflow.telemetry.spans import SpanCapture


class CaptureProcessor(SpanProcessor):
    """Tells every capture of each span that begins and ends."""

    def __init__(self) -> None:
        self.captures: tuple[SpanCapture, ...] = ()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the span knows its parent
        """Pass a span on that began."""
        for capture in self.captures:
            capture.started(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass a span on that ended."""
        for capture in self.captures:
            capture.ended(span)


_processors: Final[WeakKeyDictionary[Any, CaptureProcessor]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def listen(provider: Any, capture: SpanCapture) -> bool:
    """Let ``capture`` hear of the spans of ``provider``; return whether it can."""
    with _lock:
        try:
            processor = _processors.get(provider)
        except TypeError:  # a vendor's provider that cannot be referred to weakly
            return False
        if processor is None:
            processor = _processors[provider] = CaptureProcessor()
            provider.add_span_processor(processor)
        if capture not in processor.captures:
            processor.captures = (*processor.captures, capture)
    return True


def leave(capture: SpanCapture) -> None:
    """Let ``capture`` hear nothing more."""
    with _lock:
        for processor in _processors.values():
            processor.captures = tuple(other for other in processor.captures if other is not capture)
