"""Which processes work on the tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

from fastapi_taskflow.web.answers import json_answer, problems
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.schemas import SafeJSONResponse, iso
from fastapi_taskflow.web.shapes import InstanceShape

if TYPE_CHECKING:
    from fastapi_taskflow.store import Instance

router = APIRouter()


@router.get(
    "/instances",
    response_class=Response,
    responses={**json_answer(list[InstanceShape], "Each process, oldest first"), **problems(503)},
)
async def instances(parts: Parts) -> Response:
    """Return the processes that work on the store. With tasks in memory there are none to tell of."""
    me = parts.dispatcher.owner
    found = sorted(await parts.store.instances(), key=lambda each: (each.started_at, each.instance_id))
    return SafeJSONResponse([_instance_json(each, me) for each in found])


def _instance_json(instance: Instance, me: str) -> dict[str, Any]:
    return {
        "instance_id": instance.instance_id,
        "host": instance.host,
        "pid": instance.pid,
        "started_at": iso(instance.started_at),
        "heartbeat_at": iso(instance.heartbeat_at),
        "age": round(max(0.0, instance.age), 3),
        "me": instance.instance_id == me,
    }
