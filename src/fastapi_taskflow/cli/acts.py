"""What commands do on a store without an application: retry, cancel, and write it down."""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.errors import InvalidTransitionError, TaskNotFoundError
from fastapi_taskflow.store import Act, Change
from fastapi_taskflow.task import lifecycle
from fastapi_taskflow.task.record import (
    RETRYABLE,
    Resolution,
    TaskRecord,
    TaskStatus,
    keyed_task_id,
    new_task_id,
)

if TYPE_CHECKING:
    from fastapi_taskflow.store import Store

POLL: Final = 0.2


async def found(store: Store, task_id: str) -> TaskRecord:
    """Return a task.

    Raises:
        TaskNotFoundError: If there is none.
    """
    record = await store.get(task_id)
    if record is None:
        raise TaskNotFoundError(task_id)
    return record


async def retry(store: Store, task_id: str) -> TaskRecord:
    """Add an unsuccessful task anew, for whatever instance comes to it first; return the new task.

    Raises:
        TaskNotFoundError: If there is no such task.
        InvalidTransitionError: If it cannot be retried, or was already.
    """
    old = await found(store, task_id)
    if old.status not in RETRYABLE or old.resolution == Resolution.RETRIED:
        state = "retried already" if old.resolution == Resolution.RETRIED else old.status.value
        msg = f"task {task_id} is {state}"
        raise InvalidTransitionError(msg)
    if old.payload is None or old.target is None:
        msg = f"task {task_id} has no call that another process could make"
        raise InvalidTransitionError(msg)
    now = clock.now()
    new = TaskRecord(
        keyed_task_id(old.task_id, f"retry of version {old.version}"),
        old.func_name,
        TaskStatus.PENDING,
        now,
        queue=old.queue,
        priority=old.priority,
        source="retry",
        executor=old.executor,
        max_attempts=1 + max(0, old.max_attempts - 1 - old.recoveries),
        # A task that is to run at a certain time is run by whoever finds it, whatever its options say.
        run_at=now,
        ready_at=now,
        tags=old.tags,
        payload=old.payload,
        target=old.target,
        retry_of=old.task_id,
        requeue_on_interrupt=old.requeue_on_interrupt,
        parent_id=old.parent_id,
        group_id=old.group_id,
        follow=old.follow,
    )
    result = await store.write([Change(new), Change(old.evolve(resolution=Resolution.RETRIED), old)])
    if result.duplicates or result.stale:
        msg = f"task {task_id} was decided about by somebody else just now"
        raise InvalidTransitionError(msg)
    return new


async def cancel(store: Store, task_id: str, *, within: float) -> TaskRecord:
    """Ask the instance that holds a task to cancel it; return the task as it is then.

    Args:
        store: Where the task is.
        task_id: Which one.
        within: Seconds to wait for the instance.

    Raises:
        TaskNotFoundError: If there is no such task.
        InvalidTransitionError: If it has ended.
    """
    record = await found(store, task_id)
    lifecycle.target(record.status, lifecycle.Transition.CANCEL)
    await store.ask_to_cancel(task_id)
    deadline = asyncio.get_running_loop().time() + within
    while not record.finished and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(POLL)
        record = await found(store, task_id)
    return record


async def write_down(store: Store, action: str, target: str, **detail: Any) -> None:
    """Put an act into the audit log, by the name that the system has for whoever runs the command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    facts = {"host": socket.gethostname(), **detail}
    await store.add_act(Act(new_task_id(), clock.now(), f"cli:{user}", action, target, json.dumps(facts), None))
