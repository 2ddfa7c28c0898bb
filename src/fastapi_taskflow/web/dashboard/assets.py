"""The style sheet, the scripts and the icon: read once, sent from memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from fastapi_taskflow.web.answers import problems, text_answer

router = APIRouter()

TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        body: Its bytes.
        content_type: Its type.
        etag: Changes with the bytes.
    """

    body: bytes
    content_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Return every file by its name."""
    folder = resources.files("fastapi_taskflow.web.dashboard").joinpath("static")
    found = {}
    for item in folder.iterdir():
        content_type = TYPES.get(item.name[item.name.rfind(".") :])
        if content_type is not None:
            body = item.read_bytes()
            found[item.name] = Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:24]}"')
    return found


@router.get(
    "/dashboard/static/{name}",
    response_class=Response,
    responses={
        **text_answer("The file", "text/css", "text/javascript", "image/svg+xml"),
        304: {"description": "The browser has it already"},
        **problems(404),
    },
)
async def asset(request: Request, name: str) -> Response:
    """Return one file. Browsers ask again each time and get 304, so an upgrade shows at once."""
    known = assets().get(name)
    if known is None:
        raise HTTPException(404, "there is no such file")
    headers = {"ETag": known.etag, "Cache-Control": "no-cache"}
    if known.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(known.body, headers={**headers, "Content-Type": known.content_type})
