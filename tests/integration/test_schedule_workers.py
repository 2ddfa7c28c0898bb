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

    from tests.integration.conftest import Server

SOURCE = """
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
    servers = [start_server(SOURCE, DATABASE=url) for _ in range(3)]
    wait_for(lambda: slots(servers[0]), lambda found: len(found) >= 2)
    assert starts(servers[0]) == 1
    os.killpg(servers[0].process.pid, signal.SIGKILL)
    seen = len(slots(servers[1]))
    wait_for(lambda: slots(servers[1]), lambda found: len(found) >= seen + 2)
    servers[1].kill()
    servers[2].kill()
    time.sleep(1.5)  # a slot must pass while nobody is there
    last = start_server(SOURCE, DATABASE=url)
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
