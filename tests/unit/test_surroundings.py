"""Middleware and dependencies around an attempt: their order, and every way in which they end it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_taskflow import ConfigurationError, TaskContext, TaskManager, TaskRecord, get_task_context, task_log

CallNext = Callable[[], Awaitable[Any]]


@pytest.fixture
async def manager() -> AsyncIterator[TaskManager]:
    """A manager in memory that a test starts when it has declared everything."""
    made = TaskManager(shutdown_timeout=0.05)
    yield made
    await made.shutdown()


async def run(manager: TaskManager, func: Callable[..., Any], *args: Any, **kwargs: Any) -> TaskRecord:
    """Run one task to its end."""
    await manager.startup()
    task_id = await manager.enqueue(func, *args, **kwargs)
    return await ended(manager, task_id)


async def ended(manager: TaskManager, task_id: str) -> TaskRecord:
    """Wait for the end of a task."""
    async with asyncio.timeout(10):
        while True:
            record = await manager.store.get(task_id)
            if record is not None and record.finished:
                return record
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_order_is_as_documented(manager: TaskManager, kind: str) -> None:
    """Task context → middleware, the first one outermost → dependencies → function, and back; for both executors."""
    told: list[str] = []

    def middleware(name: str) -> Callable[[TaskContext, CallNext], Awaitable[Any]]:
        async def around(context: TaskContext, call_next: CallNext) -> Any:
            assert get_task_context() is context
            told.append(f"{name} in")
            try:
                return await call_next()
            finally:
                told.append(f"{name} out")

        return around

    async def get_session() -> AsyncIterator[str]:
        told.append("session in")
        yield "session"
        told.append("session out")

    async def async_task(address: str, session: str = Depends(get_session)) -> None:
        told.append(f"{address} {session}")

    def sync_task(address: str, session: str = Depends(get_session)) -> None:
        told.append(f"{address} {session}")

    manager.middleware(middleware("outer"))
    manager.middleware(middleware("inner"))
    record = await run(manager, async_task if kind == "async" else sync_task, "a@b.c")
    assert record.status == "success"
    assert told == ["outer in", "inner in", "session in", "a@b.c session", "session out", "inner out", "outer out"]


async def test_each_attempt_is_surrounded_anew(manager: TaskManager) -> None:
    """A retry gets a new session, and the error goes through the dependency and the middleware before it counts."""
    told: list[str] = []

    @manager.middleware
    async def count(context: TaskContext, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except ValueError as error:
            told.append(f"attempt {context.attempt}: {error}")
            raise

    def get_session() -> Iterator[int]:
        try:
            yield 1
        except ValueError:
            told.append("rollback")
            raise
        else:
            told.append("commit")

    @manager.task(retries=1)
    async def flaky(session: int = Depends(get_session)) -> None:
        context = get_task_context()
        assert context is not None
        if context.attempt == 1:
            raise ValueError("no")

    record = await run(manager, flaky)
    assert (record.status, record.attempt) == ("success", 2)
    assert told == ["rollback", "attempt 1: no", "commit"]


async def test_what_the_caller_gives_is_used(manager: TaskManager) -> None:
    """By name or by place, also for methods; the dependency is not asked then."""
    seen: list[object] = []

    def get_session() -> str:
        raise AssertionError

    class Mailer:
        def send(self, address: str, db: str = Depends(get_session)) -> None:
            seen.append((address, db))

    await run(manager, Mailer().send, "a", "mine")
    await manager.shutdown()
    await run(manager, Mailer().send, "a", db="named")
    assert seen == [("a", "mine"), ("a", "named")]


async def test_an_option_that_has_the_name_of_a_need_is_the_option(manager: TaskManager) -> None:
    """Nobody has to give the need, so it is clear what was meant."""
    seen: list[object] = []

    async def work(queue: str = Depends(lambda: "mine")) -> None:
        seen.append(queue)

    record = await run(manager, work, queue="email")
    assert (record.queue, seen) == ("email", ["mine"])


async def test_an_app_replaces_dependencies_of_tasks_as_of_routes(manager: TaskManager) -> None:
    """By ``app.dependency_overrides``, looked up for each attempt."""
    app, seen = FastAPI(), []
    manager.init_app(app)

    def get_session() -> str:
        return "real"

    async def use(session: str = Depends(get_session)) -> None:
        seen.append(session)

    async with app.router.lifespan_context(app):
        await ended(manager, await manager.enqueue(use))
        app.dependency_overrides[get_session] = lambda: "fake"
        await ended(manager, await manager.enqueue(use))
    assert seen == ["real", "fake"]


async def test_a_middleware_may_take_the_place_of_the_function(manager: TaskManager) -> None:
    """What it returns or raises is what counts; whoever calls twice is told that this is not how to retry."""
    calls: list[str] = []

    @manager.middleware
    async def gate(context: TaskContext, call_next: CallNext) -> Any:
        match context.tags:
            case ("skip",):
                return None
            case ("fail",):
                raise PermissionError("not now")
            case ("twice",):
                await call_next()
                return await call_next()
        return await call_next()

    async def work() -> None:
        calls.append("work")

    await manager.startup()
    records = {
        tag: await ended(manager, await manager.enqueue(work, tags=[tag])) for tag in ("skip", "fail", "twice", "go")
    }
    assert {tag: record.status.value for tag, record in records.items()} == {
        "skip": "success", "fail": "failed", "twice": "failed", "go": "success",
    }  # fmt: skip
    assert records["fail"].error == "not now"
    assert "the middleware gate called call_next() twice" in str(records["twice"].error)
    assert calls == ["work", "work"]


async def test_neither_hides_a_failure_by_accident(manager: TaskManager) -> None:
    """A dependency that keeps an error to itself does not make a success of it, in the function or in another one."""

    def get_quiet() -> Iterator[int]:
        with contextlib.suppress(ValueError):
            yield 1

    def get_broken(quiet: int = Depends(get_quiet)) -> int:
        raise ValueError("no database")

    async def fails(quiet: int = Depends(get_quiet)) -> None:
        raise ValueError("boom")

    async def never_runs(broken: int = Depends(get_broken)) -> None:
        raise AssertionError

    record = await run(manager, fails)
    assert (record.status, record.error) == ("failed", "boom")
    record = await ended(manager, await manager.enqueue(never_runs))
    assert (record.status, record.error) == ("failed", "no database")


async def test_a_cleanup_that_fails_fails_the_attempt(manager: TaskManager) -> None:
    """A session whose commit fails after the function has stored nothing."""

    async def get_session() -> AsyncIterator[int]:
        yield 1
        raise OSError("commit failed")

    async def work(session: int = Depends(get_session)) -> None:
        task_log("worked")

    record = await run(manager, work)
    assert (record.status, record.error, record.logs[0].message) == ("failed", "commit failed", "worked")


@pytest.mark.parametrize("by", ["cancel", "shutdown"])
@pytest.mark.parametrize("instead", [None, KeyError("mine")])
async def test_a_cancellation_gets_through_a_middleware_that_swallows_it(
    manager: TaskManager, by: str, instead: Exception | None
) -> None:
    """It is cancelled or interrupted as without one, the session is rolled back, and the next task feels nothing."""
    started, told = asyncio.Event(), []

    @manager.middleware
    async def swallow(context: TaskContext, call_next: CallNext) -> Any:
        try:
            return await call_next()
        except BaseException:  # noqa: BLE001 - as bad code does
            told.append("swallowed")
            if instead is not None:
                raise instead from None

    async def get_session() -> AsyncIterator[int]:
        try:
            yield 1
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            told.append("rollback")

    async def forever(session: int = Depends(get_session)) -> None:
        started.set()
        await asyncio.Event().wait()

    await manager.startup()
    task_id = await manager.enqueue(forever)
    await started.wait()
    if by == "cancel":
        assert (await manager.dispatcher.cancel(task_id)).status == "cancelled"
        await manager.shutdown()
    else:
        await manager.shutdown()
        record = await manager.store.get(task_id)
        assert record is not None
        assert record.status == "interrupted"
    assert told == ["rollback", "swallowed"]


async def test_a_time_limit_of_a_middleware_is_a_failure(manager: TaskManager) -> None:
    """``asyncio.timeout`` around ``call_next`` cancels what is inside, and that is not a cancelled task."""

    @manager.middleware
    async def limit(context: TaskContext, call_next: CallNext) -> Any:
        async with asyncio.timeout(0.01):
            return await call_next()

    async def forever() -> None:
        await asyncio.Event().wait()

    record = await run(manager, forever)
    assert (record.status, record.error_type) == ("failed", "TimeoutError")


async def test_what_is_no_middleware_is_refused(manager: TaskManager) -> None:
    """Where it is declared: what it must be, and when."""

    def sync(context: TaskContext, call_next: CallNext) -> Any:
        """Be sync."""

    async def narrow(context: TaskContext) -> Any:
        """Take one argument."""

    async def fine(context: TaskContext, call_next: CallNext) -> Any:
        return await call_next()

    for wrong in (sync, "text", None):
        with pytest.raises(ConfigurationError, match="must be an async function that takes"):
            manager.middleware(wrong)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="narrow cannot be called so"):
        manager.middleware(narrow)  # type: ignore[type-var]
    await manager.startup()
    with pytest.raises(ConfigurationError, match="fine comes too late"):
        manager.middleware(fine)
    await manager.shutdown()
    assert manager.middleware(fine) is fine
