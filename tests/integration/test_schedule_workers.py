"""Schedules in several processes on one database, some of which are killed."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx

from tests.integration.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Server

EACH_SECOND = """
import os
from fastapi import FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(snapshot_backend=os.environ["DATABASE"])
TaskAdmin(app, task_manager)


@task_manager.schedule(every=1, misfire="run_all", overlap="allow", run_on_startup=True, requeue_on_interrupt=True)
async def tick() -> None:
    pass


@app.get("/ready")
async def ready() -> int:
    return os.getpid()
"""


def keys(server: Server) -> list[str]:
    """Return the keys of all tasks of the schedule, one for each row."""
    rows = httpx.get(f"{server.url}/tasks?func_name=tick&limit=500", timeout=10).json()
    assert {(row["source"], row["schedule"]) for row in rows} <= {("scheduled", "tick")}
    return sorted(row["idempotency_key"] for row in rows)


def slots(server: Server) -> list[str]:
    """Return those of slots."""
    return [key for key in keys(server) if "@start" not in key]


def starts(server: Server) -> int:
    """Return how often the schedule ran at a start."""
    return len(keys(server)) - len(slots(server))


def test_each_slot_is_one_row_whoever_dies(start_server: Callable[..., Server], url: str) -> None:
    """Three processes, of which one after the other is killed, and a new one: every second of all that has one row."""
    servers = [start_server(EACH_SECOND, DATABASE=url) for _ in range(3)]
    wait_for(lambda: slots(servers[0]), lambda found: len(found) >= 2)
    assert starts(servers[0]) == 1
    os.killpg(servers[0].process.pid, signal.SIGKILL)
    seen = len(slots(servers[1]))
    wait_for(lambda: slots(servers[1]), lambda found: len(found) >= seen + 2)
    servers[1].kill()
    servers[2].kill()
    time.sleep(1.5)  # a slot must pass while nobody is there
    last = start_server(EACH_SECOND, DATABASE=url)
    seen = len(slots(last))
    found = wait_for(lambda: slots(last), lambda found: len(found) >= seen + 1)
    assert Counter(found).most_common(1)[0][1] == 1
    seconds = [time.mktime(time.strptime(key.partition("@")[2][:19], "%Y-%m-%dT%H:%M:%S")) for key in found]
    assert sorted(seconds) == [seconds[0] + number for number in range(len(seconds))], "a second is missing"
    wait_for(lambda: starts(last), lambda number: number == 2)
    wait_for(
        lambda: httpx.get(f"{last.url}/tasks?func_name=tick&limit=500", timeout=10).json(),
        # The newest may just have been added.
        lambda rows: {row["status"] for row in rows[2:]} == {"success"},
    )


LATER = """
import asyncio, os
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

app = FastAPI()
task_manager = TaskManager(snapshot_backend=os.environ["DATABASE"], lease=3)
TaskAdmin(app, task_manager)


def note(text: str) -> None:
    with open("ran.txt", "a") as out:
        out.write(text + "\\n")


async def send(text: str) -> None:
    note(text)


@task_manager.task(requeue_on_interrupt=True)
async def again(text: str, seconds: float) -> None:
    note(text + " begins")
    await asyncio.sleep(seconds)
    note(text + " ends")


@task_manager.task()
async def once(text: str, seconds: float) -> None:
    await again(text, seconds)


@app.get("/ready")
async def ready() -> None: ...


@app.post("/later")
async def later(text: str, delay: float, tasks: ManagedBackgroundTasks) -> None:
    await task_manager.schedule_once(send, text, delay=delay, run_key=text)
    tasks.add_task(send, f"{text} added", delay=delay)


@app.post("/long")
async def long(seconds: float) -> None:
    await task_manager.schedule_once(again, "again", seconds, delay=0)
    await task_manager.schedule_once(once, "once", seconds, delay=0)
"""


def test_what_is_to_run_later_survives_kills(start_server: Callable[..., Server], url: str, tmp_path: Path) -> None:
    """Before it is due, while it is due and nobody is there, while it runs, and after it ran; no schedule is there."""

    def post(server: Server, route: str, **query: object) -> None:
        assert httpx.post(f"{server.url}{route}", params=query, timeout=10).status_code == 200  # type: ignore[arg-type]

    def lines() -> list[str]:
        file = tmp_path / "ran.txt"
        return sorted(file.read_text().splitlines()) if file.exists() else []

    first = start_server(LATER, DATABASE=url)
    post(first, "/later", text="soon", delay=1)
    post(first, "/later", text="late", delay=4)
    first.kill()
    assert lines() == []
    time.sleep(1)  # it is due while nobody is there
    second = start_server(LATER, DATABASE=url)
    wait_for(lines, lambda found: found == ["soon", "soon added"])
    post(second, "/long", seconds=0.5)
    wait_for(lines, lambda found: len([line for line in found if line.endswith("begins")]) == 2)
    second.kill()
    third = start_server(LATER, DATABASE=url)
    wait_for(lines, lambda found: "late" in found and "late added" in found and "again ends" in found)
    rows = wait_for(
        lambda: httpx.get(f"{third.url}/tasks", timeout=10).json(),
        lambda rows: not {"pending", "running"} & {row["status"] for row in rows},
    )
    third.kill()
    fourth = start_server(LATER, DATABASE=url)
    assert httpx.get(f"{fourth.url}/tasks/schedules/once", timeout=10).json() == []
    ends = {"send": "success", "again": "success", "once": "interrupted"}
    assert [(row["func_name"], row["status"]) for row in rows if ends[row["func_name"]] != row["status"]] == []
    assert Counter(lines()) == {
        "soon": 1, "soon added": 1, "late": 1, "late added": 1, "once begins": 1, "again begins": 2, "again ends": 1,
    }  # fmt: skip
