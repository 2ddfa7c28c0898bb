"""A task's arguments as people read them, where the options allow it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.task import payload

if TYPE_CHECKING:
    from fastapi_taskflow.task.record import TaskRecord

logger = logging.getLogger("fastapi_taskflow.web")


def arguments_of(record: TaskRecord) -> dict[str, Any] | None:
    """Return ``{"args": [...], "kwargs": {...}}``; None if none were kept or they cannot be shown."""
    if record.payload is None:
        return None
    try:
        shown = payload.display(record.payload)
    except Exception:
        # One unreadable row must not take a list of five hundred with it.
        logger.exception("the arguments of task %s cannot be shown", record.task_id)
        return None
    return {"args": shown.get("args"), "kwargs": shown.get("kwargs")}
