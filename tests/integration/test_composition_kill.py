"""SIGKILL between the steps of chains: what follows a task is stored with its end, or neither is."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Server

SOURCE = """
from fastapi import FastAPI
from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, chain, previous_result, step

app = FastAPI()
task_manager = TaskManager(snapshot_db="tasks.db", requeue_pending=True, max_recoveries=100)
TaskAdmin(app, task_manager, auto_install=True)


@task_manager.task(requeue_on_interrupt=True)
async def advance(number: int) -> int:
    with open("ran.txt", "a") as out:
        out.write(f"{number}\\n")
    return number + 1


@task_manager.task(requeue_on_interrupt=True)
async def gather(numbers: list[int]) -> None:
    with open("gathered.txt", "a") as out:
        out.write(f"{numbers}\\n")


@app.post("/group/{number}")
async def start_group(number: int, tasks: ManagedBackgroundTasks) -> str:
    members = [step(advance, number + offset) for offset in range(10)]
    return tasks.add_group(members, callback=step(gather, previous_result)).group_id


@app.get("/ready")
async def ready() -> None: ...


@app.post("/chain/{number}")
async def start(number: int, tasks: ManagedBackgroundTasks) -> str:
    return tasks.add_task(chain(step(advance, number), *[step(advance, previous_result)] * 9))
"""

CHAINS = 20
KILLS = 5


def rows(folder: Path) -> list[tuple[str, str, str | None]]:
    """Return id, status and parent of every task."""
    with sqlite3.connect(folder / "tasks.db") as database:
        return database.execute("SELECT task_id, status, parent_id FROM taskflow_tasks").fetchall()


def test_no_kill_breaks_a_chain_nor_doubles_a_step(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """After kills at any time each chain goes on to its end, and no task has two followers."""
    added: list[str] = []
    unfinished = 0
    for kill in range(KILLS):
        server = start_server(SOURCE)
        if kill < KILLS - 1:
            for number in range(CHAINS):
                answer = httpx.post(f"{server.url}/chain/{1000 * (CHAINS * kill + number)}", timeout=10)
                added.append(answer.json())
            time.sleep(0.004 * kill)  # the kill comes at another moment each time
            server.kill()
            before = rows(tmp_path)
            unfinished += sum(1 for _, status, _ in before if status != "success")
            ended = {task_id for task_id, status, _ in before if status == "success"}
            followed = Counter(parent for _, _, parent in before if parent is not None)
            last = {task_id for task_id in ended if task_id not in followed}
            # Only the last step of a chain has ended without a follower, at any moment.
            assert all(depth(before, task_id) == 10 for task_id in last)
            assert set(followed) <= ended
            assert set(followed.values()) <= {1}
    wait_for(lambda: rows(tmp_path), lambda all_: all(status == "success" for _, status, _ in all_), within=40)
    found = rows(tmp_path)
    assert len(found) == 10 * len(added)
    assert unfinished, "no kill came between the steps of a chain"
    assert set(Counter(parent for _, _, parent in found if parent).values()) == {1}
    numbers = {int(line) for line in (tmp_path / "ran.txt").read_text().split()}
    assert numbers == {1000 * each + offset for each in range(len(added)) for offset in range(10)}


def depth(all_: list[tuple[Any, ...]], task_id: str) -> int:
    """Return which step of its chain a task is, from 1."""
    parents = {each: parent for each, _, parent in all_}
    steps = 1
    while (parent := parents[task_id]) is not None:
        task_id, steps = parent, steps + 1
    return steps


def test_a_callback_runs_after_each_group_whoever_is_killed(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """With two workers that are killed again and again each group still has one callback, with all results."""
    added: list[str] = []
    unfinished = 0
    kills = KILLS - 1  # two workers take longer to start
    for kill in range(kills):
        server = start_server(SOURCE, "--workers", "2")
        if kill < kills - 1:
            for number in range(CHAINS):
                answer = httpx.post(f"{server.url}/group/{1000 * (CHAINS * kill + number)}", timeout=10)
                added.append(answer.json())
            time.sleep(0.004 * kill)
            server.kill()
            unfinished += sum(1 for task_id, status, _ in rows(tmp_path) if task_id in added and status != "success")
    wait_for(lambda: rows(tmp_path), lambda all_: all(status == "success" for _, status, _ in all_), within=40)
    assert unfinished, "no kill came before a callback had ended"
    assert len(rows(tmp_path)) == 11 * len(added)
    gathered = set((tmp_path / "gathered.txt").read_text().splitlines())
    assert gathered == {str([1000 * each + offset + 1 for offset in range(10)]) for each in range(len(added))}
