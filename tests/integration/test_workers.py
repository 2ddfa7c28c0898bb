"""Two uvicorn workers on one SQLite file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Server

SOURCE = """
import asyncio, os
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(snapshot_db="tasks.db", requeue_pending=True)
TaskAdmin(app, task_manager)


@task_manager.task()
async def charge(order: str) -> None:
    with open("charged.txt", "a") as out:
        out.write(f"{order} {os.getpid()}\\n")
    await asyncio.sleep(0.2)


@app.get("/ready")
async def ready() -> None: ...


@app.post("/pay/{order}")
async def pay(order: str, tasks: ManagedBackgroundTasks) -> dict:
    return {"task": tasks.add_task(charge, order, idempotency_key=order), "pid": os.getpid()}
"""


async def pay(url: str, order: str, times: int) -> list[dict[str, Any]]:
    """Send the same request many times at once, each over a connection of its own."""

    async def once() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=20) as client, client.stream("POST", f"{url}/pay/{order}") as answer:
            assert answer.status_code == 200
            await answer.aread()
            found: dict[str, Any] = answer.json()
            return found

    return await asyncio.gather(*(once() for _ in range(times)))


def test_one_key_runs_once_across_workers(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Twenty requests at once, answered by both workers: one id, one run; every worker shows the task."""
    server = start_server(SOURCE, "--workers", "2")
    workers: set[int] = set()
    orders = 0
    while len(workers) < 2 and orders < 30:
        answers = asyncio.run(pay(server.url, f"order-{orders}", 20))
        assert len({answer["task"] for answer in answers}) == 1
        workers = {answer["pid"] for answer in answers}
        orders += 1
    assert len(workers) == 2, "the kernel gave every connection to one worker"
    wait_for(
        lambda: [httpx.get(f"{server.url}/tasks?status=success", timeout=10).json() for _ in range(6)],
        lambda pages: all(len(page) == orders for page in pages),
    )
    charged = [line.split()[0] for line in (tmp_path / "charged.txt").read_text().splitlines()]
    assert sorted(charged) == sorted(f"order-{number}" for number in range(orders))
