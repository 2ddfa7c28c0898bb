"""When a manager has done what it can do at the time that it is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow import clock
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi_taskflow.entry import Entry
    from fastapi_taskflow.manager import TaskManager

TURNS: Final = 10
"""Turns of the loop in which callbacks may start something."""

HELD_BACK: Final = 0.25
"""Real seconds after which what could run, and does not begin, counts as held back: by a paused queue, say."""

LOOK_EVERY: Final = 0.001

held: set[Entry] = set()
"""Tasks that a test captured: they do not begin by themselves."""


async def settled(
    managers: Iterable[TaskManager], *, within: float, others: Callable[[], Iterable[object]] = tuple
) -> None:
    """Wait until no task runs, and none waits that could run now.

    Args:
        managers: Whose tasks.
        within: Real seconds that it may take.
        others: Returns what else is at work.

    Raises:
        TimeoutError: If a task still runs then.
    """
    managers = tuple(managers)
    deadline = time.monotonic() + within
    seen: list[Any] = []
    since = time.monotonic()
    while True:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        entries = [entry for manager in managers for entry in tuple(manager.journal.live.values()) if _at_work(entry)]
        now = [*((entry.record.task_id, entry.record.version) for entry in entries), *others()]
        if not now and not any(manager.journal.backlog for manager in managers):
            return
        if now != seen:
            seen, since = now, time.monotonic()
        running = [entry for entry in entries if entry.record.status is TaskStatus.RUNNING]
        if not running and time.monotonic() - since > HELD_BACK:
            return
        if time.monotonic() > deadline:
            names = ", ".join(sorted({entry.record.func_name for entry in running}))
            msg = f"{names or 'something'} still runs after {within:g} real seconds; the time was not moved any further"
            raise TimeoutError(msg)
        await asyncio.sleep(LOOK_EVERY)


def _at_work(entry: Entry) -> bool:
    record = entry.record
    if record.status is TaskStatus.RUNNING:
        return True
    waits = (
        entry not in held
        and record.status is TaskStatus.PENDING
        and entry.admitted
        and not (entry.lost or entry.withdrawn)
    )
    return waits and (record.run_at is None or record.run_at <= clock.now())
