"""The finished tasks: as JSON pages, or all of them as a CSV or NDJSON download."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from fastapi_taskflow import clock
from fastapi_taskflow.task.record import FINISHED
from fastapi_taskflow.web.answers import json_answer, page_answer, problems
from fastapi_taskflow.web.parts import AdminParts, Parts
from fastapi_taskflow.web.queries import MAX_LIMIT, ListQuery, fetch, unprocessable
from fastapi_taskflow.web.schemas import SafeJSONResponse, dump, iso
from fastapi_taskflow.web.shapes import Deleted
from fastapi_taskflow.web.tasks import next_link, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fastapi_taskflow.store import Page, TaskQuery
    from fastapi_taskflow.task.record import TaskRecord

router = APIRouter()

COLUMNS: Final = (
    "task_id", "func_name", "status", "queue", "source", "created_at", "start_time", "end_time", "duration", "attempt",
    "max_attempts", "error_type", "error", "tags", "trace_id",
)  # fmt: skip


UNITS: Final = {"min": 60.0, "hour": 3_600.0, "day": 86_400.0}
BATCH: Final = 500
MOST_AT_ONCE: Final = 10_000
"""Records that one request deletes; the answer says whether there are more."""


@router.delete(
    "/history",
    response_class=Response,
    responses={**json_answer(Deleted, "How many were deleted"), **problems(422, 503)},
)
async def delete_history(
    parts: Parts,
    value: Annotated[float, Query(ge=0, le=1_000_000, allow_inf_nan=False)],
    unit: Literal["min", "hour", "day"] = "day",
) -> Response:
    """Delete finished tasks that ended longer ago than that. Interrupted ones stay, as with ``retention_days``."""
    before = clock.now() - value * UNITS[unit]
    deleted, count = 0, BATCH
    while count == BATCH and deleted < MOST_AT_ONCE:
        count = await parts.store.prune(before=before, limit=BATCH)
        deleted += count
    return SafeJSONResponse({"deleted": deleted, "more": count == BATCH})


@router.get(
    "/history",
    response_class=Response,
    responses={**page_answer("text/csv", "application/x-ndjson"), **problems(422, 503)},
)
async def history(
    request: Request,
    parts: Parts,
    query: ListQuery,
    format: Literal["json", "csv", "ndjson"] = "json",  # noqa: A002 - named as in the URL
) -> Response:
    """Return finished tasks. CSV and NDJSON give everything that matches, page by page."""
    if query.statuses - FINISHED:
        message = "status: the history has finished tasks only"
        raise unprocessable(message)
    query = replace(query, statuses=query.statuses or FINISHED)
    if format == "json":
        page = await fetch(parts.journal, query)
        headers = next_link(request, page.next_cursor)
        if page.total is not None:
            headers["X-Total-Count"] = str(page.total)
        return SafeJSONResponse([shown(parts, record) for record in page.records], headers=headers)
    query = replace(query, limit=MAX_LIMIT)
    # The first page is read before the answer begins, so that a wrong cursor or a broken store is an error, not a
    # download that ends early.
    first = await fetch(parts.journal, query)
    attachment = {"Content-Disposition": f'attachment; filename="tasks.{format}"'}
    if format == "csv":
        return StreamingResponse(_csv(parts, query, first), media_type="text/csv; charset=utf-8", headers=attachment)
    return StreamingResponse(_ndjson(parts, query, first), media_type="application/x-ndjson", headers=attachment)


async def _pages(parts: AdminParts, query: TaskQuery, page: Page) -> AsyncIterator[Page]:
    while True:
        yield page
        if page.next_cursor is None:
            return
        page = await parts.journal.list(replace(query, cursor=page.next_cursor))


async def _ndjson(parts: AdminParts, query: TaskQuery, first: Page) -> AsyncIterator[bytes]:
    async for page in _pages(parts, query, first):
        yield "".join(f"{dump(shown(parts, record))}\n" for record in page.records).encode("ascii")


async def _csv(parts: AdminParts, query: TaskQuery, first: Page) -> AsyncIterator[bytes]:
    yield csv_lines([COLUMNS])
    async for page in _pages(parts, query, first):
        yield csv_lines([csv_row(record) for record in page.records])


def csv_lines(rows: Sequence[Sequence[str]]) -> bytes:
    """Return rows as lines of CSV."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def csv_row(record: TaskRecord) -> tuple[str, ...]:
    """Return the values of `COLUMNS`."""
    values = (
        record.task_id, record.func_name, record.status.value, record.queue, record.source, iso(record.created_at),
        iso(record.start_time), iso(record.end_time), record.duration, record.attempt, record.max_attempts,
        record.error_type, record.error, json.dumps(record.tags) if record.tags else None, record.trace_id,
    )  # fmt: skip
    return tuple(safe_cell("" if value is None else str(value)) for value in values)


def safe_cell(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula."""
    text = text.replace("\0", "\\x00")
    return f"'{text}" if text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
