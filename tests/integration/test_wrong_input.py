"""Wrong input, case by case: what made the routes of other packages fail, and what once made ours fail.

Each case names its answer. `test_api_fuzz` looks for those that nobody has thought of.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskAuthBackend, TaskManager
from tests.integration.conftest import eventually, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from starlette.types import Message

WRONG_INSTANTS = (
    "99999999999d", "1e99", "-5d", "5", "d", "٣d", "nan", "inf", "2026-02-30", "0000-01-01", "10000-01-01",
    "2026-01-01T25:00", "0" * 65, "\0",
)  # fmt: skip
FAR_INSTANTS = (
    "999999999w", "0001-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2026-W01-1", "",
)  # fmt: skip
WRONG_CURSORS: tuple[Any, ...] = (
    [10**309, "x", 0], [float("inf"), "x", 0], [float("nan"), "x", 0], [1.0, "\0", 0], [1.0, "\ud800", 0], [1.0, 5, 0],
    ["1", "x", 0], [None, "x", 0], [1.0, "x"], [1.0, "x", 0, 0], [], {}, None, "abc", 1.5,
)  # fmt: skip
WRONG_LIMITS = ("0", "-1", "501", "abc", "1.5", "1e3", "9" * 5_000, "")
WRONG_BODIES = (
    b"", b"null", b"[]", b"{}", b'{"task_ids":null}', b'{"task_ids":"x"}', b'{"task_ids":[1]}', b'{"task_ids":[NaN]}',
    b'{"task_ids":["\\ud800"]}', b'{"task_ids":[["x"]]}', b"\xff\xfe", b"\0", b'{"task_ids":[', b"[" * 100_000,
    b'{"task_ids":' + b"9" * 5_000 + b"}", json.dumps({"task_ids": ["x"] * 1_001}).encode(),
    json.dumps({"task_ids": ["x" * 65]}).encode(),
)  # fmt: skip
WRONG_IDS = ("x", "%00", "%ff", "%F0%9F%92%A9", "..%2f..", "%20", "a" * 10_000, "'--", "nothing")
WRONG_LIMITS_OF_A_QUEUE: tuple[Any, ...] = (
    {"concurrency": "abc"}, {"concurrency": -1}, {"max_size": 10**30}, {"rate_limit": "\0"}, {"rate_limit": "٣/s"},
    {}, [], None,
)  # fmt: skip
ODD_HEADERS = (
    ("accept", "text/html;q=nan, application/json;q=-1, ;;;, /"),
    ("accept", "\xff"),
    ("authorization", "Bearer é"),
    ("authorization", "Basic é"),
    ("authorization", "Basic //8="),
    ("authorization", "Basic"),
    ("cookie", "taskflow_session=é; taskflow_session=a.b.c; =; ;;"),
    ("host", "["),
    ("host", "a b"),
    ("host", "x:99999999"),
    ("x-forwarded-host", "[,"),
    ("if-none-match", "\xff"),
    ("content-length", "-1"),
)
RIGHT = {"username": "admin", "password": "secret"}


class Shop:
    """An application with one task that fails until it is told to work."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.app = FastAPI()
        self.manager = TaskManager(snapshot_db=path / "tasks.db", commit_timeout=0.2)
        self.ran: list[int] = []
        self.broken = True
        self.then: Callable[[], object] = list
        TaskAdmin(self.app, self.manager, **options)
        self.manager.task(name="pay")(self.pay)

        @self.app.post("/pay/{order}")
        async def pay(order: int, tasks: ManagedBackgroundTasks) -> str:
            return tasks.add_task(self.pay, order)

    async def pay(self, order: int) -> None:
        """Note the order, or fail."""
        if self.broken:
            msg = "no money"
            raise ValueError(msg)
        self.ran.append(order)
        self.then()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a shop without login."""
    async with serving(Shop(tmp_path).app) as client:
        yield client


def cursor_of(value: Any) -> str:
    """Return a forged cursor."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def raw(name: str, value: str) -> dict[bytes, bytes]:
    """Return one header with bytes that a well-behaved client does not send."""
    return {name.encode(): value.encode("latin-1")}


def reasons(answer: httpx.Response) -> str:
    """Return what a 422 says, as one text."""
    assert answer.status_code == 422, f"{answer.url} {answer.text}"
    return json.dumps(answer.json()["detail"])


