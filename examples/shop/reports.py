"""``POST /reports``: a sales report in CSV. Its computing is done in a thread, so the shop keeps answering."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from examples.shop.tracing import tracer
from fastapi_taskflow import ManagedBackgroundTasks, get_task_context, task_log, task_progress

router = APIRouter()

COUNTRIES: Final = ("AT", "BR", "DE", "ES", "FR", "IN", "JP", "KE", "NL", "US")
STEPS: Final = 10


class ReportRequest(BaseModel):
    """What the report is about."""

    rows: int = Field(default=200_000, ge=1, le=5_000_000)


@router.post("/reports", status_code=202)
async def order_report(wanted: ReportRequest, tasks: ManagedBackgroundTasks) -> dict[str, str]:
    """Have a report made."""
    report_id = uuid4()
    task = tasks.add_task(make_report, report_id, wanted.rows, tags=[f"report:{report_id}"])
    return {"report_id": str(report_id), "url": f"/reports/{report_id}", "task": task}


@router.get("/reports/{report_id}", response_class=FileResponse)
async def show_report(report_id: UUID) -> FileResponse:
    """Return the report, once it is made."""
    path = _report_path(report_id)
    if not path.exists():
        raise HTTPException(404, "no report yet")
    return FileResponse(path, media_type="text/csv", filename="report.csv")


@task_manager.task(queue="reports", requeue_on_interrupt=True)
def make_report(report_id: UUID, rows: int) -> None:
    """Add up made-up sales per country. Stops early when it is asked to."""
    context = get_task_context()
    sales: Counter[str] = Counter()
    numbers = random.Random(report_id.int)
    for step in range(1, STEPS + 1):
        if context is not None and context.cancelled:
            task_log("asked to stop, no report was written", level="warning")
            return
        task_progress(step - 1, STEPS, "adding up")
        with tracer.start_as_current_span("add up", attributes={"report.step": step}):
            for _ in range(rows // STEPS):
                sales[numbers.choice(COUNTRIES)] += numbers.randint(100, 10_000)
        task_log(f"{step * 100 // STEPS} % done", step=step)
    with tracer.start_as_current_span("write csv"):
        _write(_report_path(report_id), sales)


def _write(path: Path, sales: Counter[str]) -> None:
    draft = path.with_suffix(".part")
    with draft.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("country", "sales"))
        writer.writerows((country, f"{cents / 100:.2f}") for country, cents in sales.most_common())
    draft.replace(path)


def _report_path(report_id: UUID) -> Path:
    return settings.folder("reports") / f"{report_id}.csv"
