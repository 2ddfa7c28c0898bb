"""Routes on dead letters: tasks that failed or were interrupted, and that nobody has decided about."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from fastapi_taskflow import clock
from fastapi_taskflow.store import Selection
from fastapi_taskflow.web.answers import json_answer, page_answer, problems
from fastapi_taskflow.web.parts import Parts
from fastapi_taskflow.web.queries import INSTANT_FORMS, ListQuery, fetch, parse_instant, plain_text, unprocessable
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import Started
from fastapi_taskflow.web.tasks import found, next_link, shown

if TYPE_CHECKING:
    from fastapi_taskflow.web.parts import AdminParts

router = APIRouter()

Text = Annotated[
    str | None,
    Field(max_length=512),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 512, "pattern": r"[^\s\u0000]"}, {"type": "null"}]}),
]
Instant = Annotated[
    str | None,
    Field(max_length=64),
    WithJsonSchema({"anyOf": [*INSTANT_FORMS, {"type": "null"}]}),
]
STARTED: Final = {
    **json_answer(Started, "The job that does it has begun; its progress is that of its task", status=202),
    **problems(400, 422, 503),
}


class Chosen(BaseModel):
    """Which dead letters: all that match every field given. ``{}`` is all of them."""

    model_config = ConfigDict(extra="forbid")

    func_name: Text = None
    queue: Text = None
    tag: Text = None
    q: Text = None
    since: Instant = None
    until: Instant = None


@router.get("/dead-letters", response_class=Response, responses={**page_answer(), **problems(422, 503)})
async def dead_letters(request: Request, parts: Parts, query: ListQuery) -> Response:
    """Return one page of the tasks that failed or were interrupted, and were neither retried nor discarded."""
    page = await fetch(parts.journal, replace(query, dead=True))
    headers = next_link(request, page.next_cursor)
    return SafeJSONResponse([shown(parts, record) for record in page.records], headers=headers)


@router.post("/dead-letters/retry", status_code=202, response_class=Response, responses=STARTED)
async def retry_dead_letters(parts: Parts, body: Chosen) -> Response:
    """Run all dead letters again that match and are there now, in a job of its own."""
    return await _started(parts, "retry", body)


@router.post("/dead-letters/discard", status_code=202, response_class=Response, responses=STARTED)
async def discard_dead_letters(parts: Parts, body: Chosen) -> Response:
    """Take all dead letters off the list that match and are there now, in a job of its own."""
    return await _started(parts, "discard", body)


def _given(name: str, value: str | None) -> str | None:
    """Return the value of a filter; one of which nothing is left must not come to mean all."""
    if value is None:
        return None
    text = plain_text(value)
    if text is None:
        message = f"{name} must not be empty; leave it out to mean all"
        raise unprocessable(message)
    return text


async def _started(parts: AdminParts, verb: Literal["retry", "discard"], chosen: Chosen) -> Response:
    now = clock.now()
    selection = Selection(
        func_name=_given("func_name", chosen.func_name),
        queue=_given("queue", chosen.queue),
        tag=_given("tag", chosen.tag),
        text=_given("q", chosen.q),
        since=parse_instant("since", _given("since", chosen.since), now=now),
        until=parse_instant("until", _given("until", chosen.until), now=now),
    )
    record = await found(parts, (await parts.bulk.begin(verb, selection)).task_id)
    return SafeJSONResponse({"task_id": record.task_id, "task": shown(parts, record)}, 202)
