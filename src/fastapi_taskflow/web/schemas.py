"""Records as JSON: what the API shows of a task, and a response that no text can break."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from fastapi_taskflow import clock
from fastapi_taskflow.task.payload import display_value

if TYPE_CHECKING:
    from fastapi_taskflow.task.record import Attempt, LogEntry, TaskRecord


_ESCAPE: Final = re.compile(r"\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(?P<lone>ud[89a-f][0-9a-f]{2})|.)")
"""One escape of JSON text; ``lone`` is half of a character without its other half."""


class SafeJSONResponse(Response):
    """JSON in pure ASCII that every parser takes: what Unicode or JSON lacks is spelled out as text."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return ``content`` as bytes."""
        return dump(content).encode("ascii")


def dump(content: object) -> str:
    r"""Return ``content`` as ASCII JSON on one line.

    NaN and the infinities become strings. A lone surrogate becomes text, such as ``\ud800``: strict parsers would
    refuse the whole answer for it.
    """
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"), default=str)
    except ValueError:
        text = json.dumps(_finite(content), allow_nan=False, separators=(",", ":"), default=str)
    return _ESCAPE.sub(_spelled_out, text) if r"\ud" in text else text


def _spelled_out(escape: re.Match[str]) -> str:
    return escape[0] if escape["lone"] is None else f"\\{escape[0]}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(_finite(key)): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def iso(seconds: float | None) -> str | None:
    """Return aware ISO 8601 text, None for None and for a time that no calendar has."""
    if seconds is None:
        return None
    try:
        return clock.to_iso(seconds)
    except (OverflowError, ValueError, OSError):
        return None


def record_json(record: TaskRecord) -> dict[str, Any]:
    """Return what the API shows of a task, without its arguments."""
    return {
        "task_id": record.task_id,
        "func_name": record.func_name,
        "status": record.status.value,
        "created_at": iso(record.created_at),
        "start_time": iso(record.start_time),
        "end_time": iso(record.end_time),
        "duration": record.duration,
        "run_at": iso(record.run_at),
        "expires_at": iso(record.expires_at),
        "retries_used": record.retries_used,
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "attempts": [_attempt_json(attempt) for attempt in record.attempts],
        "error": record.error,
        "error_type": record.error_type,
        "stacktrace": record.stacktrace,
        "logs": [_log_json(entry) for entry in record.logs],
        "tags": list(record.tags),
        "source": record.source,
        "priority": record.priority,
        "executor": record.executor,
        "queue": record.queue,
        "progress": record.progress,
        "progress_text": record.progress_text,
        "result": None if record.result is None else display_value(record.result),
        "idempotency_key": record.idempotency_key,
        "retry_of": record.retry_of,
        "parent_id": record.parent_id,
        "group_id": record.group_id,
        "schedule": record.schedule,
        "resolution": record.resolution,
        "recoveries": record.recoveries,
        "trace_id": record.trace_id,
        "instance_id": record.owner or None,
    }


def stored_json(text: str | None) -> Any:
    """Return the value of stored JSON text; the text itself if it is something else."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "start_time": iso(attempt.start_time),
        "end_time": iso(attempt.end_time),
        "error_type": attempt.error_type,
        "error": attempt.error,
        "span_id": attempt.span_id,
    }


def _log_json(entry: LogEntry) -> dict[str, Any]:
    return {
        "timestamp": iso(entry.at),
        "level": entry.level,
        "message": entry.message,
        "attempt": entry.attempt,
        "extra": entry.extra,
    }
