"""A record as a flat row of atoms (text, numbers, None), and back.

Both stores keep this form. A tuple of atoms is not tracked by the garbage collector, so a long history in memory
costs its passes nothing; what is nested is JSON, escaped to ASCII so that every database can hold it.
"""

from __future__ import annotations

import json
import logging
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastapi_taskflow.task.record import Attempt, LogEntry, SpanFact, TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

logger = logging.getLogger("fastapi_taskflow.stores")

Row = tuple[Any, ...]
_T = TypeVar("_T")

BIRTH: Final = (
    "task_id", "func_name", "created_at", "source", "retry_of", "idempotency_key", "payload", "target", "traceparent",
    "tracestate", "trace_id", "expires_at", "parent_id", "group_id", "schedule", "follow", "tags",
)  # fmt: skip
"""Columns written once, when the task is new."""

STATE: Final = (
    "status", "version", "owner", "queue", "priority", "executor", "attempt", "max_attempts", "run_at", "ready_at",
    "start_time", "end_time", "error", "error_type", "stacktrace", "recoveries", "span_id", "result", "progress",
    "progress_text", "resolution", "requeue_on_interrupt", "attempts", "logs", "spans",
)  # fmt: skip
"""Columns that each change writes."""

COLUMNS: Final = BIRTH + STATE
INDEX: Final = {name: position for position, name in enumerate(COLUMNS)}
HEAVY: Final = frozenset({"payload", "spans", "result", "follow"})
"""Columns that listings leave out."""

_birth = attrgetter(*BIRTH[:-1])
_state = attrgetter("status._value_", *STATE[1:-4])


def birth_row(record: TaskRecord) -> Row:
    """Return the values of `BIRTH`."""
    return (*_birth(record), encode_tags(record.tags) if record.tags else None)


def state_row(record: TaskRecord) -> Row:
    """Return the values of `STATE`."""
    return (
        *_state(record),
        1 if record.requeue_on_interrupt else 0,
        *nested_columns(record),
    )


def nested_columns(record: TaskRecord) -> tuple[str | None, str | None, str | None]:
    """Return attempts, logs and spans as JSON; None for none."""
    return (
        _encode(record.attempts, _attempt_fields) if record.attempts else None,
        _encode(record.logs, _log_fields) if record.logs else None,
        _encode(record.spans, _span_fields) if record.spans else None,
    )


def full_row(record: TaskRecord) -> Row:
    """Return the values of `COLUMNS`."""
    return birth_row(record) + state_row(record)


def record_from(row: Sequence[Any], columns: Sequence[str] = COLUMNS) -> TaskRecord:
    """Return the record of a row with these columns; those left out get their defaults."""
    values = dict(zip(columns, row, strict=True))
    values.pop("trace_id", None)
    values["status"] = TaskStatus(values["status"])
    values["requeue_on_interrupt"] = bool(values["requeue_on_interrupt"])
    values["tags"] = tuple(json.loads(values["tags"])) if values["tags"] else ()
    values["attempts"] = _decode(values.get("attempts"), Attempt)
    values["logs"] = _decode(values.get("logs"), LogEntry)
    values["spans"] = _decode(values.get("spans"), SpanFact)
    return TaskRecord(**values)


def readable(rows: Iterable[Sequence[Any]], columns: Sequence[str] = COLUMNS) -> list[TaskRecord]:
    """Return the records of the rows that can be read; another one, as of a newer version, is told and left out."""
    records = []
    for row in rows:
        try:
            records.append(record_from(row, columns))
        except (ValueError, TypeError, KeyError) as error:
            logger.error("a stored task cannot be read and is left out: %r", error)  # noqa: TRY400 - one line a row
    return records


def encode_tags(tags: Iterable[str]) -> str:
    r"""Return a JSON array with each tag on a line of its own, so that ``\n"tag"\n`` finds a tag and nothing else."""
    return "[\n" + "\n,\n".join(json.dumps(tag) for tag in tags) + "\n]"


def tag_needle(tag: str) -> str:
    """Return the piece of text that is in `encode_tags` of all that have ``tag``, and of no other."""
    return f"\n{json.dumps(tag)}\n"


def text_needles(text: str) -> tuple[str, str]:
    """Return what to look for in plain columns, and in the JSON of the tags."""
    return text, json.dumps(text)[1:-1]


def cleaned(row: Row) -> Row:
    r"""Return ``row`` with what a database refuses made acceptable.

    Lone surrogates are spelled as ``\udxxx`` (within JSON text that is the same text), integers beyond 64 bits are
    cut to what fits, and a time that is not a number becomes 0.
    """
    return tuple(_clean(value) for value in row)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int):
        return max(-(2**63), min(2**63 - 1, value))
    if isinstance(value, float):
        return value if value == value else 0.0  # noqa: PLR0124 - only NaN differs from itself
    return value


def _attempt_fields(attempt: Attempt) -> list[Any]:
    return [attempt.number, attempt.start_time, attempt.end_time, attempt.error_type, attempt.error, attempt.span_id]


def _log_fields(entry: LogEntry) -> list[Any]:
    return [entry.at, entry.level, entry.message, entry.attempt, entry.extra]


def _span_fields(span: SpanFact) -> list[Any]:
    return [
        span.span_id, span.parent_id, span.name, span.kind, span.start_time, span.end_time, span.status,
        span.attributes,
    ]  # fmt: skip


def _encode(items: Iterable[_T], fields: Callable[[_T], list[Any]]) -> str:
    rows = [fields(item) for item in items]
    try:
        return json.dumps(rows, separators=(",", ":"), default=repr)
    except (TypeError, ValueError):  # keys that are not text, or a circle: show them, rather than lose the record
        return json.dumps([[v if isinstance(v, str | float | None) else repr(v) for v in row] for row in rows])


def _decode(text: str | None, make: Callable[..., _T]) -> tuple[_T, ...]:
    try:
        return tuple(make(*row) for row in json.loads(text)) if text else ()
    except (ValueError, TypeError):
        # What is nested is for people to read: a task whose lines are damaged can still be shown and run.
        return ()
