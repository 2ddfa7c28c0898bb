"""Errors as answers: ``{"detail": …}`` for programs, a page for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from fastapi_taskflow.errors import (
    InvalidTransitionError,
    QueueFullError,
    ScheduleNotFoundError,
    StoreError,
    TaskNotFoundError,
)
from fastapi_taskflow.web.dashboard.pages import page
from fastapi_taskflow.web.paths import prefers_html
from fastapi_taskflow.web.schemas import SafeJSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request
    from starlette.responses import Response


def install_error_handlers(app: FastAPI) -> None:
    """Make every error that a route may raise a 4xx or 503 with a reason."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TaskNotFoundError, _not_found)
    app.add_exception_handler(ScheduleNotFoundError, _not_found)
    app.add_exception_handler(InvalidTransitionError, _conflict)
    app.add_exception_handler(QueueFullError, _full)
    app.add_exception_handler(StoreError, _unavailable)


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return _answer(request, status, getattr(error, "detail", ""), getattr(error, "headers", None) or {})


async def _invalid(request: Request, error: Exception) -> Response:
    # Only where and why: the input itself may be anything, and need not be sent back.
    errors: list[dict[str, Any]] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    detail = [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in errors]
    return _answer(request, 422, detail, {})


async def _not_found(request: Request, error: Exception) -> Response:
    return _answer(request, 404, str(error), {})


async def _conflict(request: Request, error: Exception) -> Response:
    return _answer(request, 409, str(error), {})


async def _full(request: Request, error: Exception) -> Response:
    return _answer(request, 429, str(error), {"Retry-After": str(getattr(error, "retry_after", 1))})


async def _unavailable(request: Request, error: Exception) -> Response:
    return _answer(request, 503, str(error), {"Retry-After": "1"})


def _answer(request: Request, status: int, detail: object, headers: Mapping[str, str]) -> Response:
    if prefers_html(request.headers):
        text = detail if isinstance(detail, str) else "; ".join(_sentence(item) for item in _items(detail))
        more = {"status": status, "reason": HTTPStatus(status).phrase, "detail": text}
        return page(request, "error.html", more, status=status, headers=headers)
    return SafeJSONResponse({"detail": detail}, status, headers=dict(headers))


def _items(detail: object) -> list[dict[str, Any]]:
    return [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []


def _sentence(item: Mapping[str, Any]) -> str:
    where = " ".join(str(part) for part in item["loc"][1:])
    return f"{where}: {item['msg']}" if where else str(item["msg"])
