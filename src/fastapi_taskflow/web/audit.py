"""The route of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from fastapi_taskflow.web.answers import json_answer, problems
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.queries import plain_text
from fastapi_taskflow.web.schemas import SafeJSONResponse, iso, stored_json
from fastapi_taskflow.web.shapes import ActShape
from fastapi_taskflow.web.tasks import next_link

if TYPE_CHECKING:
    from fastapi_taskflow.store import Act

router = APIRouter()


@router.get(
    "/audit",
    response_class=Response,
    responses={**json_answer(list[ActShape], "Acts, newest first"), **problems(422, 503)},
)
async def audit(
    request: Request,
    parts: Parts,
    target: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Return one page of who did what, newest first."""
    acts = await parts.store.acts(target=plain_text(target), before=plain_text(cursor), limit=limit + 1)
    more = acts[limit - 1].act_id if len(acts) > limit else None
    return SafeJSONResponse([_act_json(act) for act in acts[:limit]], headers=next_link(request, more))


def _act_json(act: Act) -> dict[str, Any]:
    return {
        "act_id": act.act_id,
        "timestamp": iso(act.at),
        "actor": act.actor or None,
        "action": act.action,
        "target": act.target or None,
        "detail": stored_json(act.detail),
        "address": act.address,
    }
