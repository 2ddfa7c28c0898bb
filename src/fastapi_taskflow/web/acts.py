"""Writes down every act: who did what to which task, queue or schedule, when, and from where."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from fastapi_taskflow import clock
from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.store import Act
from fastapi_taskflow.task.outcome import storable_text
from fastapi_taskflow.task.record import new_task_id
from fastapi_taskflow.web.auth.origin import SAFE_METHODS
from fastapi_taskflow.web.paths import client_address
from fastapi_taskflow.web.schemas import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fastapi_taskflow.store import Store

logger = logging.getLogger("fastapi_taskflow.audit")

USER: Final = "taskflow.user"
"""Key of the scope: who is signed in."""
CLAIMED: Final = "taskflow.claimed_user"
"""Key of the scope: who somebody says to be who signs in."""

ACTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/{task_id}/cancel"): "task.cancel",
    ("POST", "/{task_id}/retry"): "task.retry",
    ("POST", "/{task_id}/discard"): "task.discard",
    ("POST", "/bulk-retry"): "tasks.retry",
    ("POST", "/retry-failed"): "tasks.retry_failed",
    ("POST", "/dead-letters/retry"): "dead_letters.retry",
    ("POST", "/dead-letters/discard"): "dead_letters.discard",
    ("PATCH", "/queues/{name}"): "queue.change",
    ("DELETE", "/queues/{name}"): "queue.reset",
    ("POST", "/queues/{name}/pause"): "queue.pause",
    ("POST", "/queues/{name}/resume"): "queue.resume",
    ("POST", "/schedules/{name}/run"): "schedule.run",
    ("POST", "/schedules/{name}/pause"): "schedule.pause",
    ("POST", "/schedules/{name}/resume"): "schedule.resume",
    ("DELETE", "/history"): "history.delete",
    ("POST", "/auth/login"): "session.login",
    ("POST", "/auth/logout"): "session.logout",
}
"""What a route does, by method and path. One that is missing here is told by these two."""

REFUSED_LOGINS: Final = frozenset({401, 429})
MAX_BODY: Final = 4_096
MAX_TEXT: Final = 512
PATIENCE: Final = 2.0
"""Seconds that an answer waits for its act to be written."""


class Audit:
    """ASGI middleware: an act that was done is in the audit log before its answer goes out.

    A store that does not take it changes nothing about the act: it is done, and its answer says so. That is logged.

    Args:
        app: What does the acts.
        store: Keeps the log.
    """

    def __init__(self, app: ASGIApp, *, store: Store) -> None:
        self._app = app
        self._store = store
        self._failing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        body = bytearray()

        async def kept_receive() -> Message:
            message = await receive()
            if len(body) <= MAX_BODY:
                body.extend(message.get("body", b"")[: MAX_BODY + 1])
            return message

        async def audited_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                act = act_of(scope, message["status"], bytes(body))
                if act is not None:
                    await self._write(act)
            await send(message)

        await self._app(scope, kept_receive, audited_send)

    async def _write(self, act: Act) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._store.add_act(act)
        except (StoreError, TimeoutError) as error:
            level = logging.DEBUG if self._failing else logging.ERROR
            self._failing = True
            logger.log(level, "%s of %r by %r is not in the audit log: %s", act.action, act.target, act.actor, error)
        else:
            self._failing = False


def act_of(scope: Scope, status: int, body: bytes) -> Act | None:
    """Return what a request did; None if it was refused, a wrong login aside."""
    method, path = scope["method"], getattr(scope.get("route"), "path", None)
    action = ACTIONS.get((method, path or ""), f"{method} {path}")
    if action == "session.login" and status in REFUSED_LOGINS:
        action = "session.refused"
    elif status >= 400 or path is None:  # noqa: PLR2004 - HTTP's
        return None
    parameters: dict[str, str] = scope.get("path_params", {})
    claimed = scope.get(CLAIMED, "")
    target = next(iter(parameters.values()), claimed)
    return Act(
        act_id=new_task_id(),
        at=clock.now(),
        actor=storable_text(str(scope.get(USER, "")), MAX_TEXT),
        action=action,
        target=storable_text(str(target), MAX_TEXT),
        detail=_detail(scope, status, b"" if action.startswith("session.") else body),
        address=storable_text(client_address(scope), MAX_TEXT) or None,
    )


def _detail(scope: Scope, status: int, body: bytes) -> str:
    found: dict[str, Any] = {"status": status}
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if query:
        found["query"] = {name: value[:MAX_TEXT] for name, value in query[:32]}
    if body:
        found["body"] = _shown_body(body)
    return dump(found)


def _shown_body(body: bytes) -> Any:
    if len(body) > MAX_BODY:
        return body[:MAX_TEXT].decode("utf-8", "replace") + "…"
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
