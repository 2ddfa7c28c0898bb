"""FastAPI's own BackgroundTasks: what everything else is compared with."""

from __future__ import annotations

from fastapi import BackgroundTasks

from benchmarks.apps import common

app = common.make_app()


@app.get("/one")
async def one(background_tasks: BackgroundTasks) -> dict[str, str]:
    """Add one task."""
    background_tasks.add_task(common.noop)
    return {"status": "accepted"}


@app.get("/many")
async def many(background_tasks: BackgroundTasks, n: int) -> dict[str, int]:
    """Add ``n`` tasks."""
    for _ in range(n):
        background_tasks.add_task(common.noop)
    return {"accepted": n}


@app.get("/done")
async def done() -> int:
    """Return how many tasks have run."""
    return common.runs.done
