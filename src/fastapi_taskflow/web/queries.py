"""Query parameters of the lists: checked, and made into a `TaskQuery`."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import Depends, HTTPException, Query
from pydantic import WithJsonSchema
from pydantic.config import JsonDict

from fastapi_taskflow import clock
from fastapi_taskflow.store import TaskQuery
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from fastapi_taskflow.store import Page
    from fastapi_taskflow.web.parts import Journal

MAX_LIMIT: Final = 500
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_RELATIVE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhdw])", re.ASCII)
_STATUS: Final = "|".join(TaskStatus)

INSTANT_FORMS: Final[list[JsonDict]] = [
    {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?[smhdw]$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "date"},
]
"""What `parse_instant` reads, as JSON Schema has it."""
InstantText = Annotated[
    str | None,
    Query(max_length=64, description="`15m`, `2h`, `7d` ago, or an ISO 8601 date; one without an offset is UTC"),
    WithJsonSchema(
        {
            "anyOf": [
                *INSTANT_FORMS,
                {"type": "string", "maxLength": 0},
            ]
        }
    ),
]
"""A parameter that `parse_instant` reads."""
StatusTexts = Annotated[
    list[str] | None,
    Query(description="One or several, with commas or repeated"),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": f"^(({_STATUS})(,({_STATUS}))*)?$"}}),
]
"""A parameter that `parse_statuses` reads."""


def unprocessable(message: str) -> HTTPException:
    """Return the error for a parameter that has a wrong value."""
    return HTTPException(422, message)


def parse_instant(name: str, text: str | None, *, now: float) -> float | None:
    """Return seconds since the Unix epoch for ``15m``, ``2h``, ``7d`` (before ``now``) or an ISO 8601 date.

    A date without an offset is UTC.

    Raises:
        HTTPException: 422 if it is neither.
    """
    if not text:
        return None
    relative = _RELATIVE.fullmatch(text.strip())
    if relative:
        return now - float(relative[1]) * _UNITS[relative[2]]
    try:
        # A "+" that was not escaped in the URL arrives as a space.
        moment = datetime.fromisoformat(text.strip().replace(" ", "T" if "T" not in text else "+"))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        message = f"{name} must be a span such as 15m, 2h, 7d, or a date such as 2026-11-24T22:00:00Z"
        raise unprocessable(message) from None
    return seconds if math.isfinite(seconds) else None


def parse_statuses(values: list[str]) -> frozenset[TaskStatus]:
    """Return the statuses named, each value being one or several with commas between.

    Raises:
        HTTPException: 422 if one is unknown.
    """
    names = [name.strip().lower() for value in values for name in value.split(",") if name.strip()]
    try:
        return frozenset(TaskStatus(name) for name in names)
    except ValueError:
        message = f"status must be one of {', '.join(TaskStatus)}"
        raise unprocessable(message) from None


def plain_text(value: str | None) -> str | None:
    """Return what a parameter says, None if that is nothing."""
    # No stored text has a NUL, and some databases refuse to be asked for one.
    return (value or "").replace("\0", "").strip() or None


async def _task_query(
    *,
    status: StatusTexts = None,
    func_name: Annotated[str | None, Query(max_length=512)] = None,
    queue: Annotated[str | None, Query(max_length=512)] = None,
    tag: Annotated[str | None, Query(max_length=512)] = None,
    q: Annotated[str | None, Query(max_length=512)] = None,
    trace_id: Annotated[str | None, Query(max_length=64)] = None,
    parent_id: Annotated[str | None, Query(max_length=64, description="What follows this task")] = None,
    group_id: Annotated[str | None, Query(max_length=64, description="The members and the callback of a group")] = None,
    since: InstantText = None,
    until: InstantText = None,
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> TaskQuery:
    now = clock.now()
    return TaskQuery(
        statuses=parse_statuses(status or []),
        func_name=plain_text(func_name),
        queue=plain_text(queue),
        tag=plain_text(tag),
        text=plain_text(q),
        trace_id=(plain_text(trace_id) or "").lower() or None,
        parent_id=plain_text(parent_id),
        group_id=plain_text(group_id),
        since=parse_instant("since", since, now=now),
        until=parse_instant("until", until, now=now),
        oldest_first=order == "asc",
        cursor=cursor or None,
        limit=limit,
    )


ListQuery = Annotated[TaskQuery, Depends(_task_query)]
"""Annotation by which a route gets the checked query."""


async def fetch(journal: Journal, query: TaskQuery) -> Page:
    """Return one page.

    Raises:
        HTTPException: 422 if the cursor is not one of ours.
    """
    try:
        return await journal.list(query)
    except ValueError:
        message = "cursor is not one that this list gave"
        raise unprocessable(message) from None
