"""A task's timeline as spans, built from its record alone: no SDK and no trace backend is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi_taskflow import clock
from fastapi_taskflow.task.record import Attempt, TaskStatus
from fastapi_taskflow.web.schemas import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi_taskflow.task.record import SpanFact, TaskRecord


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """One line of the timeline.

    Attributes:
        span_id: 16 hex digits of the real span, or a made-up name where none was recorded.
        parent_id: The span that it belongs to; None for the root.
        name: What a trace backend calls it, or what it is.
        kind: ``producer``, ``consumer``, ``internal`` and so on.
        start: Seconds since the Unix epoch.
        end: Seconds since the Unix epoch, None while it lasts.
        status: ``unset``, ``ok`` or ``error``.
        synthetic: Whether it was made from the record and is no span of any SDK.
        depth: Levels below the root.
        attributes: Facts about it.
    """

    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start: float
    end: float | None
    status: str = "unset"
    synthetic: bool = False
    depth: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)


def timeline(record: TaskRecord) -> tuple[TimelineSpan, ...]:
    """Return the spans of ``record``, each parent before its children, children by their start."""
    root = _send(record)
    return (root, *_below(root, _waits_and_attempts(record, root.span_id), record.spans))


def trace_json(record: TaskRecord) -> dict[str, Any]:
    """Return the timeline as the API shows it."""
    spans = timeline(record)
    return {
        "task_id": record.task_id,
        "func_name": record.func_name,
        "status": record.status.value,
        "trace_id": record.trace_id,
        "start": iso(min(span.start for span in spans)),
        "end": iso(record.end_time),
        "spans": [_span_json(span) for span in spans],
    }


def _span_json(span: TimelineSpan) -> dict[str, Any]:
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "start": iso(span.start),
        "end": iso(span.end),
        "duration": None if span.end is None else max(0.0, span.end - span.start),
        "status": span.status,
        "synthetic": span.synthetic,
        "attributes": span.attributes,
    }


def _send(record: TaskRecord) -> TimelineSpan:
    real = record.traceparent[36:52] if record.traceparent else None
    return TimelineSpan(
        span_id=real or "send",
        parent_id=None,
        name=f"send {record.func_name}",
        kind="producer",
        start=record.created_at,
        end=record.created_at,
        synthetic=real is None,
        attributes={
            "messaging.message.id": record.task_id,
            "taskflow.queue": record.queue,
            "taskflow.source": record.source,
            "taskflow.priority": record.priority,
        },
    )


def _waits_and_attempts(record: TaskRecord, parent: str) -> Iterator[TimelineSpan]:
    free = record.created_at
    for attempt in record.attempts:
        yield from _gap(record, parent, free, attempt.start_time, attempt.number)
        yield _attempt_span(record, parent, attempt)
        free = attempt.end_time
    current = len(record.attempts) + 1
    ends = record.end_time if record.finished else None
    if record.start_time is None:
        yield from _gap(record, parent, free, ends, current)
        return
    yield from _gap(record, parent, free, record.start_time, current)
    number = max(record.attempt, current)
    yield _attempt_span(record, parent, record_attempt(record, number), status=record.status)


def record_attempt(record: TaskRecord, number: int) -> Attempt:
    """Return the current or last attempt in the form that earlier ones have. Its end is 0 while it runs."""
    return Attempt(
        number=number,
        start_time=record.start_time or 0.0,
        end_time=record.end_time or 0.0,
        error_type=record.error_type,
        error=record.error if record.finished else None,
        span_id=record.span_id,
    )


def _gap(record: TaskRecord, parent: str, start: float, end: float | None, number: int) -> Iterator[TimelineSpan]:
    """Yield what lies before an attempt: a deliberate delay, and the wait for a free worker."""
    latest = number > len(record.attempts)
    ready = record.ready_at if latest and record.ready_at > start else start
    until = end if end is not None else clock.now()
    if ready > start:
        stop = ready if end is None or end > ready else end
        yield _made(f"delay-{number}", parent, "delay before retry", start, stop, {"taskflow.attempt": number})
    if until > ready or (end is None and until >= start and ready <= until):
        name = "wait in queue" if number == 1 or latest else "delay and wait"
        yield _made(f"wait-{number}", parent, name, ready, end, {"taskflow.queue": record.queue})


def _made(
    span_id: str, parent: str, name: str, start: float, end: float | None, attributes: dict[str, Any]
) -> TimelineSpan:
    return TimelineSpan(span_id, parent, name, "internal", start, end, synthetic=True, attributes=attributes)


def _attempt_span(
    record: TaskRecord, parent: str, attempt: Attempt, *, status: TaskStatus | None = None
) -> TimelineSpan:
    last = status is not None
    failed = status is TaskStatus.FAILED if last else attempt.error is not None or attempt.error_type is not None
    attributes: dict[str, Any] = {
        "taskflow.attempt": attempt.number,
        "taskflow.max_attempts": record.max_attempts,
        "taskflow.status": status.value if status is not None else "failed" if attempt.error_type else "interrupted",
        "taskflow.executor": record.executor,
    }
    if failed and attempt.error_type:
        attributes["error.type"] = attempt.error_type
    if attempt.error and (failed or status is not TaskStatus.SUCCESS):
        attributes["error.message"] = attempt.error[:512]
    running = status is TaskStatus.RUNNING
    return TimelineSpan(
        span_id=attempt.span_id or f"attempt-{attempt.number}",
        parent_id=parent,
        name=f"process {record.func_name}",
        kind="consumer",
        start=attempt.start_time,
        end=None if running else max(attempt.start_time, attempt.end_time),
        status="error" if failed else "unset",
        synthetic=attempt.span_id is None,
        attributes=attributes,
    )


def _below(root: TimelineSpan, made: Iterable[TimelineSpan], facts: tuple[SpanFact, ...]) -> Iterator[TimelineSpan]:
    """Yield everything below the root in tree order, with depths. A span whose parent is unknown goes where it ran."""
    lines = list(made)
    known = {root.span_id} | {line.span_id for line in lines} | {fact.span_id for fact in facts}
    attempts = [line for line in lines if line.kind == "consumer"]
    children: dict[str, list[TimelineSpan]] = {}
    for line in lines:
        children.setdefault(root.span_id, []).append(line)
    for fact in facts:
        parent = fact.parent_id if fact.parent_id in known else _around(fact, attempts, root.span_id)
        children.setdefault(parent, []).append(_fact_span(fact, parent))
    seen: set[int] = set()
    stack = [(child, 1) for child in _ordered(children, root.span_id)]
    while stack:
        span, depth = stack.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        yield _at_depth(span, depth)
        stack.extend((child, depth + 1) for child in _ordered(children, span.span_id))


def _ordered(children: dict[str, list[TimelineSpan]], parent: str) -> list[TimelineSpan]:
    # The stack takes the last one first.
    return sorted(children.get(parent, ()), key=lambda span: span.start, reverse=True)


def _around(fact: SpanFact, attempts: list[TimelineSpan], fallback: str) -> str:
    for attempt in reversed(attempts):
        if attempt.start <= fact.start_time:
            return attempt.span_id
    return fallback


def _fact_span(fact: SpanFact, parent: str) -> TimelineSpan:
    return TimelineSpan(
        span_id=fact.span_id,
        parent_id=parent,
        name=fact.name,
        kind=fact.kind,
        start=fact.start_time,
        end=max(fact.start_time, fact.end_time),
        status=fact.status,
        attributes=dict(fact.attributes),
    )


def _at_depth(span: TimelineSpan, depth: int) -> TimelineSpan:
    return TimelineSpan(
        span.span_id, span.parent_id, span.name, span.kind, span.start, span.end, span.status, span.synthetic, depth,
        span.attributes,
    )  # fmt: skip