async def test_a_wrong_instant_is_named(client: httpx.AsyncClient) -> None:
    """Other packages add ``since=99999999999d`` to a date, and fail."""
    for text in WRONG_INSTANTS:
        for route in ("/tasks", "/tasks/history", "/tasks/history?format=csv", "/tasks/dashboard"):
            for name in ("since", "until"):
                answer = await client.get(route, params={**httpx.URL(route).params, name: text})
                assert name in reasons(answer)
        assert "since" in reasons(await client.post("/tasks/retry-failed", params={"since": text}))


async def test_an_instant_far_away_is_an_instant(client: httpx.AsyncClient) -> None:
    """All of the calendar is allowed, and spans that reach beyond it; an empty field of a form is none."""
    for text in FAR_INSTANTS:
        for name in ("since", "until"):
            assert (await client.get("/tasks", params={name: text})).status_code == 200, text
        assert (await client.post("/tasks/retry-failed", params={"since": text})).status_code == 200, text


async def test_a_forged_cursor_is_refused(client: httpx.AsyncClient) -> None:
    """Whatever JSON is in it, on a store with tasks in it; or no base64, no UTF-8, no JSON, too long."""
    await client.post("/pay/1")
    for cursor in (*map(cursor_of, WRONG_CURSORS), "é", "=", "====", "\0", "_", "-", "W1", "a" * 512, "a" * 513):
        for route in ("/tasks", "/tasks/history?format=ndjson", "/tasks/dashboard", "/tasks?status=failed"):
            params = {**httpx.URL(route).params, "cursor": cursor}
            assert "cursor" in reasons(await client.get(route, params=params))


async def test_a_page_is_bounded(client: httpx.AsyncClient) -> None:
    """No list can be asked for everything at once."""
    for text in WRONG_LIMITS:
        for route in ("/tasks", "/tasks/history", "/tasks/dashboard"):
            assert "limit" in reasons(await client.get(route, params={"limit": text}))


async def test_a_wrong_body_is_refused(client: httpx.AsyncClient) -> None:
    """Of the one route that reads JSON."""
    for body in WRONG_BODIES:
        answer = await client.post("/tasks/bulk-retry", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), body[:40]
        assert answer.json()["detail"], body[:40]


async def test_a_body_of_another_kind_is_refused(client: httpx.AsyncClient) -> None:
    """A form of another site can send these without asking; they are not taken for JSON."""
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "", "é"):
        headers = raw("content-type", kind)
        answer = await client.post("/tasks/bulk-retry", content=b'{"task_ids":["x"]}', headers=headers)
        assert answer.status_code == 422, kind


async def test_unknown_ids_are_skipped_one_by_one(client: httpx.AsyncClient) -> None:
    """They may be any text."""
    ids = ["x", "", "\0", "../..", "é" * 64, "%00"]
    answer = await client.post("/tasks/bulk-retry", json={"task_ids": [*ids, "x"]})
    assert answer.json()["skipped"] == len(ids)
    assert [each["task_id"] for each in answer.json()["reasons"]] == ids


async def test_no_such_task_is_404(client: httpx.AsyncClient) -> None:
    """Whatever stands where an id belongs."""
    looks = [("GET", route) for route in ("/{}", "/{}/trace", "/dashboard/{}")]
    for method, route in (*looks, ("POST", "/{}/cancel"), ("POST", "/{}/retry")):
        for task_id in WRONG_IDS:
            answer = await client.request(method, f"/tasks{route.format(task_id)}")
            assert (answer.status_code, bool(answer.json()["detail"])) == (404, True), f"{route} {task_id}"


@pytest.mark.parametrize(
    "query", ["", "value=", "value=-1", "value=nan", "value=inf", "value=1e9", "value=1&unit=week"]
)
async def test_a_wrong_age_of_the_history_is_422(client: httpx.AsyncClient, query: str) -> None:
    """And deletes nothing."""
    before = len((await client.get("/tasks/history")).json())
    answer = await client.delete(f"/tasks/history?{query}")
    assert (answer.status_code, bool(answer.json()["detail"])) == (422, True)
    assert len((await client.get("/tasks/history")).json()) == before


