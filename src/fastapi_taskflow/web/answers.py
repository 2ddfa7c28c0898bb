"""What a route may answer, for its OpenAPI description."""

from __future__ import annotations

from typing import Any, Final

from fastapi_taskflow.web.shapes import Problem, Task

Answers = dict[int | str, dict[str, Any]]
"""Descriptions of answers by status code, as FastAPI's ``responses`` has them."""

TEXT: Final = {"schema": {"type": "string"}}
REASONS: Final = {
    400: "The body cannot be read",
    401: "Not signed in, or the login is wrong",
    403: "Another site made the browser send the request",
    404: "There is no such thing",
    409: "The task's status does not allow it, or its call cannot be made again",
    413: "The body is too large",
    422: "A parameter or the body is wrong",
    429: "Too many wrong logins, or the task's queue is full",
    503: "The store fails or did not commit in time",
}
PAGE_HEADERS: Final = {
    "Link": {"description": 'The next page, `rel="next"`, while there is one', **TEXT},
    "X-Total-Count": {
        "description": "How many match, where that is known without counting",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def json_answer(shape: Any, description: str, *, status: int = 200) -> Answers:
    """Return the answer of a request that went well: JSON of this shape."""
    return {status: {"model": shape, "description": description}}


def page_answer(*formats: str) -> Answers:
    """Return one page of tasks, or a download in one of ``formats``."""
    content = dict.fromkeys(formats, TEXT)
    return {200: {"model": list[Task], "description": "Tasks", "headers": dict(PAGE_HEADERS), "content": content}}


def text_answer(description: str, *formats: str) -> Answers:
    """Return an answer that is text in one of ``formats``."""
    return {200: {"description": description, "content": dict.fromkeys(formats, TEXT)}}


def redirect_answer(description: str) -> Answers:
    """Return the answer to a browser, which goes on to another page."""
    return {303: {"description": description}}


def problems(*codes: int) -> Answers:
    """Return the answers of a request that did not go well: JSON, or a page for a browser."""
    return {
        code: {"model": Problem, "description": REASONS[code], "content": {"text/html": dict(TEXT)}} for code in codes
    }
