"""Tasks that run once at a certain time, and may have a key by which they are replaced or cancelled until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.arguments import MAX_KEY_CHARS
from fastapi_taskflow.task.record import keyed_task_id

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi_taskflow.task.record import TaskRecord

PREFIX: Final = "@once:"
"""What the ``schedule`` of such a task begins with; its key follows. No name of a schedule begins so."""


@dataclass(frozen=True, slots=True)
class ScheduledOnce:
    """A task that waits for its time.

    Attributes:
        task_id: Its id.
        run_key: Its key, or None.
        func_name: The registered name of its function.
        run_at: When it is due, in UTC.
        created_at: When it was added, in UTC.
        tags: Its labels.
        queue: The queue that it will wait in.
        priority: Its priority there.
    """

    task_id: str
    run_key: str | None
    func_name: str
    run_at: datetime
    created_at: datetime
    tags: tuple[str, ...]
    queue: str
    priority: int


def scheduled_once(record: TaskRecord) -> ScheduledOnce:
    """Return what is shown of a task that waits."""
    return ScheduledOnce(
        task_id=record.task_id,
        run_key=(record.schedule or "").removeprefix(PREFIX) or None,
        func_name=record.func_name,
        run_at=clock.to_datetime(record.ready_at if record.run_at is None else record.run_at),
        created_at=clock.to_datetime(record.created_at),
        tags=record.tags,
        queue=record.queue,
        priority=record.priority,
    )


def once_id(run_key: str, after: TaskRecord | None) -> str:
    """Return the id of the task with this key that follows ``after``: two that add it at once mean the same one."""
    return keyed_task_id(f"{PREFIX}after {after.task_id if after is not None else 'none'}", run_key)


def checked_run_key(run_key: object) -> str:
    """Return the key.

    Raises:
        ConfigurationError: If it is empty, too long, no printable text, or ends in ``*``.
    """
    printable = isinstance(run_key, str) and 0 < len(run_key) <= MAX_KEY_CHARS and run_key.isprintable()
    if not isinstance(run_key, str) or not printable or run_key.endswith("*"):
        msg = f"run_key must be 1 to {MAX_KEY_CHARS} printable characters and not end in '*', not {run_key!r}"
        raise ConfigurationError(msg)
    return run_key
