"""The door: every request to the admin application passes here first."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.web.acts import USER
from fastapi_taskflow.web.auth.backend import authenticate
from fastapi_taskflow.web.auth.origin import SAFE_METHODS, from_elsewhere
from fastapi_taskflow.web.auth.sessions import COOKIE
from fastapi_taskflow.web.paths import client_address, prefers_html, route_path
from fastapi_taskflow.web.schemas import SafeJSONResponse

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from fastapi_taskflow.web.auth.backend import TaskAuthBackend
    from fastapi_taskflow.web.auth.sessions import Sessions
    from fastapi_taskflow.web.auth.throttle import LoginThrottle
    from fastapi_taskflow.web.parts import AdminSettings

logger = logging.getLogger("fastapi_taskflow.web")

OPEN_PATHS: Final = frozenset({"/auth/login", "/dashboard/static/taskflow.css", "/dashboard/static/icon.svg"})
SCRAPED_PATHS: Final = frozenset({"/metrics", "/health"})
BASIC_KEPT: Final = 60.0
"""Seconds for which a scraper's right password is not derived again: it comes every few seconds."""


class Guard:
    """ASGI middleware that lets in who has a session, and scrapers where they belong.

    Args:
        app: What it guards.
        settings: Who may come in.
        sessions: Reads the cookie.
        throttle: Slows down guessing over HTTP Basic.
    """

    def __init__(self, app: ASGIApp, *, settings: AdminSettings, sessions: Sessions, throttle: LoginThrottle) -> None:
        self._app = app
        self._settings = settings
        self._sessions = sessions
        self._throttle = throttle
        self._pepper = secrets.token_bytes(32)
        self._basic_until: dict[bytes, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            refusal = await self._refusal(scope, headers)
        except StoreError:
            logger.exception("a session could not be checked")
            refusal = SafeJSONResponse({"detail": "the store does not answer; try again"}, 503)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["method"] not in SAFE_METHODS and from_elsewhere(headers):
            return SafeJSONResponse({"detail": "the request comes from another site"}, 403)
        path = route_path(scope)
        if path in OPEN_PATHS:
            return None
        if path in SCRAPED_PATHS and self._settings.auth is None and self._settings.metrics_token:
            return await self._scraper(scope, headers)
        if self._settings.auth is None or await self._has_session(scope):
            return None
        if path in SCRAPED_PATHS and "authorization" in headers:
            return await self._scraper(scope, headers)
        return self._unauthorized(scope, headers)

    async def _has_session(self, scope: Scope) -> bool:
        session = await self._sessions.read(HTTPConnection(scope).cookies.get(COOKIE))
        if session is None:
            return False
        scope[USER] = session.user
        return True

    async def _scraper(self, scope: Scope, headers: Headers) -> Response | None:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        token = self._settings.metrics_token
        if scheme.lower() == "bearer" and token and hmac.compare_digest(value.strip().encode(), token.encode()):
            return None
        if scheme.lower() == "basic" and self._settings.auth is not None:
            return await self._basic(scope, headers, self._settings.auth)
        return self._unauthorized(scope, headers)

    async def _basic(self, scope: Scope, headers: Headers, auth: TaskAuthBackend) -> Response | None:
        value = headers["authorization"].partition(" ")[2].strip()
        digest = hashlib.blake2b(value.encode(), key=self._pepper).digest()
        now = time.monotonic()
        if self._basic_until.get(digest, 0.0) > now:
            return None
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return self._unauthorized(scope, headers)
        address = client_address(scope)
        wait = self._throttle.wait(user, address)
        if wait:
            return SafeJSONResponse({"detail": "too many wrong passwords"}, 429, headers={"Retry-After": str(wait)})
        try:
            right = await authenticate(auth, user, password)
        except Exception:
            logger.exception("the auth backend failed")
            right = False
        if not right:
            return self._unauthorized(scope, headers)
        self._throttle.succeeded(user, address)
        self._basic_until = {kept: until for kept, until in self._basic_until.items() if until > now}
        self._basic_until[digest] = now + BASIC_KEPT
        return None

    def _unauthorized(self, scope: Scope, headers: Headers) -> Response:
        scraped = route_path(scope) in SCRAPED_PATHS
        if scope["method"] == "GET" and prefers_html(headers) and self._settings.auth is not None:
            return _to_login(scope)
        challenge = {"WWW-Authenticate": 'Bearer realm="metrics"'} if scraped else {}
        return SafeJSONResponse({"detail": "not authenticated"}, 401, headers=challenge)


def _to_login(scope: Scope) -> Response:
    target = route_path(scope)
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    base = quote(scope.get("root_path", ""))
    return RedirectResponse(f"{base}/auth/login?{urlencode({'next': target})}", 303)
