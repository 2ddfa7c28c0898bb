"""Templates into responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from fastapi_taskflow.web.dashboard import formats
from fastapi_taskflow.web.paths import base_url
from fastapi_taskflow.web.schemas import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

    from fastapi_taskflow.web.parts import AdminParts

TEMPLATES: Final = Environment(
    loader=PackageLoader("fastapi_taskflow.web.dashboard", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(
    duration=formats.duration,
    ago=formats.ago,
    clip=formats.clip,
    count=formats.count,
    percent=formats.percent,
    short_id=formats.short_id,
    stamp=formats.stamp,
    pretty=formats.pretty,
    urlencode=formats.url_part,
    iso=iso,
)


class HTMLPage(Response):
    """HTML that no text can break: what UTF-8 lacks is spelled out."""

    media_type = "text/html"

    def render(self, content: str) -> bytes:
        """Return ``content`` as bytes."""
        return content.replace("\0", "\u2400").encode("utf-8", "backslashreplace")


def page(
    request: Request,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a page.

    Args:
        request: Tells where the application is mounted and who looks.
        template: The template's name.
        context: What it shows.
        status: The HTTP status.
        headers: More headers.
    """
    parts: AdminParts = request.app.state.parts
    common = {
        "base": base_url(request),
        "title": parts.settings.title,
        "user": request.scope.get("taskflow.user"),
        "poll_interval": parts.settings.poll_interval,
    }
    text = TEMPLATES.get_template(template).render({**common, **context})
    return HTMLPage(text, status, headers={"Vary": "Accept, Cookie", **(headers or {})})
