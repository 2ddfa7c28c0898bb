"""Dead letters: what failed for good waits for a decision, which is made once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow import TaskAdmin, TaskManager
from tests import postgresql
from tests.integration.conftest import Server, eventually, serving, wait_for

state = {"broken": True}


async def fragile(number: int) -> int:
    """A task that fails as long as something is broken."""
    if state["broken"]:
        raise ConnectionError(number)
    return number


class Shop:
    """An app on a database."""

    def __init__(self, **options: Any) -> None:
        state["broken"] = True
        self.manager = TaskManager(**options)
        self.app = FastAPI()
        TaskAdmin(self.app, self.manager)

    async def add_failed(self, client: httpx.AsyncClient, number: int, **options: Any) -> list[str]:
        """Add tasks and wait until all have failed."""
        ids = [await self.manager.enqueue(fragile, n, **options) for n in range(number)]
        for task_id in ids:
            await until(client, task_id, "failed")
        return ids


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """An app on each kind of store."""
    if request.param == "memory":
        yield Shop()
    elif request.param == "sqlite":
        yield Shop(snapshot_db=tmp_path / "tasks.db")
    else:
        with postgresql.database() as made:
            yield Shop(snapshot_backend=made)


async def detail(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The task by the API."""
    found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
    return found


async def until(client: httpx.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    """Wait for a status; return the task."""
    found: dict[str, Any] = await eventually(
        lambda: detail(client, task_id), lambda task: bool(task.get("status") == status)
    )
    return found


async def letters(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """The ids of a page of dead letters."""
    answer = await client.get("/tasks/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    return [each["task_id"] for each in answer.json()]


async def test_one_is_retried_once(shop: Shop) -> None:
    """And is none any more; the new run is linked to it."""
    async with serving(shop.app) as client:
        (old,) = await shop.add_failed(client, 1, tags=["a"])
        assert await letters(client) == [old]
        state["broken"] = False
        answers = await asyncio.gather(*(client.post(f"/tasks/{old}/retry") for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        assert all("retried already" in each.json()["detail"] for each in answers if each.status_code == 409)
        (new,) = [each.json()["task_id"] for each in answers if each.status_code == 200]
        record = await until(client, new, "success")
        assert (record["retry_of"], record["result"], record["tags"]) == (old, 0, ["a"])
        assert (await detail(client, old))["resolution"] == "retried"
        assert (await detail(client, old))["status"] == "failed"
        assert await letters(client) == []
        assert [each["task_id"] for each in (await client.get("/tasks?status=failed")).json()] == [old]


async def test_one_is_discarded(shop: Shop) -> None:
    """It stays in the history; it may still be retried by whoever thinks again."""
    async with serving(shop.app) as client:
        (old,) = await shop.add_failed(client, 1)
        done = await client.post(f"/tasks/{old}/discard")
        assert (done.status_code, done.json()["task"]["resolution"]) == (200, "discarded")
        assert await letters(client) == []
        again = await client.post(f"/tasks/{old}/discard")
        assert (again.status_code, "discarded already" in again.json()["detail"]) == (409, True)
        assert (await client.post(f"/tasks/{old}/retry")).status_code == 200
        good = await shop.manager.enqueue(asyncio.sleep, 0)
        await until(client, good, "success")
        assert (await client.post(f"/tasks/{good}/discard")).status_code == 409
        assert (await client.post("/tasks/nothing/discard")).status_code == 404


async def test_two_workers_that_decide_at_once_agree(url: str) -> None:
    """The store takes one decision, and one new task."""
    first, second = Shop(snapshot_backend=url), Shop(snapshot_backend=url)
    async with serving(first.app) as here, serving(second.app) as there:
        for old in await first.add_failed(here, 10):
            both = await asyncio.gather(here.post(f"/tasks/{old}/retry"), there.post(f"/tasks/{old}/retry"))
            assert sorted(answer.status_code for answer in both) == [200, 409], [each.text for each in both]
        (old,) = await first.add_failed(here, 1)
        both = await asyncio.gather(here.post(f"/tasks/{old}/retry"), there.post(f"/tasks/{old}/discard"))
        assert 200 in {answer.status_code for answer in both}


async def test_all_that_match_are_retried_by_a_job(shop: Shop) -> None:
    """The job is a task, with its progress and its result; what does not match is left alone."""
    async with serving(shop.app) as client:
        mine = await shop.add_failed(client, 120, tags=["mine"])
        others = await shop.add_failed(client, 3)
        assert len(await letters(client, tag="mine", limit=500)) == 120
        state["broken"] = False
        answer = await client.post("/tasks/dead-letters/retry", json={"tag": "mine", "since": "1h"})
        assert answer.status_code == 202, answer.text
        job = await until(client, answer.json()["task_id"], "success")
        assert (job["func_name"], job["result"]) == ("taskflow.bulk_retry", {"done": 120, "skipped": 0})
        assert (job["progress"], job["progress_text"]) == (1.0, "retry: 120 done, 0 skipped")
        assert set(await letters(client)) == set(others)
        for old in mine[:3]:
            assert (await detail(client, old))["resolution"] == "retried"
        answer = await client.post("/tasks/dead-letters/discard", json={})
        job = await until(client, answer.json()["task_id"], "success")
        assert job["result"] == {"done": 3, "skipped": 0}
        assert await letters(client) == []
        functions = [each["name"] for each in (await client.get("/tasks/functions")).json() if each["registered"]]
        assert "taskflow.bulk_retry" not in functions


async def test_wrong_filters_are_refused(shop: Shop) -> None:
    """What is left of a filter must not come to mean all."""
    async with serving(shop.app) as client:
        (old,) = await shop.add_failed(client, 1)
        wrong: list[Any] = [
            {"func_name": "\0"},
            {"tag": " "},
            {"since": "soon"},
            {"status": "failed"},
            {"q": 5},
            [],
            None,
        ]
        for body in wrong:
            for verb in ("retry", "discard"):
                answer = await client.post(f"/tasks/dead-letters/{verb}", json=body)
                assert answer.status_code == 422, (body, answer.text)
        assert await letters(client, status="success") == []
        assert await letters(client, status="failed") == [old]
        assert await letters(client, status="interrupted") == []


APP = """
import asyncio, os
from fastapi import FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager

manager = TaskManager(snapshot_db="tasks.db")
app = FastAPI()
TaskAdmin(app, manager)


async def fragile(number):
    if not os.path.exists("mended"):
        raise ConnectionError(number)
    with open("ran.txt", "a") as out:
        out.write(f"{number}\\n")


@app.get("/ready")
async def ready():
    return {}


@app.post("/add/{number}")
async def add(number: int):
    await asyncio.gather(*(manager.enqueue(fragile, each) for each in range(number)))
"""


def test_a_job_survives_a_kill(start_server: Any, tmp_path: Path) -> None:
    """It goes on where it was: each letter is retried once."""
    server: Server = start_server(APP)
    httpx.post(f"{server.url}/add/600", timeout=30).raise_for_status()

    def counts() -> dict[str, int]:
        found: dict[str, int] = httpx.get(f"{server.url}/tasks/metrics?format=json", timeout=10).json()
        return found

    wait_for(counts, lambda found: found["failed"] == 600)
    (tmp_path / "mended").touch()
    job = httpx.post(f"{server.url}/tasks/dead-letters/retry", json={}, timeout=10).json()["task_id"]
    wait_for(counts, lambda found: found["success"] > 60)
    server.kill()
    server = start_server(APP)
    record = wait_for(
        lambda: httpx.get(f"{server.url}/tasks/{job}", timeout=10).json(), lambda found: found["status"] == "success"
    )
    assert record["recoveries"] == 1
    left = httpx.get(f"{server.url}/tasks/dead-letters?limit=500", timeout=10).json()
    # What was retried and waited when the process was killed is shown as interrupted: it is decided about anew.
    assert {each["status"] for each in left} <= {"interrupted"}
    assert all(each["retry_of"] for each in left)
    ran = wait_for(lambda: (tmp_path / "ran.txt").read_text().split(), lambda lines: len(set(lines)) + len(left) >= 600)
    assert len(ran) == len(set(ran))


async def test_old_history_is_deleted_by_hand(shop: Shop) -> None:
    """What has ended and is old enough; never what still lives."""
    async with serving(shop.app) as client:
        await shop.add_failed(client, 3)
        waiting = await shop.manager.enqueue(fragile, 1, delay=3600)
        assert (await client.delete("/tasks/history?value=1&unit=hour")).json() == {"deleted": 0, "more": False}
        assert (await client.delete("/tasks/history?value=0&unit=min")).json() == {"deleted": 3, "more": False}
        assert [each["task_id"] for each in (await client.get("/tasks")).json()] == [waiting]
