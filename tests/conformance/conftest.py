"""Each filling of the store seam, and made-up tasks to put into it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastapi_taskflow.store import Change, Store, WriteResult
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id

Make = Callable[..., TaskRecord]
Add = Callable[..., Awaitable[Sequence[TaskRecord]]]


async def held(store: Store, task_id: str) -> TaskRecord:
    """The record that the store must hold."""
    record = await store.get(task_id)
    assert record is not None
    return record


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open, empty store."""
    made: Store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "tasks.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def make() -> Make:
    """Makes pending tasks, each a second younger than the one before."""
    seconds = itertools.count(1_700_000_000)

    def make_task(**facts: Any) -> TaskRecord:
        at = float(next(seconds))
        known: dict[str, Any] = {
            "task_id": new_task_id(), "func_name": "send", "status": TaskStatus.PENDING, "created_at": at,
            "ready_at": at, "owner": "me",
        }  # fmt: skip
        return TaskRecord(**(known | facts))

    return make_task


@pytest.fixture
def add(store: Store, make: Make) -> Add:
    """Stores new tasks with these facts, at least one; returns the records."""

    async def add_tasks(number: int = 1, **facts: Any) -> Sequence[TaskRecord]:
        records = [make(**facts) for _ in range(number)]
        assert await store.write([Change(record) for record in records]) == WriteResult()
        return records

    return add_tasks
