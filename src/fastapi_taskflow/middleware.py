"""Durable before response: the ASGI middleware that holds a response until the request's tasks are stored."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.background import SCOPE_KEY, UNAVAILABLE
from fastapi_taskflow.errors import StoreUnavailableError
from fastapi_taskflow.injection import RequestTasks, current_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fastapi_taskflow.background import ManagedBackgroundTasks
    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.injection import Installation

logger = logging.getLogger("fastapi_taskflow.middleware")

UNAVAILABLE_BODY: Final = json.dumps({"detail": UNAVAILABLE}).encode()
RETRY_AFTER: Final = b"1"


class TaskMiddleware:
    """Gives each request its tasks, and holds its response until they are committed.

    A request that adds no task passes through: one object, one context variable and one comparison a message.

    Args:
        app: The next ASGI app.
        get_dispatcher: Returns the manager's dispatcher while it is started, else None.
        is_up: Tells whether it is started for good.
        installation: Which routes get the managed class injected.
        for_one_request: Starts the manager around one request, where no lifespan has started it.
    """

    def __init__(
        self,
        app: ASGIApp,
        get_dispatcher: Callable[[], Dispatcher | None],
        is_up: Callable[[], bool],
        installation: Installation,
        for_one_request: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.app = app
        self._get_dispatcher = get_dispatcher
        self._is_up = is_up
        self._installation = installation
        self._for_one_request = for_one_request

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        if self._is_up():
            return self._serve(scope, receive, send)
        return self._serve_alone(scope, receive, send)

    async def _serve_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._for_one_request():
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = scope[SCOPE_KEY] = RequestTasks(self._get_dispatcher, scope, self._installation)

        def held_send(message: Message) -> Awaitable[None]:
            # Not a coroutine function: most messages go through here, and have no task to wait for.
            managed = request.managed
            if managed is None or not (managed.waiting or request.refused):
                return send(message)
            if not request.refused and managed.admit_at_once():
                return send(message)
            return _send_held(managed, request, scope, send, message)

        token = current_request.set(request)
        try:
            await self.app(scope, receive, held_send)
        except BaseException as error:
            if request.managed is not None:
                request.managed.abandon(f"the request ended with {type(error).__name__}")
            raise
        finally:
            current_request.reset(token)
            # The scope and the request point at each other: taken apart here, they need no garbage collector.
            scope.pop(SCOPE_KEY, None)
        if request.managed is not None:
            await request.managed.finish()


async def _send_held(
    managed: ManagedBackgroundTasks, request: RequestTasks, scope: Scope, send: Send, message: Message
) -> None:
    """Send ``message`` once the tasks that were added so far are stored."""
    if request.refused:
        return
    if managed.waiting:
        try:
            await managed.admit()
        except StoreUnavailableError as error:
            logger.error("%s %s: %s", scope["method"], scope["path"], error)  # noqa: TRY400 - not a bug's trace
            if message["type"] == "http.response.start":
                request.refused = True
                await _send_unavailable(send)
                return
    await send(message)


async def _send_unavailable(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
        (b"retry-after", RETRY_AFTER),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": UNAVAILABLE_BODY})
