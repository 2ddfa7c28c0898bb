"""What went wrong with another package when it was run, as tests of this one.

Others of its defects are tested where the part is: a cancelled pending task (test_api), tasks lost by SIGKILL
(test_crash) and SIGTERM (test_workers), an argument that cannot be stored (test_api).
"""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from fastapi_taskflow import TaskAdmin, TaskManager, TaskObserver, get_task_context
from tests.integration.conftest import eventually, serving

seen: list[Any] = []


async def note(*values: Any, **named: Any) -> None:
    """A task that keeps what it got."""
    context = get_task_context()
    assert context is not None
    seen.append((values, named, context.tags))


async def fail_once(value: Any) -> None:
    """A task that fails when it first runs."""
    seen.append(value)
    if len(seen) == 1:
        raise ConnectionError(value)


def app_with(url: str, **options: Any) -> SimpleNamespace:
    """A new process's app on that database, as far as one process can make two."""
    manager = TaskManager(snapshot_backend=url, requeue_pending=True, **options)
    app = FastAPI()
    TaskAdmin(app, manager)
    return SimpleNamespace(app=app, manager=manager)


async def status_of(client: httpx.AsyncClient, task_id: str) -> str:
    """The task's status by the API."""
    return str((await client.get(f"/tasks/{task_id}")).json()["status"])


async def until(client: httpx.AsyncClient, task_id: str, status: str) -> None:
    """Wait for a status."""
    assert await eventually(lambda: status_of(client, task_id), lambda found: found == status) == status


async def left_by_a_process(url: str, *args: Any, tags: tuple[str, ...] = (), **kwargs: Any) -> str:
    """Add a task that its process does not come to; return its id."""
    made = app_with(url)
    async with serving(made.app):
        task_id: str = await made.manager.enqueue(note, *args, tags=tags, delay=0.2, **kwargs)
    assert not seen
    return task_id


async def test_a_datetime_comes_back_a_datetime(url: str) -> None:
    """And not its text, in a process that has it from the store."""
    seen.clear()
    zone = timezone(timedelta(hours=5, minutes=30))
    values = (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=zone), date(2026, 1, 2), timedelta(days=1, microseconds=3))
    task_id = await left_by_a_process(url, *values, at=datetime(2026, 1, 2, tzinfo=UTC))
    made = app_with(url)
    async with serving(made.app) as client:
        await until(client, task_id, "success")
    ((args, kwargs, _),) = seen
    assert args == values
    assert [type(value) for value in args] == [datetime, date, timedelta]
    assert args[0].utcoffset() == zone.utcoffset(None)
    assert kwargs == {"at": datetime(2026, 1, 2, tzinfo=UTC)}


async def test_tags_survive_a_requeue(url: str) -> None:
    """In the record, and for the task's own code."""
    seen.clear()
    task_id = await left_by_a_process(url, 1, tags=("order:7", "é"))
    made = app_with(url)
    async with serving(made.app) as client:
        await until(client, task_id, "success")
        assert (await client.get(f"/tasks/{task_id}")).json()["tags"] == ["order:7", "é"]
        assert [each["task_id"] for each in (await client.get("/tasks?tag=order:7")).json()] == [task_id]
    assert seen == [((1,), {}, ("order:7", "é"))]


async def test_a_renamed_task_can_be_retried(url: str) -> None:
    """By hand, with the name that ``name=`` gave it; and after it got another one, by where its function is."""
    seen.clear()
    made = app_with(url)
    made.manager.task(name="mail.welcome")(fail_once)
    async with serving(made.app) as client:
        first = await made.manager.enqueue(fail_once, "a")
        await until(client, first, "failed")
        again = (await client.post(f"/tasks/{first}/retry")).json()["task"]
        assert (again["func_name"], again["retry_of"]) == ("mail.welcome", first)
        await until(client, again["task_id"], "success")
        seen.clear()
        second = await made.manager.enqueue(fail_once, "b")
        await until(client, second, "failed")
    renamed = app_with(url)
    renamed.manager.task(name="mail.greeting")(fail_once)
    async with serving(renamed.app) as client:
        answer = await client.post(f"/tasks/{second}/retry")
        assert answer.status_code == 200, answer.text
        await until(client, answer.json()["task_id"], "success")
    assert seen == ["b", "b"]


async def test_an_observer_that_fails_or_hangs_delays_nobody(url: str) -> None:
    """Neither the tasks nor the answers: it is told off the request's way."""
    gate = threading.Event()

    class Hangs(TaskObserver):
        def on_lifecycle(self, event: object) -> None:
            gate.wait(30)

    class Fails(TaskObserver):
        async def on_lifecycle(self, event: object) -> None:
            raise RuntimeError(event)

    seen.clear()
    made = app_with(url, loggers=[Hangs(), Fails()])
    try:
        async with serving(made.app) as client:
            ids = [await made.manager.enqueue(note, number) for number in range(20)]
            for task_id in ids:
                await until(client, task_id, "success")
            assert not gate.is_set()
            gate.set()
    finally:
        gate.set()
    assert sorted(args for args, _, _ in seen) == [(number,) for number in range(20)]
