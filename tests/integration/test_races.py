"""What happens when requests, shutdowns and failures meet at the wrong moment."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from fastapi_taskflow import ManagedBackgroundTasks, StoreUnavailableError, TaskAdmin, TaskManager
from tests.integration.conftest import eventually, serving
from tests.integration.test_durability import GatedStore


async def test_a_second_request_with_a_key_does_not_trust_a_withdrawn_first(tmp_path: Path) -> None:
    """The first one gives up while both wait; the second one's task is stored and runs."""
    store = GatedStore(tmp_path / "tasks.db")
    manager = TaskManager(snapshot_backend=store, commit_timeout=5)
    ran: list[str] = []
    await manager.startup()
    store.gate.clear()
    other = asyncio.create_task(manager.enqueue(ran.append, "other"))
    await store.waiting.wait()
    first = asyncio.create_task(manager.enqueue(ran.append, "first", idempotency_key="k"))
    await asyncio.sleep(0)
    second = asyncio.create_task(manager.enqueue(ran.append, "second", idempotency_key="k"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.gate.set()
    await other
    record = await store.get(await second)
    assert record is not None
    await manager.shutdown()
    assert sorted(ran) == ["other", "second"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_requests_without_a_lifespan_may_come_at_the_same_time(tmp_path: Path, kind: str) -> None:
    """The manager starts for the first and stops after the last of them."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db" if kind == "sqlite" else None)
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[int] = []

    @app.post("/{number}")
    async def go(number: int, background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(ran.append, number)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(2):
            answers = await asyncio.gather(*(client.post(f"/{number}") for number in range(6)))
            assert [answer.status_code for answer in answers] == [200] * 6
    assert sorted(ran) == sorted([*range(6)] * 2)


async def test_a_thread_that_outlives_the_shutdown_stays_running(tmp_path: Path) -> None:
    """It is not handed to anybody while it runs."""
    path = tmp_path / "tasks.db"
    manager = TaskManager(snapshot_db=path, shutdown_timeout=0, requeue_pending=True)
    started, release = threading.Event(), threading.Event()

    @manager.task(requeue_on_interrupt=True)
    def stubborn() -> None:
        started.set()
        release.wait(20)

    await manager.startup()
    task_id = await manager.enqueue(stubborn)
    await asyncio.to_thread(started.wait, 10)
    await manager.shutdown()
    await manager.store.open()
    record = await manager.store.get(task_id)
    instances = await manager.store.instances()
    await manager.store.close()
    release.set()
    assert record is not None
    assert (record.status, [each.instance_id for each in instances]) == ("running", [record.owner])


async def test_a_task_added_while_the_shutdown_waits_gets_its_turn() -> None:
    """Nobody would run it later."""
    manager = TaskManager()
    ran: list[str] = []
    started = asyncio.Event()

    async def second() -> None:
        await asyncio.sleep(0.02)
        ran.append("second")

    async def first() -> None:
        started.set()
        await asyncio.sleep(0.02)
        await manager.enqueue(second)

    await manager.startup()
    await manager.enqueue(first)
    await started.wait()
    await manager.shutdown()
    assert ran == ["second"]


async def test_tasks_of_a_cancelled_request_stay_in_order() -> None:
    """They do not run beside each other."""
    manager = TaskManager()
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    running, most = 0, 0
    started, gate = asyncio.Event(), asyncio.Event()
    ids: list[str] = []

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        started.set()
        await gate.wait()
        running -= 1

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        ids.extend(background_tasks.add_task(work) for _ in range(3))

    async with serving(app) as client:
        request = asyncio.create_task(client.post("/go"))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gate.set()

        async def statuses() -> set[str]:
            return {(await client.get(f"/tasks/{each}")).json()["status"] for each in ids}

        assert await eventually(statuses, lambda found: found == {"success"}) == {"success"}
    assert most == 1


async def test_a_failing_late_commit_loses_no_accepted_task(tmp_path: Path) -> None:
    """A task adds one that the store refuses: the accepted ones after it run all the same."""
    store = GatedStore(tmp_path / "tasks.db")
    manager = TaskManager(snapshot_backend=store, commit_timeout=0.05)
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)
    ran: list[str] = []
    holder: list[ManagedBackgroundTasks] = []

    def adds() -> None:
        store.gate.clear()
        holder[0].add_task(ran.append, "late")

    @app.post("/go")
    async def go(background_tasks: ManagedBackgroundTasks) -> None:
        holder.append(background_tasks)
        background_tasks.add_task(adds)
        background_tasks.add_task(ran.append, "accepted")

    async with serving(app) as client:
        await client.post("/go")
        store.gate.set()
        assert ran == ["accepted"]


async def test_a_broken_sampler_costs_the_span_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """The user's telemetry may raise anywhere."""

    class Broken(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            msg = "no"
            raise RuntimeError(msg)

        def get_description(self) -> str:
            return "broken"

    manager = TaskManager(tracer_provider=TracerProvider(sampler=Broken()))
    ran: list[str] = []
    await manager.startup()
    await manager.enqueue(ran.append, "ran")
    await manager.shutdown()
    assert ran == ["ran"]
    assert "could not be made" in caplog.text


async def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """No heartbeat goes on, and the next start works."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")
    app = FastAPI()
    manager.init_app(app)
    claim = manager.store.claim

    async def broken(*_: Any, **__: Any) -> Any:
        msg = "no"
        raise StoreUnavailableError(msg)

    manager.store.claim = broken  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        async with serving(app):
            pytest.fail("it must not start")
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("taskflow")] == []
    manager.store.claim = claim  # type: ignore[method-assign]
    async with serving(app):
        assert len(await manager.store.instances()) == 1


async def test_a_start_that_fails_after_the_first_sign_of_life_gives_no_more(tmp_path: Path) -> None:
    """The store is closed again, and nothing goes on beating into it."""
    manager = TaskManager(snapshot_db=tmp_path / "tasks.db")

    async def broken(*_: Any, **__: Any) -> Any:
        msg = "nobody foresaw this"
        raise RuntimeError(msg)

    manager.store.forget_numbers = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="foresaw"):
        await manager.startup()
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("taskflow")] == []


@pytest.mark.parametrize("payload", ["not json", '{"args":[{"$":"cls"}],"kwargs":{}}'])
async def test_a_damaged_row_does_not_stop_the_start(
    tmp_path: Path, payload: str, start_with_row: Callable[[Path, str], None]
) -> None:
    """It becomes interrupted and says why; a row of an unknown status is left out of lists."""
    path = tmp_path / "tasks.db"
    manager = TaskManager(snapshot_db=path, requeue_pending=True)
    await manager.startup()
    await manager.shutdown()
    start_with_row(path, payload)
    app = FastAPI()
    TaskAdmin(app, manager)
    async with serving(app) as client:
        records = (await client.get("/tasks")).json()
    assert [(record["task_id"], record["status"]) for record in records] == [("damaged", "interrupted")]


@pytest.fixture
def start_with_row() -> Callable[[Path, str], None]:
    """Return a function that writes a damaged row, and one of a status from the future."""

    def write(path: Path, payload: str) -> None:
        columns = (
            "task_id, func_name, status, created_at, version, owner, queue, priority, source, executor, attempt, "
            "max_attempts, ready_at, requeue_on_interrupt, recoveries, payload, target, logs"
        )
        rest = (1.0, 1, "gone", "default", 0, "request", "async", 0, 1, 1.0, 0, 0, payload, "json:dumps", "[[")
        with sqlite3.connect(path) as database:
            marks = ", ".join("?" * 18)
            for task_id, status in (("damaged", "pending"), ("future", "hibernating")):
                database.execute(
                    f"INSERT INTO taskflow_tasks ({columns}) VALUES ({marks})",  # noqa: S608 - constants
                    (task_id, "dumps", status, *rest),
                )
        database.close()

    return write
