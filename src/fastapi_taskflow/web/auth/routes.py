"""The login page, the login, and the logout."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from fastapi_taskflow.web.acts import CLAIMED, USER
from fastapi_taskflow.web.answers import json_answer, problems, redirect_answer, text_answer
from fastapi_taskflow.web.auth.backend import authenticate
from fastapi_taskflow.web.auth.sessions import COOKIE, Sessions
from fastapi_taskflow.web.auth.throttle import LoginThrottle
from fastapi_taskflow.web.dashboard.pages import page
from fastapi_taskflow.web.parts import AdminSettings, Parts
from fastapi_taskflow.web.paths import base_url, client_address, prefers_html, safe_next
from fastapi_taskflow.web.schemas import SafeJSONResponse
from fastapi_taskflow.web.shapes import SignedIn

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("fastapi_taskflow.web")
router = APIRouter(prefix="/auth")

MAX_FORM: Final = 16_384
"""Bytes that a login form may have."""

SIGNED_IN: Final = {
    **json_answer(SignedIn, "Signed in"),
    **redirect_answer("Signed in; a browser is sent to where it wanted to go"),
    **problems(401, 404, 413, 422, 429, 503),
}
SIGNED_OUT: Final = {**redirect_answer("A browser is sent to the login page"), **problems(503)}
FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["username", "password"],
                    "properties": {
                        "username": {"type": "string"},
                        "password": {"type": "string", "format": "password"},
                        "next": {"type": "string", "description": "Path below the mount to go to after it"},
                    },
                }
            }
        },
    }
}


async def _sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


async def _throttle_of(request: Request) -> LoginThrottle:
    throttle: LoginThrottle = request.app.state.throttle
    return throttle


@router.get(
    "/login",
    response_class=Response,
    responses={
        **text_answer("The login page", "text/html"),
        **redirect_answer("To the dashboard, where authentication is off"),
        **problems(422),
    },
)
async def login_page(request: Request, parts: Parts, next: str | None = None) -> Response:  # noqa: A002 - the URL's name
    """Show the form."""
    if parts.settings.auth is None:
        return RedirectResponse(base_url(request) + safe_next(next), 303)
    return page(request, "login.html", {"next": safe_next(next)})


@router.post("/login", response_class=Response, responses=SIGNED_IN, openapi_extra=FORM)
async def login(
    request: Request,
    parts: Parts,
    sessions: Annotated[Sessions, Depends(_sessions_of)],
    throttle: Annotated[LoginThrottle, Depends(_throttle_of)],
) -> Response:
    """Check the form; set the cookie and go on, or say what is wrong."""
    auth = parts.settings.auth
    if auth is None:
        raise HTTPException(404, "there is no login: authentication is off")
    form = await _form(request)
    user, password, target = form.get("username", ""), form.get("password", ""), safe_next(form.get("next"))
    request.scope[CLAIMED] = user
    address = client_address(request.scope)
    wait = throttle.wait(user, address)
    if wait:
        return _refused(request, 429, f"Too many attempts. Try again in {wait} s.", target, {"Retry-After": str(wait)})
    try:
        right = await authenticate(auth, user, password)
    except Exception:
        logger.exception("the auth backend failed")
        return _refused(request, 503, "The login could not be checked. Try again later.", target, {})
    if not right:
        logger.warning("wrong login for user %.100r from %s", user, address)
        return _refused(request, 401, "Wrong user name or password.", target, {})
    request.scope[USER] = user
    throttle.succeeded(user, address)
    value = await sessions.issue(user)
    response: Response
    if prefers_html(request.headers):
        response = RedirectResponse(base_url(request) + target, 303)
    else:
        response = SafeJSONResponse({"user": user})
    _set_cookie(response, request, parts.settings, value)
    return response


@router.post("/logout", status_code=204, response_class=Response, responses=SIGNED_OUT)
async def logout(request: Request, sessions: Annotated[Sessions, Depends(_sessions_of)]) -> Response:
    """End the session for good."""
    await sessions.revoke(request.cookies.get(COOKIE))
    response: Response
    if prefers_html(request.headers):
        response = RedirectResponse(f"{base_url(request)}/auth/login", 303)
    else:
        response = Response(status_code=204)
    response.delete_cookie(COOKIE, path=base_url(request) or "/", secure=_https(request), httponly=True, samesite="lax")
    return response


def _set_cookie(response: Response, request: Request, settings: AdminSettings, value: str) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=int(settings.token_expiry),
        path=base_url(request) or "/",
        secure=_https(request),
        httponly=True,
        samesite="lax",
    )


def _https(request: Request) -> bool:
    # Not by request.url, which puts the client's Host header into a URL and has to read that again.
    return bool(request.scope["scheme"] == "https")


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413, "the form is too large")
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise HTTPException(422, "the form is not application/x-www-form-urlencoded") from None
    return {name: values[-1] for name, values in fields.items()}


def _refused(request: Request, status: int, message: str, target: str, headers: Mapping[str, str]) -> Response:
    if not prefers_html(request.headers):
        return SafeJSONResponse({"detail": message}, status, headers=dict(headers))
    more = {"next": target, "error": message, "query": urlencode({"next": target})}
    return page(request, "login.html", more, status=status, headers=headers)
