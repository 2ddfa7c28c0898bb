"""The answer to a request whose task finds its queue full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from fastapi_taskflow.errors import QueueFullError, TaskflowError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request


def install_refusal(app: FastAPI) -> None:
    """Have `QueueFullError` answered by 429, unless the application has a handler of its own for it.

    One that is set later takes this one's place.
    """
    if not any(kind in app.exception_handlers for kind in (QueueFullError, TaskflowError)):
        app.add_exception_handler(QueueFullError, _refuse)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    if request.scope["type"] != "http" or not isinstance(error, QueueFullError):
        # A WebSocket has no status to send.
        raise error
    return JSONResponse({"detail": str(error)}, 429, headers={"Retry-After": str(error.retry_after)})
