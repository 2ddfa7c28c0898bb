"""Where a request goes, as seen from the mount."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """Return the path below the mount, ``/`` for the mount itself."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path or "/"


def base_url(request: Request) -> str:
    """Return the mount as a URL path without a slash at the end; the ``root_path`` of a proxy is part of it."""
    return quote(request.scope.get("root_path", "").rstrip("/"))


def prefers_html(headers: Headers) -> bool:
    """Tell whether a browser's navigation asks; a script asks for JSON or for anything."""
    return "text/html" in headers.get("accept", "")


def client_address(scope: Scope) -> str:
    """Return the peer's address, as the server sees it."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def safe_next(target: str | None) -> str:
    """Return a path below the mount to go to after the login; the dashboard if ``target`` would leave it."""
    fallback = "/dashboard"
    if not target or not target.startswith("/") or target.startswith(("//", "/auth/")):
        return fallback
    odd = any(ord(char) < 0x20 or ord(char) == 0x7F or char == "\\" for char in target)  # noqa: PLR2004
    return fallback if odd or "/../" in target or target.endswith("/..") else target
