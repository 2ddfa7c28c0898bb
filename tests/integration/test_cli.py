"""The command line, on a store with and without a service beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from fastapi_taskflow import TaskManager
from tests.integration.conftest import Server, wait_for

SHOP = """
import asyncio, os
from fastapi import FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager

task_manager = TaskManager(snapshot_backend=os.environ["STORE"], lease=2.0, redact=["card"])
app = FastAPI()
TaskAdmin(app, task_manager)


async def fails(card):
    if not os.path.exists("mended"):
        raise ConnectionError("[bold]no[/bold] \\x1b[31mred")
    return {"card": card}


async def hangs():
    await asyncio.sleep(600)


@app.get("/ready")
async def ready():
    return {}


@app.post("/add/{name}")
async def add(name: str):
    return await (task_manager.enqueue(fails, "4000") if name == "fails" else task_manager.enqueue(hangs))
"""


def command(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run the command; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fastapi_taskflow", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def shop(start_server: Callable[..., Server], url: str) -> Server:
    """A service on a database."""
    return start_server(SHOP, STORE=url)


def of(server: Server, task_id: str) -> dict[str, Any]:
    """A task by the API."""
    found: dict[str, Any] = httpx.get(f"{server.url}/tasks/{task_id}", timeout=10).json()
    return found


def test_an_operator_finds_retries_and_cancels(shop: Server, url: str, tmp_path: Path) -> None:
    """Beside a running service, which does what was asked for; it is written down who asked."""
    failed = httpx.post(f"{shop.url}/add/fails", timeout=10).json()
    wait_for(lambda: of(shop, failed)["status"], lambda status: status == "failed")
    listed = command(tmp_path, "list", "--store", url, "--status", "failed")
    assert failed in listed
    assert "[bold]no[/bold] \\x1b[31mred" in listed
    assert "\x1b[31m" not in listed
    (line,) = command(tmp_path, "list", "--store", url, "--dead", "--json").splitlines()
    assert json.loads(line)["task_id"] == failed
    assert "ConnectionError" in command(tmp_path, "show", failed, "--store", url)
    assert json.loads(command(tmp_path, "show", failed, "--store", url, "--json"))["timeline"]

    (tmp_path / "mended").touch()
    new = command(tmp_path, "retry", failed, "--store", url).strip()
    done = wait_for(lambda: of(shop, new), lambda task: task["status"] == "success", within=30)
    assert (done["retry_of"], of(shop, failed)["resolution"]) == (failed, "retried")
    assert "retried already" in command(tmp_path, "retry", failed, "--store", url, code=1)
    assert "4000" not in command(tmp_path, "show", new, "--app", "app:task_manager", STORE=url)

    hanging = httpx.post(f"{shop.url}/add/hangs", timeout=10).json()
    assert "cancelled" in command(tmp_path, "cancel", hanging, "--store", url)
    assert of(shop, hanging)["status"] == "cancelled"
    acts = httpx.get(f"{shop.url}/tasks/audit", timeout=10).json()
    assert [(act["action"], act["target"]) for act in acts] == [("task.cancel", hanging), ("task.retry", failed)]
    assert acts[0]["actor"].startswith("cli:")

    command(tmp_path, "queues", "set", "default", "--concurrency", "3", "--store", url)
    wait_for(
        lambda: httpx.get(f"{shop.url}/tasks/queues", timeout=10).json()[0]["concurrency"], lambda limit: limit == 3
    )
    assert json.loads(command(tmp_path, "queues", "--store", url, "--json"))["concurrency"] == 3


def test_a_store_alone(url: str, tmp_path: Path) -> None:
    """Export, prune, migrate and encrypt anew need no service."""

    async def fill() -> None:
        manager = TaskManager(snapshot_backend=url)
        await manager.startup()
        for name in ("=1+1", "plain"):
            await manager.wait(await manager.enqueue(asyncio.sleep, 0, tags=[name]), timeout=10)
        await manager.shutdown()

    command(tmp_path, "migrate", "--store", url)
    asyncio.run(fill())
    assert len(command(tmp_path, "export", "--store", url).splitlines()) == 2
    assert command(tmp_path, "export", "--format", "csv", "--store", url).splitlines()[0].startswith("task_id,")
    done = json.loads(
        command(tmp_path, "reencrypt", "--store", url, FASTAPI_TASKFLOW_KEYS=Fernet.generate_key().decode())
    )
    assert done == {"seen": 2, "changed": 2, "unreadable": 0, "busy": 0}
    assert command(tmp_path, "schedules", "--store", url)
    assert command(tmp_path, "prune", "--older-than", "1h", "--yes", "--store", url) == "0\n"
    assert command(tmp_path, "prune", "--older-than", "0s", "--yes", "--store", url) == "2\n"
    assert command(tmp_path, "list", "--store", url, "--json") == ""


def test_a_worker_goes_on_where_a_service_stopped(shop: Server, url: str, tmp_path: Path) -> None:
    """What waits to be retried, say; SIGTERM ends it well."""
    failed = httpx.post(f"{shop.url}/add/fails", timeout=10).json()
    wait_for(lambda: of(shop, failed)["status"], lambda status: status == "failed")
    shop.kill()
    (tmp_path / "mended").touch()
    new = command(tmp_path, "retry", failed, "--store", url).strip()
    worker = subprocess.Popen(
        [sys.executable, "-m", "fastapi_taskflow", "worker", "app:task_manager"],
        cwd=tmp_path, env={**os.environ, "STORE": url}, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for(
            lambda: json.loads(command(tmp_path, "show", new, "--store", url, "--json"))["status"],
            lambda status: status == "success",
            within=30,
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list"], "give --store"),
        (["list", "--app", "nothing"], "--app must be such as"),
        (["list", "--app", "no.such:manager"], "No module named"),
        (["list", "--store", "nothing://x"], "nothing"),
        (["retry", "--store", "x.db"], "give ids, or --failed"),
        (["list", "--store", "x.db", "--since", "soon"], "since"),
        (["queues", "set", "default", "--store", "x.db"], "go with"),
        (["reencrypt", "--store", "x.db"], "at least one key"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    """In one line, without a traceback."""
    printed = command(tmp_path, *arguments, code=2)
    assert told in printed
    assert "Traceback" not in printed


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """With exit code 1."""
    assert "no task has the id" in command(tmp_path, "show", "none", "--store", "x.db", code=1)
