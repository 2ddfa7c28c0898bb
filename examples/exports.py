"""What teams expect of background work, in one file: ``uvicorn examples.exports:app``.

A monthly export is made in a process of its own, with progress, then uploaded with retries, then told by mail. All
months are made side by side and told together, and every minute somebody looks whether all is well.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from fastapi import Body, FastAPI

from fastapi_taskflow import (
    GiveUp,
    ManagedBackgroundTasks,
    QueueConfig,
    Retry,
    TaskAdmin,
    TaskManager,
    chain,
    get_task_context,
    previous_result,
    step,
    task_log,
    task_progress,
)

FOLDER: Final = Path(os.environ.get("EXPORTS", tempfile.gettempdir()))
MONTHS: Final = 12

task_manager = TaskManager(
    snapshot_db=FOLDER / "exports.db",
    queues={"uploads": QueueConfig(concurrency=2, max_size=500, rate_limit="20/s")},
    max_process_workers=1,
    redact=["address"],
)
app = FastAPI(title="Exports")
TaskAdmin(app, task_manager, display_func_args=True)


@task_manager.task(executor="process", timeout=300)
def write_export(month: int, rows: int) -> str:
    """Write a file. It keeps a core busy, but not the one that serves requests; cancelling it ends it at once."""
    path = FOLDER / f"export-{month:02}.csv"
    with path.open("w", encoding="utf-8") as out:
        for row in range(rows):
            out.write(f"{month},{row},{row * row}\n")
            if row % 1_000 == 0:
                task_progress(row, rows, f"month {month}")
    return str(path)


@task_manager.task(
    queue="uploads",
    retries=5,
    delay=0.05,
    backoff=2.0,
    max_delay=30.0,
    jitter=0.5,
    retry_on=ConnectionError,
    timeout=20,
)
async def upload(path: str) -> str:
    """Play an upload whose other side is busy at first."""
    context = get_task_context()
    if not Path(path).exists():  # noqa: ASYNC240 - a stat
        raise GiveUp(f"{path} is not there")
    if context is not None and context.attempt == 1:
        raise Retry(after=timedelta(milliseconds=50))
    task_log("uploaded", path=path)
    return f"https://files.example.com/{Path(path).name}"


@task_manager.task(expires=3600)
async def tell(address: str, urls: list[str]) -> int:
    """Play a mail. An hour later nobody wants it any more."""
    task_log(f"{len(urls)} file(s) are ready", address=address)
    return len(urls)


@task_manager.schedule(every=60, overlap="skip", misfire="run_once")
async def look_around() -> None:
    """Look whether all is well, once a minute, however many workers there are."""
    task_log("all is well")


@app.post("/exports/{month}", status_code=202)
async def start_export(
    month: int, address: Annotated[str, Body()], background_tasks: ManagedBackgroundTasks, rows: int = 10_000
) -> str:
    """Have one month exported, uploaded and told: one after another, and once for all who ask within a minute."""
    return background_tasks.add_task(
        chain(step(write_export, month, rows), step(upload, previous_result), step(tell_one, address, previous_result)),
        unique_for=60,
    )


async def tell_one(address: str, url: str) -> int:
    """Tell of one file."""
    return await tell(address, [url])


@app.post("/exports", status_code=202)
async def start_all(
    address: Annotated[str, Body()], background_tasks: ManagedBackgroundTasks, rows: int = 1_000
) -> str:
    """Have all months exported side by side, and told of when all are there; return the id to wait for."""
    group = background_tasks.add_group(
        [step(write_export, month, rows) for month in range(1, MONTHS + 1)],
        callback=step(tell, address, previous_result),
    )
    return group.group_id


@app.get("/exports/{task_id}")
async def wait_for_it(task_id: str) -> int:
    """Wait for what was told in the end."""
    told: int = await task_manager.result(task_id, timeout=60)
    return told
