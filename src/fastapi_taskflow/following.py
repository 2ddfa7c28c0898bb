"""Adds what follows a task, in the transaction that stores how it ended."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.entry import Entry, never_called, unknown_definition
from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.follow import StoredStep, restored, steps_after
from fastapi_taskflow.task.outcome import Failure
from fastapi_taskflow.task.placing import placed
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, keyed_task_id
from fastapi_taskflow.task.step import filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.task.call import Calls

logger = logging.getLogger("fastapi_taskflow.following")

SOURCE: Final = "follow"
"""The ``source`` of what follows a task."""


class Following:
    """Makes the tasks that follow one that has ended.

    Args:
        dispatcher: Adds them.
        calls: Restores calls.
    """

    def __init__(self, dispatcher: Dispatcher, calls: Calls) -> None:
        self._dispatcher = dispatcher
        self._calls = calls

    def ended(self, entry: Entry, value: Any = None) -> None:
        """Add what follows a task that has ended. Call it in the turn in which the journal gets its last record.

        Args:
            entry: The task.
            value: What it returned.
        """
        try:
            self.add(entry, steps_after(entry.record), value)
        except Exception:
            logger.exception("what follows task %s could not be added", entry.record.task_id)

    def add(self, entry: Entry, steps: Sequence[StoredStep], value: Any = None) -> None:
        """Add these steps after a task; see `ended`."""
        if steps:
            children = [self._child(entry.record, index, each, value) for index, each in enumerate(steps)]
            self._dispatcher.add_after(entry, children)
            for child in children:
                if child.record.finished:
                    self.ended(child)

    def _child(self, parent: TaskRecord, index: int, step: StoredStep, value: Any) -> Entry:
        # The attempt is part of it: what another instance adds after its own attempt is not the same.
        task_id = keyed_task_id(parent.task_id, f"{parent.status}/{parent.attempt}/{index}")
        try:
            definition, func, args, kwargs = restored(step, self._calls)
            args, kwargs = filled(args, kwargs, value)
            placing = replace(placed(**step.options), parent_id=parent.task_id, follow=step.follow, task_id=task_id)
            return self._dispatcher.prepare(
                func, args, kwargs, placing, source=SOURCE, definition=definition, after=parent
            )
        except TaskArgumentError as error:
            return self._failed(parent, task_id, step, str(error))

    def _failed(self, parent: TaskRecord, task_id: str, step: StoredStep, why: str) -> Entry:
        """Return a task that cannot be started, so that it is seen."""
        record = TaskRecord(
            task_id, step.name, TaskStatus.PENDING, parent.end_time or 0.0, owner=self._dispatcher.owner,
            source=SOURCE, ready_at=parent.end_time or 0.0, tags=tuple(step.options.get("tags", ())),
            payload=step.payload, target=step.target, traceparent=parent.traceparent, tracestate=parent.tracestate,
            parent_id=parent.task_id, follow=step.follow,
        )  # fmt: skip
        failure = Failure("fastapi_taskflow.TaskArgumentError", f"it cannot be started: {why}")
        entry = Entry(record, unknown_definition(record), never_called, (), {})
        entry.record = lifecycle.fail(record, failure, at=record.created_at)
        return entry
