"""The user's own spans that run under a process span, kept with the record: a timeline without any other tool."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_taskflow.task.outcome import storable_text
from fastapi_taskflow.task.record import SpanFact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TracerProvider

MAX_SPANS: Final = 100
"""Spans kept of one attempt: the first ones that began."""

MAX_ATTRIBUTES: Final = 20
MAX_CHARS: Final = 256
MAX_SAFE_INTEGER: Final = 2**53
"""Beyond this, JSON readers lose digits."""


class StartedSpan(Protocol):
    """The part of an SDK span that a start tells."""

    @property
    def parent(self) -> SpanContext | None:
        """Its parent's context."""

    def get_span_context(self) -> SpanContext | None:
        """Return its own context."""


class _Attempt:
    """What is kept of one attempt."""

    __slots__ = ("facts", "members", "root")

    def __init__(self, root: int) -> None:
        self.root = root
        self.members: list[int] | None = None  # most attempts have no spans below them
        self.facts: list[SpanFact] = []


class SpanCapture:
    """Keeps the spans below process spans until the attempt ends. Safe to use from any thread.

    Only spans that were sampled and have ended by then are kept. A span of any other trace costs one look-up.

    Args:
        max_spans: Spans kept of one attempt.
        max_attributes: Attributes kept of one span.
        max_chars: Characters kept of a name or a value.
        redact: Returns attributes as they may be shown; None leaves them as they are.
    """

    def __init__(
        self,
        *,
        max_spans: int = MAX_SPANS,
        max_attributes: int = MAX_ATTRIBUTES,
        max_chars: int = MAX_CHARS,
        redact: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self._redact = redact
        self._max_spans = max_spans
        self._max_attributes = max_attributes
        self._max_chars = max_chars
        self._open: dict[int, _Attempt] = {}
        self._lock = threading.Lock()
        self._attached = False

    @property
    def open_spans(self) -> int:
        """How many spans are followed right now."""
        return len(self._open)

    def attach(self, provider: TracerProvider) -> bool:
        """Listen to an SDK's provider; return whether it is one that can be listened to. Harmless when repeated."""
        if not hasattr(provider, "add_span_processor"):
            return False
        # The SDK is imported here because most of its import time would be wasted where no SDK is set up.
        from fastapi_taskflow.telemetry.processor import listen

        self._attached = listen(provider, self)
        return self._attached

    def detach(self) -> None:
        """Listen no more, and forget what is open."""
        if self._attached:
            from fastapi_taskflow.telemetry.processor import leave

            leave(self)
            self._attached = False
        with self._lock:
            self._open.clear()

    def open(self, span_id: int) -> None:
        """Begin to keep what runs under this process span."""
        self._open[span_id] = _Attempt(span_id)

    def take(self, span_id: int) -> tuple[SpanFact, ...]:
        """Return what ran under this process span, by start time, and forget it."""
        with self._lock:
            attempt = self._open.get(span_id)
            if attempt is None or attempt.root != span_id:
                return ()
            del self._open[span_id]
            if attempt.members is None:
                return ()
            for member in attempt.members:
                if self._open.get(member) is attempt:
                    del self._open[member]
            return tuple(sorted(attempt.facts, key=_start_time))

    def started(self, span: StartedSpan) -> None:
        """Take note of a span that began."""
        parent = span.parent
        if parent is None or parent.span_id not in self._open:
            return
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        with self._lock:
            attempt = self._open.get(parent.span_id)
            if attempt is None:
                return
            if attempt.members is None:
                attempt.members = []
            if len(attempt.members) < self._max_spans:
                attempt.members.append(context.span_id)
                self._open[context.span_id] = attempt

    def ended(self, span: ReadableSpan) -> None:
        """Keep a span that ended, if its attempt still runs."""
        context = span.get_span_context()
        if context is None or context.span_id not in self._open:
            return
        fact = self._fact(span, context.span_id)
        with self._lock:
            attempt = self._open.get(context.span_id)
            # It stays in the index, since a child may begin after its parent has ended.
            if attempt is not None and attempt.root != context.span_id:
                attempt.facts.append(fact)

    def _fact(self, span: ReadableSpan, span_id: int) -> SpanFact:
        return SpanFact(
            span_id=f"{span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else "",
            name=self._text(span.name),
            kind=span.kind.name.lower(),
            start_time=(span.start_time or 0) / 1e9,
            end_time=(span.end_time or span.start_time or 0) / 1e9,
            status=span.status.status_code.name.lower(),
            attributes=self._bounded(span.attributes or {}),
        )

    def _bounded(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if self._redact is not None:
            attributes = self._redact(attributes)
        for key, value in attributes.items():
            if len(kept) >= self._max_attributes:
                break
            kept[self._text(key)] = self._value(value)
        return kept

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if abs(value) <= MAX_SAFE_INTEGER else self._text(str(value))
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, tuple | list):
            value = value[: self._max_chars]  # no more of it could be shown
        return self._text(json.dumps(value, default=repr, ensure_ascii=False))

    def _text(self, text: str) -> str:
        if len(text) > self._max_chars:
            text = f"{text[: self._max_chars - 1]}…"
        return storable_text(text, self._max_chars * 8)


def _start_time(fact: SpanFact) -> float:
    return fact.start_time
