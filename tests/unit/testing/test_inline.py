"""One task in place: what it returned, what it raised, and its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_taskflow import TaskArgumentError, TaskContext, TaskManager, get_task_context, task_log
from fastapi_taskflow.testing import FakeClock, run_inline


async def test_result_and_record() -> None:
    """Of async and sync functions, with the options of ``enqueue``."""

    async def double(number: int) -> int:
        task_log("doubling")
        return 2 * number

    run = await run_inline(TaskManager(), double, 21, tags=["math"])
    assert (run.result(), run.error) == (42, None)
    assert (run.record.status, run.record.tags, [line.message for line in run.record.logs]) == (
        "success", ("math",), ["doubling"],
    )  # fmt: skip
    assert (await run_inline(TaskManager(), lambda: "sync")).result() == "sync"


async def test_retries_are_not_waited_for_and_the_error_is_the_real_one() -> None:
    """Attempts, pauses and the last exception are there; the manager itself knows nothing of it."""
    manager = TaskManager()
    error = ConnectionError("busy")

    @manager.task(retries=2, delay=600, backoff=2)
    async def call() -> None:
        raise error

    run = await run_inline(manager, call)
    assert (run.record.status, run.record.attempt) == ("failed", 3)
    assert run.record.end_time is not None
    assert run.record.end_time - run.record.created_at == pytest.approx(1800)
    assert run.error is error
    with pytest.raises(ConnectionError, match="busy"):
        run.result()
    assert manager.journal.live == {}

    @manager.task(retries=1, delay=600)
    def second_time_lucky() -> int:
        context = get_task_context()
        assert context is not None
        return 1 // (context.attempt - 1)

    run = await run_inline(manager, second_time_lucky)
    assert (run.result(), run.error, run.record.attempt) == (1, None, 2)


async def test_it_runs_as_the_application_would_run_it() -> None:
    """With its middleware, its dependencies and their overrides, whether or not it is started."""
    app, manager = FastAPI(), TaskManager()
    manager.init_app(app)

    @manager.middleware
    async def shout(context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        return (await call_next()).upper()

    async def get_name() -> AsyncIterator[str]:
        yield "real"

    @manager.task()
    async def greet(greeting: str, name: str = Depends(get_name)) -> str:
        return f"{greeting} {name}"

    assert (await run_inline(manager, greet, "hello")).result() == "HELLO REAL"
    app.dependency_overrides[get_name] = lambda: "fake"
    assert (await run_inline(manager, greet, "hello")).result() == "HELLO FAKE"
    async with app.router.lifespan_context(app):
        assert (await run_inline(manager, greet, "hello", name="mine")).result() == "HELLO MINE"
        assert manager.journal.live == {}


async def test_arguments_must_be_fit_for_the_database(tmp_path: Path) -> None:
    """As ``add_task`` would say it; in memory anything goes. No file is made."""

    async def take(value: object) -> None:
        """Do nothing."""

    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")
    with pytest.raises(TaskArgumentError, match="cannot be stored as a task"):
        await run_inline(manager, take, object())
    assert (await run_inline(manager, take, "text")).record.status == "success"
    assert (await run_inline(TaskManager(), take, object())).record.status == "success"
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_it_works_within_a_fake_clock() -> None:
    """The outer time does not move, and begins where the outer one is."""
    manager = TaskManager()

    @manager.task(retries=1, delay=60)
    async def flaky() -> None:
        context = get_task_context()
        assert context is not None
        await asyncio.sleep(0)
        assert context.attempt == 2

    with FakeClock() as outer:
        before = outer.time
        run = await run_inline(manager, flaky)
        assert outer.time == before
    assert run.record.created_at == before.timestamp()
    assert run.record.status == "success"
