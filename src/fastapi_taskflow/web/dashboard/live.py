"""The stream that open pages listen to."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Final

import anyio
from fastapi import APIRouter, Header, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from fastapi_taskflow.web.answers import problems, text_answer
from fastapi_taskflow.web.auth.sessions import COOKIE, Sessions
from fastapi_taskflow.web.parts import AdminParts, Parts
from fastapi_taskflow.web.stream import Subscription, delta

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

router = APIRouter()

RECONNECT_MS: Final = 2_000
CHECK_SESSION_EVERY: Final = 15.0
SEND_TIMEOUT: Final = 60.0
GATHER: Final = 0.2
"""Seconds in which changes are gathered: a busy application must not spend itself on the pages that watch it."""
SHUTDOWN_GRACE: Final = 2.0
"""Seconds in which a stream ends by itself when the server stops; a stream that is cut off is an error in its log."""


@router.get(
    "/dashboard/stream",
    response_class=Response,
    responses={**text_answer("Changes as they happen, without an end", "text/event-stream"), **problems(422)},
)
async def stream(
    request: Request, parts: Parts, last_event_id: Annotated[str | None, Header(max_length=64)] = None
) -> Response:
    """Stream changes as ``task`` events until the page goes, the session ends or the application stops."""
    sessions: Sessions = request.app.state.sessions
    cookie = request.cookies.get(COOKIE)
    shutdown = anyio.Event()
    return EventSourceResponse(
        events(parts, sessions, cookie, last_event_id, shutdown),
        shutdown_event=shutdown,
        shutdown_grace_period=SHUTDOWN_GRACE,
        ping=max(1.0, parts.settings.poll_interval),
        send_timeout=SEND_TIMEOUT,
    )


async def events(
    parts: AdminParts, sessions: Sessions, cookie: str | None, last_event_id: str | None, shutdown: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    """Yield the events for one page. ``resync`` tells it to load anew, ``bye`` to log in again."""
    feed = parts.feed
    pause = min(CHECK_SESSION_EVERY, max(1.0, parts.settings.poll_interval))
    checked = time.monotonic()
    subscription = feed.subscribe(last_event_id)
    watcher = asyncio.create_task(_close_on(shutdown, subscription))
    try:
        # A page that resumes keeps its place until it has what it missed.
        place = None if last_event_id else feed.position()
        yield ServerSentEvent("{}", event="hello", id=place, retry=RECONNECT_MS)
        while not subscription.closed:
            await subscription.wait(pause)
            if subscription.waiting:
                await asyncio.sleep(GATHER)
            if time.monotonic() - checked >= pause:
                checked = time.monotonic()
                if parts.settings.auth is not None and await sessions.read(cookie) is None:
                    yield ServerSentEvent("{}", event="bye")
                    return
            if subscription.lagged:
                subscription.lagged = False
                yield ServerSentEvent("{}", event="resync", id=feed.position())
            for change in subscription.take():
                yield ServerSentEvent(delta(change.record), event="task", id=feed.event_id(change))
    finally:
        watcher.cancel()
        feed.unsubscribe(subscription)


async def _close_on(shutdown: anyio.Event, subscription: Subscription) -> None:
    await shutdown.wait()
    subscription.close()
