"""The dashboard as a person uses it: a real browser on a real server with a real manager."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from fastapi_taskflow import ManagedBackgroundTasks, TaskAdmin, TaskManager, get_task_context, task_log
from tests.programs import missing, require_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp, Receive, Scope, Send

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

SOON = 10_000
"""Milliseconds within which something must show."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = require_program("chromium", "chromium-browser", "google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Run ``app`` under uvicorn in a thread; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def behind_proxy(app: ASGIApp) -> ASGIApp:
    """Return ``app`` as a server has it that was told of a proxy's prefix."""

    async def prefixed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/proxy"} if scope["type"] == "http" else scope, receive, send)

    return prefixed


def wait_until(done: Any) -> None:
    """Return when ``done()`` is true; fail after ten seconds."""
    end = time.monotonic() + SOON / 1000
    while not done():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


class Shop:
    """An application with tasks that end when the test says so."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.go_on = threading.Event()
        manager = TaskManager(snapshot_db=str(folder / "tasks.db"))
        self.app = FastAPI()
        options = {"poll_interval": 1.0, "display_func_args": True, "title": "Shop", **options}
        TaskAdmin(self.app, manager, **options)

        @manager.task()
        def build_report(month: str) -> None:
            context = get_task_context()
            assert context is not None
            task_log(f"building {month}", rows=3)
            while not self.go_on.wait(0.02):
                if context.cancelled:
                    return
            task_log("done", level="warning")

        @manager.task()
        async def charge(order: int) -> None:
            task_log("charging")
            msg = f"no money for <b>order</b> {order}"
            raise ValueError(msg)

        @self.app.post("/report")
        async def report(tasks: ManagedBackgroundTasks) -> str:
            return str(tasks.add_task(build_report, "2026-11", tags=["finance"]))

        @self.app.post("/charge")
        async def charged(tasks: ManagedBackgroundTasks) -> str:
            return str(tasks.add_task(charge, 7))

        self.manager = manager


@contextmanager
def page_of(browser: Browser, *, width: int = 1280, allow: str = "(?!)", **options: Any) -> Iterator[Page]:
    """Yield a page; fail if the browser complained of anything, such as the content security policy."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(SOON)
    try:
        yield page
    finally:
        context.close()
    assert [text for text in complaints if not re.search(allow, text)] == []


def post(url: str) -> str:
    """Add a task; return its id."""
    return str(httpx.post(url).json())


def test_rows_change_in_place_and_new_ones_wait(browser: Browser, tmp_path: Path) -> None:
    """A running row becomes success where it stands; a new task waits behind the pill until it is asked for."""
    shop = Shop(tmp_path)
    with served(shop.app) as url, page_of(browser) as page:
        first = post(f"{url}/report")
        page.goto(f"{url}/tasks/dashboard")
        page.locator('#live[data-state="on"]').wait_for()
        row = page.locator(f'tr[data-id="{first}"]')
        assert row.locator(".badge").inner_text() == "running"
        second = post(f"{url}/charge")
        page.locator("#fresh", has_text="1 new").wait_for()
        assert page.locator("#rows tr").count() == 1
        page.locator("#fresh").click()
        page.locator(f'tr[data-id="{second}"] .badge.s-failed').wait_for()
        assert page.locator("#rows tr").first.get_attribute("data-id") == second
        page.locator(f'tr[data-id="{second}"] .why', has_text="ValueError").wait_for()
        shop.go_on.set()
        row.locator(".badge.s-success").wait_for()
        assert re.search(r"\d", row.locator(".c-duration").inner_text())
        page.locator(".t-success .tile-count", has_text="1").wait_for()


def test_pause_holds_the_page_still(browser: Browser, tmp_path: Path) -> None:
    """While paused nothing changes; after it the page catches up."""
    shop = Shop(tmp_path)
    with served(shop.app) as url, page_of(browser) as page:
        first = post(f"{url}/report")
        page.goto(f"{url}/tasks/dashboard")
        page.locator('#live[data-state="on"]').wait_for()
        page.locator("#pause").click()
        page.locator('#live[data-state="paused"]').wait_for()
        shop.go_on.set()
        wait_until(lambda: httpx.get(f"{url}/tasks/{first}").json()["status"] == "success")
        assert page.locator(f'tr[data-id="{first}"] .badge').inner_text() == "running"
        page.locator("#pause").click()
        page.locator(f'tr[data-id="{first}"] .badge.s-success').wait_for()


def test_first_task_appears_on_an_empty_page(browser: Browser, tmp_path: Path) -> None:
    """The empty state gives way to the first row by itself."""
    shop = Shop(tmp_path)
    with served(shop.app) as url, page_of(browser) as page:
        page.goto(f"{url}/tasks/dashboard")
        page.get_by_text("No tasks yet.").wait_for()
        page.locator('#live[data-state="on"]').wait_for()
        post(f"{url}/charge")
        page.locator("#rows tr .badge.s-failed").wait_for()


