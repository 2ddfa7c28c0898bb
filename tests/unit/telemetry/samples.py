"""Tasks to tell of."""

from __future__ import annotations

from typing import Any

from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.definition import TaskDefinition
from fastapi_taskflow.task.event import EventKind, TaskEvent
from fastapi_taskflow.task.outcome import Failure, failure_from
from fastapi_taskflow.task.record import LogEntry, TaskRecord, TaskStatus

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SEND_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SEND_ID}-01"


async def send_email() -> None:
    """Stand in for a task."""


DEFINITION = TaskDefinition(name="send_email", func=send_email, is_async=True, code_name="app.mail.send_email")


def pending(**changes: Any) -> TaskRecord:
    """Return a task that became ready at 100."""
    facts: dict[str, Any] = {
        "task_id": "id-1",
        "func_name": "send_email",
        "status": TaskStatus.PENDING,
        "created_at": 100.0,
        "ready_at": 100.0,
        "max_attempts": 3,
    }
    return TaskRecord(**(facts | changes))


def started(**changes: Any) -> TaskRecord:
    """Return the same, started at 102."""
    return lifecycle.start(pending(**changes), at=102.0, owner="me", span_id="00f067aa0ba902b7")


def failure() -> Failure:
    """Return what a failed attempt left."""
    return failure_from(ConnectionError("no route"))


def told(kind: str, record: TaskRecord, *, sampled: bool = False, log: LogEntry | None = None) -> TaskEvent:
    """Return an event at 110."""
    return TaskEvent(EventKind(kind), record, 110.0, log=log, sampled=sampled)


def line(message: str = "hello", **changes: Any) -> TaskEvent:
    """Return the event of a line."""
    return told("logged", started(), log=LogEntry(105.0, changes.pop("level", "info"), message, 1, changes or None))
