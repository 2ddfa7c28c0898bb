"""What the application consists of, and whether it is well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from fastapi_taskflow.store import FunctionStats
from fastapi_taskflow.web.answers import Answers, json_answer, problems
from fastapi_taskflow.web.health import ALIVE, HealthCheck
from fastapi_taskflow.web.metrics import metrics_json
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import Alive, FunctionShape, Health, Problem

if TYPE_CHECKING:
    from fastapi_taskflow.task.definition import TaskDefinition

router = APIRouter()

HEALTH: Answers = {
    **json_answer(Health | Alive, "All is well"),
    **problems(422),
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


@router.head("/health", include_in_schema=False)
@router.get("/health", response_class=Response, responses=HEALTH)
async def health(request: Request, probe: Literal["ready", "live"] = "ready") -> Response:
    """Return 200 while the store answers and takes changes, else 503; as ``live`` 200 while the event loop turns."""
    if probe == "live":
        return SafeJSONResponse(ALIVE)
    check: HealthCheck = request.app.state.health
    body = await check.look()
    return SafeJSONResponse(body, 200 if body["status"] == "ok" else 503)


def _definition_json(name: str, definition: TaskDefinition | None) -> dict[str, Any]:
    if definition is None:
        return {"name": name, "registered": False}
    return {
        "name": name,
        "registered": True,
        "function": definition.code_name,
        "executor": definition.executor,
        "queue": definition.queue,
        "retries": definition.retry.retries,
        "delay": definition.retry.delay,
        "backoff": definition.retry.backoff,
        "max_delay": definition.retry.max_delay,
        "jitter": definition.retry.jitter,
        "timeout": definition.timeout,
        "expires": definition.expires,
        "unique_for": definition.unique_for,
        "priority": definition.priority,
        "persist": definition.persist,
        "requeue_on_interrupt": definition.requeue_on_interrupt,
    }
