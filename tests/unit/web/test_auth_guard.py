from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from starlette.datastructures import Headers

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.web.auth.backend import TaskAuthBackend
from fastapi_taskflow.web.auth.origin import from_elsewhere
from fastapi_taskflow.web.paths import safe_next
from tests.unit.web import fakes
from tests.unit.web.conftest import client_of, locked

if TYPE_CHECKING:
    import httpx

HTML = {"accept": "text/html,*/*;q=0.8"}
RIGHT = {"username": "admin", "password": "secret"}
CLOSED = [
    ("GET", "/tasks/"),
    ("GET", "/tasks/x"),
    ("GET", "/tasks/x/trace"),
    ("POST", "/tasks/x/cancel"),
    ("POST", "/tasks/x/retry"),
    ("POST", "/tasks/bulk-retry"),
    ("POST", "/tasks/retry-failed"),
    ("GET", "/tasks/metrics"),
    ("GET", "/tasks/history"),
    ("GET", "/tasks/history?format=csv"),
    ("GET", "/tasks/functions"),
    ("GET", "/tasks/health"),
    ("GET", "/tasks/dashboard"),
    ("GET", "/tasks/dashboard/x"),
    ("GET", "/tasks/dashboard/stream"),
    ("GET", "/tasks/dashboard/static/list.js"),
    ("POST", "/tasks/auth/logout"),
    ("GET", "/tasks/nothing/here"),
    ("DELETE", "/tasks/x"),
    ("GET", "/tasks/auth/login/"),
    ("GET", "/tasks//auth/login"),
]


async def log_in(client: httpx.AsyncClient) -> None:
    """Log the client in."""
    answer = await client.post("/tasks/auth/login", data=RIGHT)
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_every_route_is_behind_the_login(method: str, path: str) -> None:
    """Without a session each route is 401 JSON, whether it exists or not."""
    async with client_of(locked()) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "not authenticated"}


async def test_only_the_login_page_is_open() -> None:
    """The page, its style sheet and the icon need no session."""
    async with client_of(locked()) as client:
        for path in ("auth/login", "dashboard/static/taskflow.css", "dashboard/static/icon.svg"):
            assert (await client.get(f"/tasks/{path}")).status_code == 200


async def test_a_browser_is_sent_to_the_login_and_back() -> None:
    """A navigation is redirected, and after the login goes on to where it wanted."""
    async with client_of(locked()) as client:
        sent = await client.get("/tasks/dashboard?status=failed&q=a%20b", headers=HTML)
        assert sent.status_code == 303
        login = sent.headers["location"]
        assert login.startswith("/tasks/auth/login?next=")
        form = await client.get(login, headers=HTML)
        assert 'value="/dashboard?status=failed&amp;q=a%20b"' in form.text
        target = "/dashboard?status=failed&q=a%20b"
        done = await client.post("/tasks/auth/login", data={**RIGHT, "next": target}, headers=HTML)
        assert done.status_code == 303
        assert done.headers["location"] == f"/tasks{target}"
        page = await client.get(done.headers["location"], headers=HTML)
        assert page.status_code == 200
        assert "Log out" in page.text


async def test_cookie_is_as_strict_as_it_can_be() -> None:
    """HttpOnly, SameSite, bound to the mount's path, and Secure on https alone."""
    for base, secure in (("http://shop.test", False), ("https://shop.test", True)):
        async with client_of(locked(token_expiry=600), base=base, path="/admin/tasks") as client:
            cookie = (await client.post("/admin/tasks/auth/login", data=RIGHT)).headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "path=/admin/tasks" in cookie
        assert "max-age=600" in cookie
        assert ("; secure" in cookie) is secure


async def test_logout_revokes_even_a_stolen_cookie() -> None:
    """The value that was logged out does not work any more, also when it is sent again."""
    async with client_of(locked()) as client:
        await log_in(client)
        stolen = client.cookies["taskflow_session"]
        assert (await client.get("/tasks/")).status_code == 200
        assert (await client.post("/tasks/auth/logout")).status_code == 204
        assert "taskflow_session" not in client.cookies
        again = await client.get("/tasks/", headers={"cookie": f"taskflow_session={stolen}"})
        assert again.status_code == 401


