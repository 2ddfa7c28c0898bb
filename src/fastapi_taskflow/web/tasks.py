"""Routes on tasks: list, look at one, cancel, retry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from fastapi_taskflow import clock
from fastapi_taskflow.errors import InvalidTransitionError, QueueFullError, StoreError, TaskNotFoundError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.answers import json_answer, page_answer, problems, redirect_answer
from fastapi_taskflow.web.arguments import arguments_of
from fastapi_taskflow.web.parts import AdminParts, Parts
from fastapi_taskflow.web.paths import base_url, prefers_html
from fastapi_taskflow.web.queries import MAX_LIMIT, InstantText, ListQuery, fetch, parse_instant
from fastapi_taskflow.web.schemas import SafeJSONResponse, record_json
from fastapi_taskflow.web.shapes import BulkRetried, Changed, FailedRetried, Task, Timeline
from fastapi_taskflow.web.trace import trace_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.task.record import TaskRecord

router = APIRouter()

MAX_BULK: Final = 1_000
MAX_ID_CHARS: Final = 64

TO_DASHBOARD: Final = redirect_answer("A browser is sent to the dashboard")
CHANGED: Final = {**json_answer(Changed, "The task after it"), **TO_DASHBOARD, **problems(404, 409, 503)}


class BulkRetry(BaseModel):
    """Which tasks to run again."""

    task_ids: list[Annotated[str, Field(max_length=MAX_ID_CHARS)]] = Field(max_length=MAX_BULK)


def shown(parts: AdminParts, record: TaskRecord) -> dict[str, Any]:
    """Return the record as JSON, with its arguments if the options allow it and the store gave them."""
    facts = record_json(record)
    if parts.settings.display_func_args:
        facts.update(arguments_of(record) or {})
    return facts


async def found(parts: AdminParts, task_id: str) -> TaskRecord:
    """Return the task's record.

    Raises:
        TaskNotFoundError: If there is none.
    """
    # Ids are short ASCII; anything else need not bother a database.
    plausible = len(task_id) <= MAX_ID_CHARS and task_id.isascii() and task_id.isprintable()
    record = await parts.journal.get(task_id) if plausible else None
    if record is None:
        raise TaskNotFoundError(task_id[:MAX_ID_CHARS])
    return record


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the ``Link`` header to the next page, with all other parameters as they are."""
    if cursor is None:
        return {}
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    path = base_url(request) + request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return {"Link": f'<{path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'}


@router.get("/", response_class=Response, responses={**page_answer(), **problems(422, 503)})
async def list_tasks(request: Request, parts: Parts, query: ListQuery) -> Response:
    """Return one page of tasks, newest first unless asked otherwise."""
    page = await fetch(parts.journal, query)
    headers = next_link(request, page.next_cursor)
    if page.total is not None:
        headers["X-Total-Count"] = str(page.total)
    return SafeJSONResponse([shown(parts, record) for record in page.records], headers=headers)


@router.post(
    "/bulk-retry",
    response_class=Response,
    responses={**json_answer(BulkRetried, "What came of it"), **problems(400, 422, 503)},
)
async def bulk_retry(parts: Parts, body: BulkRetry) -> Response:
    """Run several tasks again; those that cannot be are skipped, with the reason."""
    return SafeJSONResponse(await _retry_all(parts, list(dict.fromkeys(body.task_ids))))


@router.post(
    "/retry-failed",
    response_class=Response,
    responses={**json_answer(FailedRetried, "What came of it"), **TO_DASHBOARD, **problems(422, 503)},
)
async def retry_failed(
    request: Request,
    parts: Parts,
    since: InstantText = None,
    func_name: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Run failed tasks again that nobody has decided about, at most ``MAX_BULK`` in one call."""
    query = TaskQuery(
        dead=True,
        statuses=frozenset({TaskStatus.FAILED}),
        # No name has a NUL, and some databases refuse to be asked for one. A name of which nothing is left matches no
        # task: it must not become "all of them".
        func_name=func_name.replace("\0", "") if func_name else None,
        since=parse_instant("since", since, now=clock.now()),
        limit=MAX_LIMIT,
    )
    ids: list[str] = []
    while True:
        # All ids first: retrying while reading would move the pages.
        page = await fetch(parts.journal, query)
        ids.extend(record.task_id for record in page.records)
        if page.next_cursor is None or len(ids) >= MAX_BULK:
            break
        query = replace(query, cursor=page.next_cursor)
    result = await _retry_all(parts, ids[:MAX_BULK])
    if prefers_html(request.headers):
        done = urlencode({"notice": "bulk", "n": result["dispatched"]})
        return RedirectResponse(f"{base_url(request)}/dashboard?{done}", 303)
    return SafeJSONResponse({**result, "more": page.next_cursor is not None})


@router.get("/{task_id}", response_class=Response, responses={**json_answer(Task, "The task"), **problems(404, 503)})
async def get_task(parts: Parts, task_id: str) -> Response:
    """Return one task."""
    return SafeJSONResponse(shown(parts, await found(parts, task_id)))


@router.get(
    "/{task_id}/trace",
    response_class=Response,
    responses={**json_answer(Timeline, "The timeline"), **problems(404, 503)},
)
async def get_trace(parts: Parts, task_id: str) -> Response:
    """Return one task's timeline."""
    return SafeJSONResponse(trace_json(await found(parts, task_id)))


@router.post("/{task_id}/cancel", response_class=Response, responses=CHANGED)
async def cancel(request: Request, parts: Parts, task_id: str) -> Response:
    """Cancel a task that waits or runs."""
    await found(parts, task_id)
    record = await parts.dispatcher.cancel(task_id)
    asked = record.status is TaskStatus.RUNNING
    return _done(request, parts, record, "asked" if asked else "cancelled")


@router.post("/{task_id}/retry", response_class=Response, responses={**CHANGED, **problems(429)})
async def retry(request: Request, parts: Parts, task_id: str) -> Response:
    """Run an unsuccessful task again, as a new task."""
    await found(parts, task_id)
    record = await parts.dispatcher.retry(task_id)
    return _done(request, parts, record, "retried")


@router.post("/{task_id}/discard", response_class=Response, responses=CHANGED)
async def discard(request: Request, parts: Parts, task_id: str) -> Response:
    """Take a failed or interrupted task off the dead letters."""
    await found(parts, task_id)
    record = await parts.dispatcher.discard(task_id)
    return _done(request, parts, record, "discarded")


def _done(request: Request, parts: AdminParts, record: TaskRecord, notice: str) -> Response:
    if prefers_html(request.headers):
        target = f"{base_url(request)}/dashboard/{record.task_id}?{urlencode({'notice': notice})}"
        return RedirectResponse(target, 303)
    return SafeJSONResponse({"task_id": record.task_id, "task": shown(parts, record)})


async def _retry_all(parts: AdminParts, ids: Sequence[str]) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for index, task_id in enumerate(ids):
        try:
            record = await parts.dispatcher.retry((await found(parts, task_id)).task_id)
        except (TaskNotFoundError, InvalidTransitionError, QueueFullError) as error:
            skipped.append({"task_id": task_id, "reason": str(error)})
        except StoreError as error:
            if not results:
                raise
            # Some run already: with a 503 the client would ask for all of them again, and those would run twice.
            skipped.extend({"task_id": rest, "reason": str(error)} for rest in ids[index:])
            break
        else:
            results.append({"original_task_id": task_id, "new_task_id": record.task_id})
    return {"dispatched": len(results), "skipped": len(skipped), "results": results, "reasons": skipped}
