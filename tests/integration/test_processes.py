"""Tasks in processes of their own, in a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Server, wait_for
from tests.unit.executors.test_process import is_alive

TASKS = """
import os, time
from fastapi_taskflow import task_log, task_progress


def works(number):
    task_log(f"working on {number}")
    task_progress(0.5, "half")
    return {"pid": os.getpid(), "number": number}


def hangs(path):
    with open(path, "a") as out:
        out.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(0.01)
"""

APP = """
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi_taskflow import TaskAdmin, TaskArgumentError, TaskManager
import jobs

manager = TaskManager(snapshot_db="tasks.db", requeue_pending=True, max_process_workers=2, shutdown_timeout=0.5)
works = manager.task(executor="process")(jobs.works)
hangs = manager.task(executor="process", requeue_on_interrupt=True)(jobs.hangs)
limited = manager.task(executor="process", name="limited")(lambda: None)
app = FastAPI()
TaskAdmin(app, manager, auto_install=True)


@app.get("/ready")
async def ready():
    return {}


@app.post("/works/{number}")
async def add_works(number: int, tasks: BackgroundTasks):
    return tasks.add_task(works, number)


@app.post("/hangs")
async def add_hangs(path: str, tasks: BackgroundTasks):
    return tasks.add_task(hangs, path)


@app.post("/closure")
async def add_closure(tasks: BackgroundTasks):
    try:
        tasks.add_task(limited)
    except TaskArgumentError as error:
        raise HTTPException(400, str(error))
"""


@pytest.fixture
def server(start_server: Any, tmp_path: Path) -> Server:
    """A service whose tasks run in processes."""
    (tmp_path / "jobs.py").write_text(TASKS)
    made: Server = start_server(APP)
    return made


def status(server: Server, task_id: str) -> dict[str, Any]:
    """The task by the API."""
    found: dict[str, Any] = httpx.get(f"{server.url}/tasks/{task_id}", timeout=10).json()
    return found


def pids(path: Path, number: int) -> list[int]:
    """The processes that wrote their id there, once there are so many."""
    lines: list[str] = wait_for(
        lambda: path.read_text().split() if path.exists() else [], lambda found: len(found) >= number
    )
    return [int(line) for line in lines]


def test_it_runs_is_cancelled_and_refused(server: Server, tmp_path: Path) -> None:
    """With lines, progress and result; a cancelled one is gone; what cannot be carried is never added."""
    task_id = httpx.post(f"{server.url}/works/7", timeout=10).json()
    done = wait_for(lambda: status(server, task_id), lambda task: task["status"] == "success")
    assert (done["executor"], done["result"]["number"], done["progress"]) == ("process", 7, 0.5)
    assert [line["message"] for line in done["logs"]] == ["working on 7"]
    assert done["result"]["pid"] != server.process.pid
    task_id = httpx.post(f"{server.url}/hangs?path={tmp_path / 'pids'}", timeout=10).json()
    (pid,) = pids(tmp_path / "pids", 1)
    answer = httpx.post(f"{server.url}/tasks/{task_id}/cancel", timeout=10).json()
    assert answer["task"]["status"] == "cancelled"
    assert not is_alive(pid)
    refused = httpx.post(f"{server.url}/closure", timeout=10)
    assert (refused.status_code, "must be a function that can be imported" in refused.text) == (400, True)
    server.terminate()
    assert not is_alive(done["result"]["pid"])


def test_a_process_does_not_outlive_its_service(server: Server, start_server: Any, tmp_path: Path) -> None:
    """After SIGKILL the task runs again, and the first run has ended by then."""
    path = tmp_path / "pids"
    task_id = httpx.post(f"{server.url}/hangs?path={path}", timeout=10).json()
    (first,) = pids(path, 1)
    server.process.kill()
    server.process.wait(10)
    wait_for(lambda: is_alive(first), lambda alive: not alive, within=5)
    server = start_server(APP)
    second = pids(path, 2)[1]
    assert is_alive(second)
    assert status(server, task_id)["recoveries"] == 1
    server.terminate()
    assert not is_alive(second)
