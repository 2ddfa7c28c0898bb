"""No request makes a route fail: odd parameters, ids, cursors and bodies on real stores."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager

if TYPE_CHECKING:
    from pathlib import Path

WORDS = (
    "", "a*", "%", "_", "\\", "'\"", "\0", "\ud800", "\U0010ffff", "é" * 100, "x" * 600, "0", "-1", "1e999", "nan",
    "99999999999999999999", "0001-01-01", "9999-12-31T23:59:59", "0000-00-00", "999999999w", "failed,", "asc", "csv",
    "ndjson", "json", "openmetrics",
)  # fmt: skip
CURSORS: tuple[Any, ...] = (
    [1.0, "x", 0], [1e308, "x"], ["a", "b", 0], [], {}, None, [float("nan"), "x", 0], [1.0, 5, 0], [1.0, "\ud800", 0],
    [10**400, "x", 0], [True, "x", 0],
)  # fmt: skip
PARAMETERS = (
    "status", "func_name", "queue", "tag", "q", "trace_id", "since", "until", "order", "limit", "cursor", "format",
    "level", "n", "notice",
)  # fmt: skip
ROUTES = (
    ("GET", ""), ("GET", "/history"), ("GET", "/dashboard"), ("GET", "/metrics"), ("GET", "/functions"),
    ("GET", "/health"), ("GET", "/{}"), ("GET", "/{}/trace"), ("GET", "/dashboard/{}"), ("GET", "/dashboard/static/{}"),
    ("GET", "/auth/login"), ("POST", "/auth/login"), ("POST", "/auth/logout"), ("POST", "/bulk-retry"),
    ("POST", "/retry-failed"), ("POST", "/{}/cancel"), ("POST", "/{}/retry"),
)  # fmt: skip
BODIES = (b"", b"{}", b'{"task_ids":["\\ud800","x"]}', b'{"task_ids":[NaN]}', b"\xff", b"username=%00&password=%ff")


def escaped(text: str) -> str:
    """Return ``text`` percent-encoded, lone surrogates included."""
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def cursor(value: Any) -> str:
    """Return a forged cursor."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def request(dice: random.Random) -> dict[str, Any]:
    """Return a request to some route with some odd input."""
    method, route = dice.choice(ROUTES)
    pairs = [f"{dice.choice(PARAMETERS)}={escaped(dice.choice(WORDS))}" for _ in range(dice.randint(0, 4))]
    if dice.random() < 0.3:
        pairs.append(f"cursor={cursor(dice.choice(CURSORS))}")
    url = f"/tasks{route.format(escaped(dice.choice(WORDS)))}?{'&'.join(pairs)}"
    headers = {"accept": dice.choice(("*/*", "text/html", "application/json", "text/plain"))}
    if method == "GET":
        return {"method": method, "url": url, "headers": headers}
    headers["content-type"] = dice.choice(("application/json", "application/x-www-form-urlencoded", "x"))
    return {"method": method, "url": url, "headers": headers, "content": dice.choice(BODIES)}


@pytest.mark.parametrize("persistent", [False, True])
async def test_wrong_input_is_never_a_500(tmp_path: Path, persistent: bool) -> None:  # noqa: FBT001 - a table's column
    """Hundreds of odd requests, reproducible, on tasks whose texts are odd themselves."""
    manager = TaskManager(snapshot_db=str(tmp_path / "tasks.db") if persistent else None)
    app = FastAPI()
    TaskAdmin(app, manager, display_func_args=True)

    async def fail(text: str) -> None:
        raise ValueError(text)

    @app.post("/fail")
    async def failing(tasks: ManagedBackgroundTasks) -> None:
        tasks.add_task(fail, "<b>\ud800\0", tags=["<i>\ud800\0"])

    dice = random.Random(3)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        await client.post("/fail")
        assert (await client.get("/tasks?status=failed")).json()[0]["error"].startswith("<b>")
        for _ in range(400):
            asked = request(dice)
            answer = await client.request(**asked)
            assert answer.status_code < 500, asked
            if answer.status_code >= 400 and "json" in answer.headers["content-type"]:
                assert answer.json()["detail"], asked
