"""What the application consists of, and whether it is well."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from fastapi_taskflow.store import FunctionStats
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.answers import Answers, json_answer, problems
from fastapi_taskflow.web.metrics import metrics_json
from fastapi_taskflow.web.parts import AdminParts, Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import FunctionShape, Health, Problem

if TYPE_CHECKING:
    from fastapi_taskflow.task.definition import TaskDefinition

logger = logging.getLogger("fastapi_taskflow.web")
router = APIRouter()

PROBE_TIMEOUT: Final = 2.0

HEALTH: Answers = {
    **json_answer(Health, "All is well"),
    503: {"model": Health | Problem, "description": "The store fails or takes no changes"},
}


@router.get(
    "/functions",
    response_class=Response,
    responses={**json_answer(list[FunctionShape], "Each known function"), **problems(503)},
)
async def functions(parts: Parts) -> Response:
    """Return the known functions with their options and counters."""
    stats = await parts.journal.stats()
    summaries = metrics_json(stats)["functions"]
    nothing = metrics_json({"": FunctionStats()})["functions"][""]
    known = {definition.name: definition for definition in parts.registry}
    rows = [
        {**_definition_json(name, known.get(name)), "metrics": summaries.get(name, nothing)}
        for name in sorted({*known, *stats})
    ]
    return SafeJSONResponse(rows)


@router.get("/health", response_class=Response, responses=HEALTH)
async def health(parts: Parts) -> Response:
    """Return 200 while the store answers and takes changes, else 503."""
    answers = await _store_answers(parts)
    counts = parts.journal.live_counts()
    well = answers and not parts.journal.failing
    body = {
        "status": "ok" if well else "failing",
        "store": "ok" if answers else "failing",
        "writes": "failing" if parts.journal.failing else "ok",
        "backlog": parts.journal.backlog,
        "pending": sum(count for (_, status), count in counts.items() if status is TaskStatus.PENDING),
        "running": sum(count for (_, status), count in counts.items() if status is TaskStatus.RUNNING),
    }
    return SafeJSONResponse(body, 200 if well else 503)


async def _store_answers(parts: AdminParts) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await parts.store.get_meta("web.health")
    except Exception:
        logger.exception("the store does not answer")
        return False
    return True


def _definition_json(name: str, definition: TaskDefinition | None) -> dict[str, Any]:
    if definition is None:
        return {"name": name, "registered": False}
    return {
        "name": name,
        "registered": True,
        "function": definition.code_name,
        "executor": "async" if definition.is_async else "thread",
        "queue": definition.queue,
        "retries": definition.retries,
        "delay": definition.delay,
        "backoff": definition.backoff,
        "persist": definition.persist,
        "requeue_on_interrupt": definition.requeue_on_interrupt,
    }