async def test_guessing_is_slowed_but_others_get_in() -> None:
    """After five wrong passwords the user waits, with Retry-After; another user does not."""
    async with client_of(locked()) as client:
        codes = [(await client.post("/tasks/auth/login", data={**RIGHT, "password": "no"})) for _ in range(6)]
        assert [answer.status_code for answer in codes] == [401] * 5 + [429]
        assert int(codes[-1].headers["retry-after"]) > 0
        late = await client.post("/tasks/auth/login", data=RIGHT, headers=HTML)
        assert late.status_code == 429
        assert "Too many attempts" in late.text
        assert (await client.post("/tasks/auth/login", data={**RIGHT, "username": "bob"})).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 401),
        (b"\xff\xfe", 422),
        (b"a=1&" * 50, 422),
        (b"username=" + b"x" * 20_000, 413),
        (b"username=%ED%A0%80", 401),
    ],
)
async def test_wrong_forms_are_4xx(body: bytes, status: int) -> None:
    """No form is a 500."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    async with client_of(locked()) as client:
        assert (await client.post("/tasks/auth/login", content=body, headers=headers)).status_code == status


class Broken(TaskAuthBackend):
    """Its database is gone."""

    def authenticate_user(self, username: str, password: str) -> bool:
        raise OSError("no database")


async def test_a_broken_backend_lets_nobody_in() -> None:
    """It is logged and answered with 503."""
    async with client_of(fakes.build([], auth=Broken())) as client:
        answer = await client.post("/tasks/auth/login", data=RIGHT)
        basic = await client.get("/tasks/metrics", auth=("admin", "secret"))
    assert answer.status_code == 503
    assert "no database" not in answer.text
    assert basic.status_code == 401


async def test_a_broken_store_lets_nobody_in() -> None:
    """If a session cannot be checked the answer is 503, not the data."""
    parts = locked()
    async with client_of(parts) as client:
        await log_in(client)
        parts.store.error = StoreError("gone")
        assert (await client.get("/tasks/")).status_code == 503


async def test_scrapers_use_their_token_or_a_password() -> None:
    """The token opens metrics and health and nothing else; so does HTTP Basic."""
    parts = locked(metrics_token="t0ken")
    async with client_of(parts) as client:
        token = {"authorization": "Bearer t0ken"}
        for path in ("metrics", "health"):
            assert (await client.get(f"/tasks/{path}", headers=token)).status_code == 200
            assert (await client.get(f"/tasks/{path}", auth=("admin", "secret"))).status_code == 200
        for path in ("", "history", "dashboard"):
            assert (await client.get(f"/tasks/{path}", headers=token)).status_code == 401
            assert (await client.get(f"/tasks/{path}", auth=("admin", "secret"))).status_code == 401
        for wrong in ("Bearer no", "Bearer ", "Bearer é", "Basic !!", "Basic", "Digest x"):
            answer = await client.get("/tasks/metrics", headers=[(b"authorization", wrong.encode("latin-1"))])
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_basic_guessing_is_slowed_too() -> None:
    """Wrong passwords of a scraper count as wrong logins do."""
    async with client_of(locked()) as client:
        codes = [(await client.get("/tasks/metrics", auth=("admin", f"no{n}"))).status_code for n in range(6)]
        assert codes == [401] * 5 + [429]
        assert (await client.get("/tasks/metrics", auth=("admin", "secret"))).status_code == 429


async def test_a_session_goes_before_a_proxys_header() -> None:
    """A browser behind a proxy with HTTP Basic of its own still sees the metrics."""
    async with client_of(locked()) as client:
        await log_in(client)
        header = {"authorization": "Basic " + base64.b64encode(b"proxy:word").decode()}
        assert (await client.get("/tasks/metrics", headers=header)).status_code == 200


async def test_token_without_login_locks_the_metrics_alone() -> None:
    """Who gives a token wants it asked for."""
    async with client_of(fakes.build([], metrics_token="t0ken")) as client:
        assert (await client.get("/tasks/metrics")).status_code == 401
        assert (await client.get("/tasks/metrics", headers={"authorization": "Bearer t0ken"})).status_code == 200
        assert (await client.get("/tasks/")).status_code == 200


async def test_without_auth_there_is_no_login() -> None:
    """The page leads to the dashboard, and the form is 404."""
    async with client_of(fakes.build([])) as client:
        assert (await client.get("/tasks/auth/login")).headers["location"] == "/tasks/dashboard"
        assert (await client.post("/tasks/auth/login", data=RIGHT)).status_code == 404


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"origin": "http://shop.test", "host": "shop.test"}, False),
        ({"origin": "http://SHOP.test:80", "host": "shop.test:80"}, False),
        ({"origin": "http://evil.test", "host": "shop.test"}, True),
        ({"origin": "http://shop.test.evil.test", "host": "shop.test"}, True),
        ({"origin": "null", "host": "shop.test"}, True),
        ({"origin": "https://shop.test", "host": "10.0.0.7", "x-forwarded-host": "shop.test"}, False),
    ],
)
def test_other_sites_are_told_apart(headers: dict[str, str], foreign: bool) -> None:  # noqa: FBT001 - a table's column
    """The browser's own words decide."""
    assert from_elsewhere(Headers(headers)) is foreign


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/x/cancel",
        "/tasks/x/retry",
        "/tasks/bulk-retry",
        "/tasks/retry-failed",
        "/tasks/auth/login",
        "/tasks/auth/logout",
    ],
)
async def test_unsafe_methods_refuse_other_sites(path: str) -> None:
    """Every change from a foreign page is 403, with or without a session."""
    async with client_of(locked()) as client:
        await log_in(client)
        answer = await client.post(path, headers={"origin": "http://evil.test"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "//evil.test",
        "https://evil.test",
        "/\\evil.test",
        "/a\r\nSet-Cookie: x",
        "dashboard",
        "/auth/logout",
        "/../x",
    ],
)
def test_next_never_leaves_the_mount(target: str | None) -> None:
    """Anything but a plain path below the mount becomes the dashboard."""
    assert safe_next(target) == "/dashboard"