def test_task_page_follows_its_task(browser: Browser, tmp_path: Path) -> None:
    """Lines of the log and the end of a task show without a reload, and what was opened stays open."""
    shop = Shop(tmp_path)
    with served(shop.app) as url, page_of(browser) as page:
        task_id = post(f"{url}/report")
        page.goto(f"{url}/tasks/dashboard/{task_id}")
        page.get_by_text("building 2026-11").wait_for()
        page.locator(".span summary", has_text="send build_report").click()
        page.get_by_text("taskflow.source").wait_for()
        page.locator("h1").click()
        shop.go_on.set()
        page.locator("h1 .badge.s-success").wait_for()
        page.locator(".l-warning", has_text="done").wait_for()
        assert page.get_by_text("taskflow.source").first.is_visible()
        assert '"2026-11"' in page.locator("pre").last.inner_text()


def test_everything_works_without_script(browser: Browser, tmp_path: Path) -> None:
    """Filter, details, cancel and retry are links and forms."""
    shop = Shop(tmp_path)
    with served(shop.app) as url, page_of(browser, java_script_enabled=False) as page:
        task_id, failed = post(f"{url}/report"), post(f"{url}/charge")
        page.goto(f"{url}/tasks/dashboard")
        page.locator("select[name=status]").select_option("running")
        page.locator("form.filters button").click()
        assert page.locator("#rows tr").count() == 1
        page.locator("#rows .c-func a").click()
        page.wait_for_url(f"**/dashboard/{task_id}")
        page.locator(".confirm summary").click()
        page.get_by_role("button", name="Yes, cancel it").click()
        page.get_by_text("was asked to stop").wait_for()
        wait_until(lambda: httpx.get(f"{url}/tasks/{task_id}").json()["status"] == "cancelled")
        page.goto(f"{url}/tasks/dashboard/{failed}")
        assert page.locator(".error-text").inner_text() == "no money for <b>order</b> 7"
        page.get_by_role("button", name="Retry").click()
        page.get_by_text("This is the new run.").wait_for()
        assert failed not in page.url


def test_login_and_logout(browser: Browser, tmp_path: Path) -> None:
    """A person is asked for a password, comes to where they wanted, and after the logout is asked again."""
    shop = Shop(tmp_path, auth=("admin", "secret"), path="/admin/tasks")
    with served(shop.app) as url, page_of(browser, allow="401") as page:
        page.goto(f"{url}/admin/tasks/dashboard?status=failed")
        page.wait_for_url("**/auth/login?**")
        page.get_by_label("User name").fill("admin")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("Wrong user name or password.").wait_for()
        page.get_by_label("User name").fill("admin")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/admin/tasks/dashboard?status=failed")
        page.locator('#live[data-state="on"]').wait_for()
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/auth/login")
        page.goto(f"{url}/admin/tasks/dashboard")
        page.wait_for_url("**/auth/login?**")


def test_an_open_page_leaves_when_its_session_ends(browser: Browser, tmp_path: Path) -> None:
    """A logout in one window sends the other one to the login by itself."""
    shop = Shop(tmp_path, auth=("admin", "secret"))
    with served(shop.app) as url, page_of(browser, allow="401|Failed to load") as page:
        page.goto(f"{url}/tasks/auth/login")
        page.get_by_label("User name").fill("admin")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.locator('#live[data-state="on"]').wait_for()
        cookie = next(c["value"] for c in page.context.cookies() if c["name"] == "taskflow_session")
        httpx.post(f"{url}/tasks/auth/logout", headers={"cookie": f"taskflow_session={cookie}"})
        page.wait_for_url("**/auth/login?**")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 768, 1280])
def test_nothing_sticks_out_and_text_can_be_read(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """No page scrolls sideways, and badges have a contrast of 4.5 to 1 in both schemes."""
    shop = Shop(tmp_path, path="/admin/tasks")
    with served(behind_proxy(shop.app)) as url, page_of(browser, width=width, color_scheme=scheme) as page:
        failed = post(f"{url}/proxy/charge")
        for path in ("dashboard", f"dashboard/{failed}"):
            page.goto(f"{url}/proxy/admin/tasks/{path}")
            page.locator(".badge.s-failed").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert page.evaluate(CONTRAST, ".badge, .muted, .tile-name, .quiet, th, dt") >= 4.5


CONTRAST = """(selector) => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (channels) => {
    const scaled = channels.map((c) => c / 255);
    const [r, g, b] = scaled.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = 21;
  for (const element of document.querySelectorAll(selector)) {
    if (!element.offsetParent) continue;
    const behind = [];
    for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const a = light(rgb(behind)), b = light(rgb([...behind, getComputedStyle(element).color]));
    worst = Math.min(worst, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return worst;
}"""
