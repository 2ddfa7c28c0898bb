"""One event as one line of text that nobody can forge."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.telemetry.task_observer import LogEvent

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi_taskflow.telemetry.task_observer import LifecycleEvent

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks of any script, marks that turn the direction of text, and lone surrogates."""

_LEVELS: Final = {"failed": "ERROR", "interrupted": "ERROR", "rejected": "WARNING", "cancelled": "WARNING"}


def line_of(event: LogEvent | LifecycleEvent) -> str:
    """Return ``event`` as one line without its line break.

    ``time LEVEL task_id func_name attempt=N message {"extra": …}``, the time in UTC.
    """
    if isinstance(event, LogEvent):
        message, level, extra = event.message, event.level.upper(), event.extra
    else:
        message, level, extra = _told(event), _level(event), _details(event)
    head = f"{_time(event.timestamp)} {level:<8} {event.task_id} {event.func_name} attempt={event.attempt}"
    return one_line(f"{head} {message} {_json(extra)}" if extra else f"{head} {message}")


def one_line(text: str) -> str:
    """Return ``text`` with everything escaped that could break or fake a line: line breaks, terminal codes."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape", "backslashreplace").decode("ascii")


def _time(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _told(event: LifecycleEvent) -> str:
    return event.status if event.event == "finished" else event.event


def _level(event: LifecycleEvent) -> str:
    if event.event == "retried":
        return "WARNING"
    return _LEVELS.get(event.status, "INFO")


def _details(event: LifecycleEvent) -> dict[str, Any]:
    # The error of an earlier attempt is told when that attempt ended, not again with each later event.
    told_error = event.event in ("finished", "retried")
    details = {
        "duration": event.duration,
        "error_type": event.error_type if told_error else None,
        "error": event.error if told_error else None,
        "tags": list(event.tags) or None,
        "trace_id": event.trace_id,
        "span_id": event.span_id,
    }
    return {key: value for key, value in details.items() if value is not None}


def _json(extra: dict[str, Any]) -> str:
    try:
        return json.dumps(extra, default=repr, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, or a circle
        return repr(extra)
