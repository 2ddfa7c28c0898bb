"""The list page and the task page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.payload import display_value
from fastapi_taskflow.task.record import DEAD, LIVE, RETRYABLE, Resolution, TaskStatus
from fastapi_taskflow.web.answers import problems, text_answer
from fastapi_taskflow.web.arguments import arguments_of
from fastapi_taskflow.web.dashboard.moments import moments
from fastapi_taskflow.web.dashboard.pages import page
from fastapi_taskflow.web.dashboard.waterfall import waterfall
from fastapi_taskflow.web.metrics import metrics_json
from fastapi_taskflow.web.parts import AdminParts, AdminSettings, Parts
from fastapi_taskflow.web.paths import base_url
from fastapi_taskflow.web.queries import ListQuery, fetch
from fastapi_taskflow.web.tasks import found
from fastapi_taskflow.web.trace import record_attempt, timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.task.record import Attempt, LogEntry, TaskRecord

router = APIRouter()

SPANS_OF_TIME: Final = (("15m", "15 minutes"), ("1h", "hour"), ("24h", "24 hours"), ("7d", "7 days"))
FILTERS: Final = (
    "status",
    "func_name",
    "q",
    "tag",
    "queue",
    "trace_id",
    "parent_id",
    "group_id",
    "since",
    "until",
    "order",
    "limit",
)
MOST_CHILDREN: Final = 10
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
NOTICES: Final = {
    "cancelled": "The task was cancelled.",
    "asked": "The task was asked to stop. It ends when it looks at its context.",
    "retried": "This is the new run.",
    "discarded": "Discarded. It is no dead letter any more.",
    "bulk": "Tasks that were started again: ",
}


@router.get("/dashboard/", response_class=Response, include_in_schema=False)
@router.get(
    "/dashboard", response_class=Response, responses={**text_answer("The page", "text/html"), **problems(422, 503)}
)
async def list_page(
    request: Request, parts: Parts, query: ListQuery, n: Annotated[int, Query(ge=0, le=1_000_000)] = 0
) -> Response:
    """Show the counts, the filters and one page of tasks."""
    found_page = await fetch(parts.journal, query)
    stats = metrics_json(await parts.journal.stats())
    names = sorted({definition.name for definition in parts.registry} | set(stats["functions"]))
    # With one function chosen, the figures are that function's.
    chosen = stats["functions"].get(query.func_name, stats)
    here = f"{base_url(request)}/dashboard"
    kept = {name: value for name, value in request.query_params.items() if name in FILTERS and value}
    notice = _notice(request)
    return page(
        request,
        "list.html",
        {
            "records": found_page.records,
            "total": found_page.total,
            "stats": chosen,
            "tiles": _tiles(here, kept, query, chosen),
            "functions": names,
            "spans_of_time": SPANS_OF_TIME,
            "filters": {name: kept.get(name, "") for name in FILTERS},
            "filtered": any(name not in ("order", "limit") for name in kept),
            "only_failed": query.statuses == frozenset({TaskStatus.FAILED}),
            "here": here,
            "first_page": query.cursor is None,
            "first_url": _url(here, kept),
            "next_url": _url(here, {**kept, "cursor": found_page.next_cursor}) if found_page.next_cursor else None,
            "notice": f"{notice}{n}" if notice and n else notice,
        },
    )


@router.get(
    "/dashboard/{task_id}",
    response_class=Response,
    responses={**text_answer("The page", "text/html"), **problems(404, 422, 503)},
)
async def task_page(
    request: Request, parts: Parts, task_id: str, level: Annotated[str, Query(max_length=16)] = "debug"
) -> Response:
    """Show everything about one task."""
    record = await found(parts, task_id)
    level = level if level in LEVELS else "debug"
    return page(
        request,
        "task.html",
        {
            "record": record,
            "facts_wait": None if record.start_time is None else max(0.0, record.start_time - record.ready_at),
            "moments": moments(record),
            "attempts": _attempts(record),
            "children": await _children(parts, record),
            "chart": waterfall(timeline(record)),
            "logs": _from_level(record.logs, level),
            "log_total": len(record.logs),
            "level": level,
            "levels": LEVELS,
            "show_arguments": parts.settings.display_func_args,
            "arguments": arguments_of(record) if parts.settings.display_func_args else None,
            "result": None if record.result is None else display_value(record.result),
            "trace_url": _trace_url(parts.settings, record),
            "may_cancel": record.status in LIVE,
            "may_retry": record.status in RETRYABLE and record.resolution != Resolution.RETRIED,
            "may_discard": record.status in DEAD and record.resolution is None,
            "notice": _notice(request),
        },
    )


async def _children(parts: AdminParts, record: TaskRecord) -> Sequence[TaskRecord]:
    """Return what follows a task; one without follow-ups has none."""
    if record.follow is None:
        return ()
    query = TaskQuery(parent_id=record.task_id, oldest_first=True, limit=MOST_CHILDREN)
    return (await parts.journal.list(query)).records


def _notice(request: Request) -> str | None:
    # Only what is known here is shown: a link must not put words on the page.
    return NOTICES.get(request.query_params.get("notice", ""))


def _url(path: str, parameters: dict[str, Any]) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def _tiles(here: str, kept: dict[str, str], query: TaskQuery, counts: dict[str, Any]) -> list[dict[str, Any]]:
    others = {name: value for name, value in kept.items() if name != "status"}
    tiles = [{"name": "all", "count": counts["total"], "url": _url(here, others), "active": not query.statuses}]
    tiles.extend(
        {
            "name": status.value,
            "count": counts[status.value],
            "url": _url(here, {**others, "status": status.value}),
            "active": status in query.statuses,
        }
        for status in TaskStatus
    )
    return tiles


def _attempts(record: TaskRecord) -> Sequence[tuple[Attempt, str]]:
    earlier = [(attempt, "failed" if attempt.error_type else "interrupted") for attempt in record.attempts]
    if record.start_time is None:
        return earlier
    number = max(record.attempt, len(earlier) + 1)
    last = record_attempt(record, number)
    if record.status is TaskStatus.SUCCESS:
        last = replace(last, error_type=None, error=None)
    return [*earlier, (last, record.status.value)]


def _from_level(logs: Sequence[LogEntry], level: str) -> list[LogEntry]:
    lowest = LEVELS.index(level)
    return [line for line in logs if line.level not in LEVELS or LEVELS.index(line.level) >= lowest]


def _trace_url(settings: AdminSettings, record: TaskRecord) -> str | None:
    if settings.trace_url is None or record.trace_id is None:
        return None
    return settings.trace_url.replace("{trace_id}", quote(record.trace_id))
