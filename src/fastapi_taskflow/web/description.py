"""The OpenAPI description of the admin application: what its routes say, and what the guard in front of them adds.

It is not served: with it a stranger would know where to push, and the dashboard does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from fastapi_taskflow.__about__ import __version__
from fastapi_taskflow.web.answers import REASONS, TEXT
from fastapi_taskflow.web.auth.guard import OPEN_PATHS, SCRAPED_PATHS
from fastapi_taskflow.web.auth.origin import SAFE_METHODS
from fastapi_taskflow.web.auth.sessions import COOKIE

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fastapi_taskflow.web.parts import AdminSettings

SESSION: Final = {"type": "apiKey", "in": "cookie", "name": COOKIE}
TOKEN: Final = {"type": "http", "scheme": "bearer", "description": "The `metrics_token`"}
BASIC: Final = {"type": "http", "scheme": "basic", "description": "A user's name and password"}
FASTAPI_SHAPES: Final = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI, settings: AdminSettings) -> dict[str, Any]:
    """Return the OpenAPI description of ``app``, the admin application with ``settings``."""
    found = get_openapi(title=settings.title, version=__version__, routes=app.routes, servers=[{"url": settings.path}])
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method.upper(), settings)
    shapes = found["components"]["schemas"]
    for name in FASTAPI_SHAPES:
        shapes.pop(name, None)
    schemes = _schemes(settings)
    if schemes:
        found["components"]["securitySchemes"] = schemes
    return found


def _complete(operation: dict[str, Any], path: str, method: str, settings: AdminSettings) -> None:
    answers = operation["responses"]
    if FASTAPI_SHAPES[0] in str(answers.get("422")):
        # FastAPI's own, for a route whose parameters may be any text.
        del answers["422"]
    if method not in SAFE_METHODS:
        answers.setdefault("403", _problem(403))
    ways = _ways_in(path, settings)
    if not ways:
        return
    operation["security"] = [{way: []} for way in ways]
    answers.setdefault("401", _problem(401))
    answers.setdefault("503", _problem(503))
    if "basic" in ways:
        answers.setdefault("429", _problem(429))
    if method == "GET" and settings.auth is not None:
        answers.setdefault("303", {"description": "A browser is sent to the login page"})


def _ways_in(path: str, settings: AdminSettings) -> list[str]:
    if path in OPEN_PATHS:
        return []
    ways = ["session"] if settings.auth is not None else []
    if path in SCRAPED_PATHS:
        ways += ["token"] if settings.metrics_token else []
        ways += ["basic"] if settings.auth is not None else []
    return ways


def _schemes(settings: AdminSettings) -> dict[str, Any]:
    schemes = {"token": TOKEN} if settings.metrics_token else {}
    return {**schemes, "session": SESSION, "basic": BASIC} if settings.auth is not None else schemes


def _problem(code: int) -> dict[str, Any]:
    return {
        "description": REASONS[code],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}, "text/html": TEXT},
    }
