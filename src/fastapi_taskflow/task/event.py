"""What happened to a task, as told to observers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastapi_taskflow.task.record import LogEntry, TaskRecord


class EventKind(StrEnum):
    """The kinds of events."""

    ENQUEUED = "enqueued"
    STARTED = "started"
    RETRIED = "retried"
    FINISHED = "finished"
    RECOVERED = "recovered"
    LOGGED = "logged"
    PROGRESSED = "progressed"


class TaskEvent(NamedTuple):
    """One event. A named tuple for the same reason as the record: each task makes three.

    Attributes:
        kind: What happened. ``retried``: an attempt failed and another one will follow. ``finished``: see
            ``record.status`` for how. ``recovered``: taken over from a dead instance. ``progressed``: the running task
            told how far it is.
        record: The record after the change.
        at: Seconds since the Unix epoch.
        log: The line, for ``logged`` only.
        sampled: Whether the process span of this attempt is sampled, so that an exemplar may point at it.
    """

    kind: EventKind
    record: TaskRecord
    at: float
    log: LogEntry | None = None
    sampled: bool = False
