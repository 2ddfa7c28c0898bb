"""SIGKILL and SIGTERM of a real server, and what the next one makes of it."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Server

SOURCE = """
import asyncio, os, pathlib, time
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, task_log

app = FastAPI()
task_manager = TaskManager(
    snapshot_db="tasks.db", requeue_pending=os.environ.get("REQUEUE") == "1", max_concurrent_tasks=1,
    shutdown_timeout=float(os.environ.get("WITHIN", "30")),
)
TaskAdmin(app, task_manager, auto_install=True)
gate = pathlib.Path("gate")


@task_manager.task(retries=1)
async def write(name: str, *, note: dict | None = None) -> None:
    with open("ran.txt", "a") as out:
        out.write(name + "\\n")


@task_manager.task(requeue_on_interrupt=True)
async def hold_again() -> None:
    task_log("holding")
    pathlib.Path("holding").write_text(str(os.getpid()))
    while not gate.exists():
        await asyncio.sleep(0.01)


@task_manager.task()
async def hold() -> None:
    await hold_again()


def undecorated(name: str) -> None:
    with open("ran.txt", "a") as out:
        out.write(name + "\\n")


@app.get("/ready")
async def ready() -> None: ...


@app.post("/hold/{kind}")
async def start_holding(kind: str, tasks: ManagedBackgroundTasks) -> str:
    return tasks.add_task(hold_again if kind == "again" else hold)


@app.post("/write/{name}")
async def start_writing(name: str, tasks: ManagedBackgroundTasks) -> list[str]:
    first = tasks.add_task(write, name, note={"n": name}, tags=["t:" + name], idempotency_key="key " + name)
    second = tasks.add_task(undecorated, "plain " + name)
    closure = lambda: None
    third = tasks.add_task(closure)
    return [first, second, third]
"""


def post(server: Server, path: str) -> Any:
    """Return what the server answers to a POST."""
    answer = httpx.post(server.url + path, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def fire(server: Server, path: str) -> Any:
    """Post and read the answer, though the connection stays busy with the task."""
    with httpx.stream("POST", server.url + path, timeout=10) as answer:
        assert answer.status_code == 200
        answer.read()
        return answer.json()


def record(server: Server, task_id: str) -> dict[str, Any]:
    """Return a task's record."""
    answer = httpx.get(f"{server.url}/tasks/{task_id}", timeout=10)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_accepted_task_runs_after_sigkill(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """What ran runs again if it may, what waited runs; ids, tags and arguments stay. The peer lost 176 of 200."""
    server = start_server(SOURCE, REQUEUE="1")
    held = fire(server, "/hold/again")
    wait_for((tmp_path / "holding").exists, bool)
    accepted = [fire(server, f"/write/{number}") for number in range(60)]
    assert record(server, held)["status"] == "running"
    server.kill()
    (tmp_path / "gate").touch()

    server = start_server(SOURCE, REQUEUE="1")
    ended = wait_for(lambda: record(server, held), lambda r: r["status"] == "success")
    assert ended["attempt"] == 2
    for number, (first, second, third) in enumerate(accepted):
        done = wait_for(partial(record, server, first), lambda r: r["status"] == "success")
        assert (done["tags"], done["source"]) == ([f"t:{number}"], "request")
        wait_for(partial(record, server, second), lambda r: r["status"] == "success")
        lost = record(server, third)
        assert lost["status"] == "interrupted"
        assert "cannot be found again" in lost["error"]
    ran = (tmp_path / "ran.txt").read_text().splitlines()
    assert sorted(ran) == sorted([str(n) for n in range(60)] + [f"plain {n}" for n in range(60)])
    again = fire(server, "/write/7")
    assert again[0] == accepted[7][0]
    assert (tmp_path / "ran.txt").read_text().splitlines().count("7") == 1


def test_without_requeue_everything_is_shown_as_interrupted(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """And can be retried by hand; a retry is a new task."""
    server = start_server(SOURCE)
    held = fire(server, "/hold/plain")
    wait_for((tmp_path / "holding").exists, bool)
    waiting = fire(server, "/write/one")
    server.kill()
    server = start_server(SOURCE)
    assert record(server, held)["status"] == "interrupted"
    assert "while it ran" in record(server, held)["error"]
    assert record(server, waiting[0])["status"] == "interrupted"
    assert not (tmp_path / "ran.txt").exists()
    answer = httpx.post(f"{server.url}/tasks/{waiting[0]}/retry", timeout=10)
    assert answer.status_code < 300, answer.text
    ran = tmp_path / "ran.txt"
    wait_for(lambda: ran.exists() and ran.read_text(), lambda text: text == "one\n")
    metrics = httpx.get(server.url + "/tasks/metrics", timeout=10).json()
    assert metrics["interrupted"] >= 2


def test_a_clean_shutdown_lets_running_tasks_finish_and_keeps_what_waits(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """SIGTERM while one task runs and others wait: the next start runs the rest, each once."""
    server = start_server(SOURCE, REQUEUE="1")
    held = fire(server, "/hold/plain")
    wait_for((tmp_path / "holding").exists, bool)
    waiting = [fire(server, f"/write/{number}")[0] for number in range(5)]
    release = threading.Timer(0.5, (tmp_path / "gate").touch)
    release.start()
    assert server.terminate() in (0, -15)
    release.join()
    server = start_server(SOURCE, REQUEUE="1")
    assert record(server, held)["status"] == "success"
    for task in waiting:
        wait_for(partial(record, server, task), lambda r: r["status"] == "success")
    ran = [line for line in (tmp_path / "ran.txt").read_text().splitlines() if not line.startswith("plain")]
    assert sorted(ran) == ["0", "1", "2", "3", "4"]


def test_lines_of_a_killed_attempt_are_kept(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """They are stored while the task runs."""
    server = start_server(SOURCE, REQUEUE="1")
    held = fire(server, "/hold/again")
    wait_for((tmp_path / "holding").exists, bool)

    def stored() -> str:
        with sqlite3.connect(tmp_path / "tasks.db") as database:
            row = database.execute("SELECT logs FROM taskflow_tasks WHERE task_id = ?", (held,)).fetchone()
        return str(row[0])

    wait_for(stored, lambda text: "holding" in text)
    server.kill()
    (tmp_path / "gate").touch()
    server = start_server(SOURCE, REQUEUE="1")
    done = wait_for(lambda: record(server, held), lambda r: r["status"] == "success")
    assert [line["attempt"] for line in done["logs"]] == [1, 2]
