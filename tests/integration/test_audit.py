"""The audit log: every act, by whom and from where, and no act without a line."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow import TaskAdmin, TaskManager
from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.web.acts import ACTIONS
from tests.integration.conftest import eventually, serving


async def fails() -> None:
    """A task that fails."""
    raise ConnectionError


def made(**options: Any) -> tuple[FastAPI, TaskManager, TaskAdmin]:
    """An app with a login."""
    manager = TaskManager(**options)
    app = FastAPI()
    return app, manager, TaskAdmin(app, manager, auth=("ann", "secret-word"))


async def sign_in(client: httpx.AsyncClient, password: str = "secret-word") -> int:  # noqa: S107 - made up
    """Sign in; return the status."""
    answer = await client.post("/tasks/auth/login", data={"username": "ann", "password": password})
    return answer.status_code


async def acts(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """The log, newest first."""
    found: list[dict[str, Any]] = (await client.get("/tasks/audit", params=query)).json()
    return found


async def failed(manager: TaskManager, client: httpx.AsyncClient) -> str:
    """A task that failed."""
    task_id = await manager.enqueue(fails)

    async def status() -> str:
        return str((await client.get(f"/tasks/{task_id}")).json()["status"])

    await eventually(status, lambda found: found == "failed")
    return task_id


async def test_acts_are_told_with_who_and_where(url: str) -> None:
    """Also after a restart; what was refused is none, but a wrong login is told."""
    app, manager, _ = made(snapshot_backend=url)
    async with serving(app) as client:
        assert await sign_in(client, "guess") == 401
        assert await sign_in(client) == 200
        task_id = await failed(manager, client)
        assert (await client.post(f"/tasks/{task_id}/discard")).status_code == 200
        assert (await client.post(f"/tasks/{task_id}/discard")).status_code == 409
        body = {"concurrency": 3}
        assert (await client.patch("/tasks/queues/default", json=body)).status_code == 200
    app, manager, _ = made(snapshot_backend=url)
    async with serving(app) as client:
        assert (await client.get("/tasks/audit")).status_code == 401
        await sign_in(client)
        found = await acts(client)
        assert [(each["action"], each["target"], each["actor"]) for each in found] == [
            ("session.login", "ann", "ann"),
            ("queue.change", "default", "ann"),
            ("task.discard", task_id, "ann"),
            ("session.login", "ann", "ann"),
            ("session.refused", "ann", None),
        ]
        assert {each["address"] for each in found} == {"127.0.0.1"}
        assert found[1]["detail"] == {"status": 200, "body": body}
        assert "secret-word" not in str(found)
        assert [each["action"] for each in await acts(client, target=task_id)] == ["task.discard"]
        first = await client.get("/tasks/audit?limit=2")
        assert 'rel="next"' in first.headers["link"]
        cursor = first.json()[-1]["act_id"]
        assert await acts(client, limit=9, cursor=cursor) == found[2:]


async def test_without_a_login_nobody_is_named() -> None:
    """The address is."""
    manager = TaskManager()
    app = FastAPI()
    TaskAdmin(app, manager)
    async with serving(app) as client:
        task_id = await failed(manager, client)
        await client.post(f"/tasks/{task_id}/retry")
        (act,) = await acts(client)
        assert (act["action"], act["actor"], act["address"]) == ("task.retry", None, "127.0.0.1")


async def test_a_log_that_takes_nothing_stops_no_act(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once."""
    app, manager, _ = made()

    async def refuse(_act: object) -> None:
        msg = "away"
        raise StoreUnavailableError(msg)

    async with serving(app) as client:
        await sign_in(client)
        tasks = [await failed(manager, client) for _ in range(2)]
        monkeypatch.setattr(manager.store, "add_act", refuse)
        answers = await asyncio.gather(*(client.post(f"/tasks/{task_id}/discard") for task_id in tasks))
        assert [answer.status_code for answer in answers] == [200, 200]
    told = [record for record in caplog.records if record.name == "fastapi_taskflow.audit"]
    assert [record.levelname for record in told] == ["ERROR"]


def test_every_route_that_acts_has_a_name_in_the_log() -> None:
    """A new one must not be told by its path alone."""
    _, _, admin = made()
    unsafe = {
        (method.upper(), path.removeprefix("/tasks"))
        for path, methods in admin.openapi()["paths"].items()
        for method in methods
        if method not in {"get", "head", "options"}
    }
    assert unsafe
    assert unsafe - ACTIONS.keys() == set()
