"""Routes on queues: what waits and runs in them, their limits, pause and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.arguments import checked_queue
from fastapi_taskflow.task.queue import MOST, NO_LIMITS, RATE, QueueConfig, QueueFacts
from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.answers import json_answer, problems
from fastapi_taskflow.web.parts import AdminParts, Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import QueueShape

if TYPE_CHECKING:
    from collections.abc import Mapping

router = APIRouter()

MAX_NAME_CHARS: Final = 64
LIVE: Final = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING})
CHANGED: Final = {**json_answer(QueueShape, "The queue after it"), **problems(404, 503)}

RATE_SHAPE: Final[JsonDict] = {"pattern": f"^{RATE}$"}


def _whole(value: object) -> object:
    """Return 3.0 as 3, which JSON does not tell from it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Limit = Annotated[
    Annotated[int, Field(strict=True, ge=1, le=MOST)] | None,
    BeforeValidator(_whole),
    WithJsonSchema({"type": ["integer", "null"], "minimum": 1, "maximum": MOST}),
]


class QueueChange(BaseModel):
    """Which limits to set. Those that are left out stay as they are; null is without limit."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    concurrency: Limit = None
    max_size: Limit = None
    rate_limit: Annotated[str, StringConstraints(strip_whitespace=True), Field(json_schema_extra=RATE_SHAPE)] | None = (
        None
    )

    @field_validator("rate_limit")
    @classmethod
    def _checked_rate(cls, value: str | None) -> str | None:
        QueueConfig(rate_limit=value)
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> QueueChange:
        if not self.model_fields_set:
            msg = "give at least one of concurrency, max_size and rate_limit"
            raise ValueError(msg)
        return self


@router.get(
    "/queues", response_class=Response, responses={**json_answer(list[QueueShape], "Each queue"), **problems(503)}
)
async def queues(parts: Parts) -> Response:
    """Return the queues that the code or an operator named, and those with tasks in this process."""
    counts = parts.journal.live_counts()
    return SafeJSONResponse([_queue_json(facts, counts) for _, facts in sorted(_facts(parts).items())])


@router.patch("/queues/{name}", response_class=Response, responses={**CHANGED, **problems(400, 422)})
async def change(parts: Parts, name: str, body: QueueChange) -> Response:
    """Set limits of a queue in every process, from now on and after a restart."""
    await _require_known(parts, name)
    await parts.queues.change(name, {field: getattr(body, field) for field in body.model_fields_set})
    return _changed(parts, name)


@router.delete("/queues/{name}", response_class=Response, responses=CHANGED)
async def reset(parts: Parts, name: str) -> Response:
    """Forget what was changed of a queue: it has the limits of the code again, and is not paused."""
    await _require_known(parts, name)
    await parts.queues.reset(name)
    return _changed(parts, name)


@router.post("/queues/{name}/pause", response_class=Response, responses=CHANGED)
async def pause(parts: Parts, name: str) -> Response:
    """Let nothing more of a queue start in any process, until it is resumed. What runs goes on."""
    await _require_known(parts, name)
    await parts.queues.pause(name)
    return _changed(parts, name)


@router.post("/queues/{name}/resume", response_class=Response, responses=CHANGED)
async def resume(parts: Parts, name: str) -> Response:
    """Let a paused queue go on. Harmless when it is not paused."""
    await _require_known(parts, name)
    await parts.queues.resume(name)
    return _changed(parts, name)


def _facts(parts: AdminParts) -> Mapping[str, QueueFacts]:
    """Return the queues, those that only the functions name included."""
    known = dict(parts.queues.facts())
    for name in {definition.queue for definition in parts.registry} - known.keys():
        known[name] = _empty(name)
    return known


def _empty(name: str) -> QueueFacts:
    return QueueFacts(name, NO_LIMITS, paused=False, waiting=0, declared=False, stored={})


async def _require_known(parts: AdminParts, name: str) -> None:
    """Refuse a name that nobody uses: it is a typing error, and would be kept for ever.

    Raises:
        HTTPException: If there is no such queue.
    """
    if name in _facts(parts) or await _is_used(parts, name):
        return
    raise HTTPException(404, f"there is no queue {name[:MAX_NAME_CHARS]!r}, and no task waits or runs in one")


async def _is_used(parts: AdminParts, name: str) -> bool:
    """Tell whether any process has a task in a queue."""
    try:
        checked_queue(name)
    except ConfigurationError:
        return False
    page = await parts.journal.list(TaskQuery(statuses=LIVE, queue=name, limit=1))
    return bool(page.records)


def _changed(parts: AdminParts, name: str) -> Response:
    return SafeJSONResponse(_queue_json(_facts(parts).get(name) or _empty(name), parts.journal.live_counts()))


def _queue_json(facts: QueueFacts, counts: Mapping[tuple[str, TaskStatus], int]) -> dict[str, Any]:
    return {
        "name": facts.name,
        "concurrency": facts.config.concurrency,
        "max_size": facts.config.max_size,
        "rate_limit": facts.config.rate_limit,
        "paused": facts.paused,
        "pending": counts.get((facts.name, TaskStatus.PENDING), 0),
        "waiting": facts.waiting,
        "running": counts.get((facts.name, TaskStatus.RUNNING), 0),
        "declared": facts.declared,
        "stored": dict(facts.stored),
    }
