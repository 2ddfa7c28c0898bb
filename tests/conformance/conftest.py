"""Each filling of the store seam, and made-up tasks to put into it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastapi_taskflow.store import Change, Store, WriteResult
from fastapi_taskflow.stores.memory import MemoryStore
from fastapi_taskflow.stores.postgresql import PostgresqlStore
from fastapi_taskflow.stores.sql import SqlStore
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, new_task_id
from tests import postgresql

Make = Callable[..., TaskRecord]
Add = Callable[..., Awaitable[Sequence[TaskRecord]]]


async def held(store: Store, task_id: str) -> TaskRecord:
    """The record that the store must hold."""
    record = await store.get(task_id)
    assert record is not None
    return record


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """A database on a PostgreSQL server, for all tests of a session."""
    with postgresql.database() as url:
        yield url


@pytest.fixture
def emptied(database: str) -> str:
    """The database without a task in it."""
    return postgresql.emptied(database)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def closed_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store that is not open yet."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqlStore(tmp_path / "tasks.db")
    return PostgresqlStore(request.getfixturevalue("emptied"))


@pytest.fixture
async def store(closed_store: Store) -> AsyncIterator[Store]:
    """An open, empty store."""
    made = closed_store
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