async def test_a_wrong_limit_of_a_queue_is_422_and_a_wrong_queue_404(client: httpx.AsyncClient) -> None:
    """Whatever the name is, it is no 500."""
    for body in WRONG_LIMITS_OF_A_QUEUE:
        answer = await client.patch("/tasks/queues/default", json=body)
        assert answer.status_code == 422, answer.text
    for name in WRONG_IDS:
        for method, route in (("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
            answer = await client.request(method, f"/tasks/queues/{name}{route}", json={"concurrency": 1})
            assert (answer.status_code, bool(answer.json()["detail"])) == (404, True), f"{route} {name}"


async def test_no_such_schedule_is_404(client: httpx.AsyncClient) -> None:
    """Whatever stands where a name belongs; the list is there, and has none."""
    assert (await client.get("/tasks/schedules")).json() == []
    for action in ("run", "pause", "resume"):
        for name in WRONG_IDS:
            answer = await client.post(f"/tasks/schedules/{name}/{action}")
            assert (answer.status_code, bool(answer.json()["detail"])) == (404, True), f"{action} {name}"


async def test_an_origin_that_is_none_of_ours_is_refused(client: httpx.AsyncClient) -> None:
    """Also one that no URL parser takes."""
    for origin in ("http://[", "http://[::1", "http://a]b", "null", "", "x", "http://", "http://½"):
        headers = raw("origin", origin)
        for route in ("/tasks/retry-failed", "/tasks/x/cancel", "/tasks/auth/logout"):
            assert (await client.post(route, headers=headers)).status_code == 403, origin
        assert (await client.get("/tasks", headers=headers)).status_code == 200, origin


class CheapLogin(TaskAuthBackend):
    """Knows one user, without the time that a real hash takes."""

    async def authenticate_user(self, username: str, password: str) -> bool:
        return (username, password) == ("admin", "secret")


async def test_no_header_breaks_a_route(tmp_path: Path) -> None:
    """Signed out and in, reading and acting. A server refuses some of these itself, another one may not."""
    shop = Shop(tmp_path, auth=CheapLogin(), metrics_token="token")
    gets = ("", "/metrics", "/health", "/dashboard", "/dashboard/static/taskflow.css", "/auth/login")
    posts = ("/retry-failed", "/bulk-retry", "/x/retry", "/auth/logout", "/auth/login")
    async with serving(shop.app) as client:
        for name, value in ODD_HEADERS:
            client.cookies.clear()
            headers = raw(name, value)
            for _ in range(2):
                for route in gets:
                    assert (await client.get(f"/tasks{route}", headers=headers)).status_code < 500, (name, value, route)
                for route in posts:
                    answer = await client.post(f"/tasks{route}", headers=headers, data=RIGHT)
                    assert answer.status_code < 500, (name, value, route)
                assert (await client.post("/tasks/auth/login", data=RIGHT)).status_code == 200


async def test_a_wrong_login_form_is_told(tmp_path: Path) -> None:
    """Whatever it says it is."""
    forms = (
        (b"", 401), (b"username=admin", 401), (b"username=%00&password=%ff", 401), (b"password=%ED%A0%80", 401),
        (b"\xff", 422), (b"a=1&" * 17, 422), (b"a" * 16_385, 413),
    )  # fmt: skip
    async with serving(Shop(tmp_path, auth=CheapLogin()).app) as client:
        for body, status in forms:
            for kind in ("application/x-www-form-urlencoded", "application/json"):
                answer = await client.post("/tasks/auth/login", content=body, headers={"content-type": kind})
                assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), body[:40]


async def test_a_retry_that_cannot_be_stored_is_503_and_does_not_run(tmp_path: Path) -> None:
    """Other packages answer 500 here, as with their full queue. The task is not left half done, either."""
    shop = Shop(tmp_path)
    async with serving(shop.app) as client:
        first, second = [(await client.post(f"/pay/{order}")).json() for order in (1, 2)]
        assert len((await client.get("/tasks?status=failed")).json()) == 2
        shop.broken = False
        with contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            for answer in (
                await client.post(f"/tasks/{first}/retry"),
                await client.post("/tasks/bulk-retry", json={"task_ids": [first, second]}),
                await client.post("/tasks/retry-failed"),
            ):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
                assert "try again" in answer.json()["detail"]
            # With a journal that takes nothing more, the answer is the same and comes at once.
            shop.manager.journal._max_backlog = 1
            answer = await client.post(f"/tasks/{first}/retry")
            assert answer.status_code == 503
            assert "no new task is taken in" in answer.json()["detail"]
            other.rollback()
        shop.manager.journal._max_backlog = 100
        await eventually(lambda: client.get("/tasks?status=pending,running"), lambda answer: answer.json() == [])
        again = (await client.post(f"/tasks/{first}/retry")).json()["task_id"]
        await eventually(lambda: client.get(f"/tasks/{again}"), lambda answer: answer.json()["status"] == "success")
        assert shop.ran == [1]


async def test_a_bulk_retry_that_stops_half_way_tells_what_runs(tmp_path: Path) -> None:
    """With a 503 the client would ask for all of them again, and some would run twice."""
    shop = Shop(tmp_path)
    async with serving(shop.app) as client:
        ids = [(await client.post(f"/pay/{order}")).json() for order in (1, 2, 3)]
        await client.get("/tasks")
        shop.broken = False
        with contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as other:
            # The first one that runs stops the store for the others.
            shop.then = functools.partial(other.execute, "BEGIN IMMEDIATE")
            body = (await client.post("/tasks/bulk-retry", json={"task_ids": ids})).json()
            other.rollback()
        assert [each["original_task_id"] for each in body["results"]] == ids[: body["dispatched"]]
        assert body["dispatched"] + body["skipped"] == 3
        assert body["dispatched"] > 0
        assert body["skipped"] > 0
        assert "try again" in body["reasons"][0]["reason"]


async def first_events(app: FastAPI, headers: Mapping[str, str]) -> tuple[int, str]:
    """Ask for the stream and go away after its first events; return the status and what came.

    The client of the other tests waits for an answer's end, which a stream does not have.
    """
    status, body, gone = 0, b"", asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")
        asks_again = bool(headers.get("last-event-id"))
        if (b"event: resync" if asks_again else b"event: hello") in body or not message.get("more_body", True):
            gone.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/tasks/dashboard/stream", "raw_path": b"/tasks/dashboard/stream", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return status, body.decode()


async def test_the_stream_tells_who_cannot_resume(tmp_path: Path) -> None:
    """A place that is none of this process is no error: the page is told to load anew."""
    shop = Shop(tmp_path)
    async with serving(shop.app):
        for place in ("x", "-", "-1", "9" * 64, "00000000-0", "\xff-1", "0-\xb2", "-" * 64, "1e5"):
            status, text = await first_events(shop.app, {"last-event-id": place})
            assert (status, "event: hello" in text, "event: resync" in text) == (200, True, True), place


async def test_the_stream_refuses_what_is_wrong(tmp_path: Path) -> None:
    """A place that is too long, another method, and who is not signed in."""
    (tmp_path / "locked").mkdir()
    shop, locked = Shop(tmp_path), Shop(tmp_path / "locked", auth=("admin", "secret"))
    async with serving(shop.app) as client:
        assert (await client.get("/tasks/dashboard/stream", headers={"last-event-id": "x" * 65})).status_code == 422
        assert (await client.post("/tasks/dashboard/stream")).status_code == 405
        assert (await first_events(shop.app, {"last-event-id": ""}))[0] == 200
    async with serving(locked.app) as client:
        answer = await client.get("/tasks/dashboard/stream", headers={"last-event-id": "x"})
        assert (answer.status_code, answer.json()) == (401, {"detail": "not authenticated"})
        cookie = {"cookie": "taskflow_session=x.y.z", "accept": "text/event-stream"}
        assert (await client.get("/tasks/dashboard/stream", headers=cookie)).status_code == 401


async def test_a_function_that_is_named_oddly_retries_nothing(tmp_path: Path) -> None:
    """What is left of the name must not mean "all"."""
    shop = Shop(tmp_path)
    async with serving(shop.app) as client:
        await client.post("/pay/1")
        for name in ("\0", " ", "*\0*", "nobody"):
            answer = await client.post("/tasks/retry-failed", params={"func_name": name})
            assert (answer.status_code, answer.json()["dispatched"]) == (200, 0), name
        assert (await client.post("/tasks/retry-failed", params={"func_name": "p\0ay"})).json()["dispatched"] == 1
