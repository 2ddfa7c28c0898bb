from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.history import safe_cell
from tests.unit.web import fakes, samples
from tests.unit.web.conftest import client_of

if TYPE_CHECKING:
    import httpx


async def test_history_has_finished_tasks_only(client: httpx.AsyncClient) -> None:
    """Pending and running tasks are not in it, and cannot be asked for."""
    records = (await client.get("/tasks/history?limit=500")).json()
    assert {record["status"] for record in records}.isdisjoint({"pending", "running"})
    assert (await client.get("/tasks/history?status=running")).status_code == 422
    failed = (await client.get("/tasks/history?status=failed")).json()
    assert {record["status"] for record in failed} == {"failed"}


async def test_downloads_have_every_page() -> None:
    """CSV and NDJSON go on over all pages."""
    tasks = [samples.record() for _ in range(1_100)]
    async with client_of(fakes.build(tasks)) as client:
        table = await client.get("/tasks/history?format=csv")
        lines = await client.get("/tasks/history?format=ndjson&limit=5")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    ids = {task.task_id for task in tasks}
    assert {row["task_id"] for row in rows} == ids
    assert {json.loads(line)["task_id"] for line in lines.text.splitlines()} == ids
    assert table.headers["content-disposition"] == 'attachment; filename="tasks.csv"'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "  =cmd|' /C calc'!A0", "\r=1", "\n=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    """What a spreadsheet would calculate is quoted."""
    assert safe_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["send_email", "1.5", "", "a=b"])
def test_plain_cells_stay_as_they_are(text: str) -> None:
    """Nothing else is touched."""
    assert safe_cell(text) == text


async def test_csv_of_a_hostile_task() -> None:
    """A function named like a formula is harmless in the download."""
    async with client_of(fakes.build([samples.record(TaskStatus.FAILED, func_name="=HYPERLINK(1)")])) as client:
        table = await client.get("/tasks/history?format=csv")
    assert next(csv.DictReader(io.StringIO(table.text)))["func_name"] == "'=HYPERLINK(1)"


async def test_a_wrong_cursor_is_no_download(client: httpx.AsyncClient) -> None:
    """The error comes as an error, before the download begins."""
    assert (await client.get("/tasks/history?format=csv&cursor=forged")).status_code == 422
