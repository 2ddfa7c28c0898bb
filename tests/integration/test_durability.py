"""Accepted means stored: what the client sees when the store is slow, locked or full."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from fastapi_taskflow import ManagedBackgroundTasks, StoreUnavailableError, TaskAdmin, TaskManager
from fastapi_taskflow.store import Change, WriteResult
from fastapi_taskflow.stores.sql import SqlStore, sqlite_url
from tests.integration.conftest import eventually, serving


class GatedStore(SqlStore):
    """SQLite whose commits wait at a gate."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite_url(path))
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Wait at the gate first."""
        if not self.gate.is_set():
            self.waiting.set()
        await self.gate.wait()
        return await super().write(changes)


def make_app(manager: TaskManager, ran: list[str]) -> FastAPI:
    """Return an app with routes of each kind."""
    app = FastAPI()
    TaskAdmin(app, manager, auto_install=True)

    @app.post("/async")
    async def from_async(background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(ran.append, "async")

    @app.post("/sync")
    def from_sync(background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(ran.append, "sync")

    @app.post("/stream")
    async def stream(background_tasks: ManagedBackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "body"

        background_tasks.add_task(ran.append, "stream")
        return StreamingResponse(body())

    @app.post("/keyed")
    async def keyed(background_tasks: ManagedBackgroundTasks) -> str:
        return background_tasks.add_task(ran.append, "keyed", idempotency_key="k")

    @app.get("/none")
    async def none() -> str:
        return "none"

    return app


@pytest.mark.parametrize("path", ["/async", "/sync", "/stream"])
async def test_the_response_waits_for_the_commit(tmp_path: Path, path: str) -> None:
    """No byte goes out before the row is there; a request without tasks does not wait."""
    store = GatedStore(tmp_path / "tasks.db")
    ran: list[str] = []
    app = make_app(TaskManager(snapshot_backend=store), ran)
    async with serving(app) as client:
        store.gate.clear()
        request = asyncio.create_task(client.post(path))
        await store.waiting.wait()
        assert (await client.get("/none")).status_code == 200
        assert not request.done()
        assert ran == []
        store.gate.set()
        assert (await request).status_code == 200
        assert ran == [path[1:]]


@pytest.mark.parametrize("path", ["/async", "/sync", "/stream"])
async def test_a_store_that_is_too_slow_gives_503_and_keeps_nothing(tmp_path: Path, path: str) -> None:
    """The client may try again; the first try never runs, also when its commit comes late."""
    store = GatedStore(tmp_path / "tasks.db")
    ran: list[str] = []
    app = make_app(TaskManager(snapshot_backend=store, commit_timeout=0.05), ran)
    async with serving(app) as client:
        store.gate.clear()
        answer = await client.post(path)
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith("The background tasks of this request could not be stored")
        assert answer.headers["retry-after"] == "1"
        store.gate.set()
        answer = await client.post(path)
        assert answer.status_code == 200
        records = await eventually(
            lambda: listing(client), lambda found: {r["status"] for r in found} <= {"success", "rejected"}
        )
        assert sorted(record["status"] for record in records) in (["success"], ["rejected", "success"])
    assert ran == [path[1:]]


async def test_a_late_commit_of_a_keyed_task_runs_once(tmp_path: Path) -> None:
    """The second try gets the first one's id, and the task runs a single time."""
    store = GatedStore(tmp_path / "tasks.db")
    ran: list[str] = []
    app = make_app(TaskManager(snapshot_backend=store, commit_timeout=0.05), ran)
    async with serving(app) as client:
        store.gate.clear()
        assert (await client.post("/keyed")).status_code == 503
        store.gate.set()
        answer = await client.post("/keyed")
        assert answer.status_code == 200
        record = await eventually(lambda: one(client, answer.json()), lambda found: found["status"] == "success")
        assert record["task_id"] == answer.json()
    assert ran == ["keyed"]


async def test_enqueue_outside_of_a_request_raises(tmp_path: Path) -> None:
    """The caller learns that nothing was kept."""
    store = GatedStore(tmp_path / "tasks.db")
    ran: list[str] = []
    manager = TaskManager(snapshot_backend=store, commit_timeout=0.05)
    await manager.startup()
    store.gate.clear()
    with pytest.raises(StoreUnavailableError, match=r"did not commit within 0\.05 s"):
        await manager.enqueue(ran.append, "never")
    store.gate.set()
    await manager.enqueue(ran.append, "once")
    await manager.shutdown()
    assert ran == ["once"]


async def test_a_locked_database_gives_503_and_recovers_by_itself(tmp_path: Path) -> None:
    """Another program holds the lock for a while; running tasks go on and are told afterwards."""
    path = tmp_path / "tasks.db"
    manager = TaskManager(snapshot_db=path, commit_timeout=0.2)
    ran: list[str] = []
    app = make_app(manager, ran)
    gate = threading.Event()

    def holds() -> None:
        gate.wait(20)

    async with serving(app) as client:
        held = await manager.enqueue(holds)
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        assert (await client.post("/async")).status_code == 503
        gate.set()
        assert (await client.get("/none")).status_code == 200
        locker.execute("ROLLBACK")
        locker.close()

        async def again() -> int:
            return (await client.post("/async")).status_code

        await eventually(again, lambda status: status == 200, within=30)
        record = await eventually(lambda: one(client, held), lambda found: found["status"] == "success")
        assert record["task_id"] == held
    assert ran == ["async"]


async def listing(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return the first page."""
    found: list[dict[str, Any]] = (await client.get("/tasks")).json()
    return found


async def one(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """Return one record, or what is said instead."""
    found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
    return {"status": None, **found}


class SilentStore(SqlStore):
    """Commits, and loses the answer, for as long as ``silent`` is set."""

    silent = False

    async def write(self, changes: Sequence[Change]) -> WriteResult:
        """Write, whatever is told then."""
        result = await super().write(changes)
        if self.silent:
            msg = "the answer got lost"
            raise StoreUnavailableError(msg, uncertain=True)
        return result


@pytest.mark.parametrize(("path", "status", "runs"), [("/async", "rejected", 0), ("/keyed", "success", 1)])
async def test_a_commit_whose_answer_got_lost_leaves_nothing_pending(
    tmp_path: Path, path: str, status: str, runs: int
) -> None:
    """The request got 503, but the store has the task: it ends as one whose commit came late does."""
    store = SilentStore(tmp_path / "tasks.db")
    ran: list[str] = []
    app = make_app(TaskManager(snapshot_backend=store, commit_timeout=0.2), ran)
    async with serving(app) as client:
        store.silent = True
        assert (await client.post(path)).status_code == 503
        store.silent = False
        found = await eventually(
            lambda: listing(client), lambda records: [record["status"] for record in records] == [status]
        )
    assert len(found) == 1
    assert len(ran) == runs
