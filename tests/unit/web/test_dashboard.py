from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from fastapi_taskflow.task.record import TaskStatus
from fastapi_taskflow.web.app import build_admin_app
from fastapi_taskflow.web.dashboard.assets import assets
from fastapi_taskflow.web.dashboard.formats import ago, clip, duration, percent, pretty, stamp
from fastapi_taskflow.web.headers import SECURITY_HEADERS
from tests.unit.web import fakes, samples
from tests.unit.web.conftest import client_of

HTML = {"accept": "text/html"}


def links(text: str) -> list[str]:
    """Return every address in a page."""
    return [unescape(link) for link in re.findall(r'(?:href|src|action|data-copy-from)="([^"]*)"', text)]


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/metrics", "/dashboard", "/dashboard/nope", "/dashboard/static/list.js"]
)
async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    """CSP, nosniff and frame denial are on errors too; data is not cached."""
    answer = await client.get(f"/tasks{path}")
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
    assert "unsafe" not in answer.headers["content-security-policy"]


async def test_pages_keep_to_their_policy(client: httpx.AsyncClient) -> None:
    """No inline script, style or handler, and no address of another host."""
    task = (await client.get("/tasks/?status=failed&func_name=call_webhook")).json()[0]
    for path in ("/tasks/dashboard", f"/tasks/dashboard/{task['task_id']}", "/tasks/dashboard/nope"):
        text = (await client.get(path, headers=HTML)).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"<style|\sstyle=|\son\w+=", text)
        assert all(link.startswith(("/tasks/", "?", "#")) for link in links(text)), links(text)


async def test_pages_work_below_any_path_and_root() -> None:
    """Every address begins with the proxy's prefix and the mount's path."""
    task = samples.failed_webhook()
    async with client_of(fakes.build([task]), path="/a b/tasks") as client:
        for path in ("dashboard", f"dashboard/{task.task_id}"):
            text = (await client.get(f"/a b/tasks/{path}")).text
            assert all(link.startswith(("/a%20b/tasks/", "?", "#")) for link in links(text))
        answer = await client.get("/a b/tasks/?limit=1")
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/tasks", "/tasks/", "/x/tasks"])
async def test_the_mount_itself_is_the_list(path: str) -> None:
    """With or without a slash at the end, also behind a proxy's prefix."""
    app = build_admin_app(fakes.build([samples.record()]).parts)
    transport = httpx.ASGITransport(app=app, root_path=path.rstrip("/"))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        assert len((await client.get(path)).json()) == 1


async def test_list_page_filters_and_pages_without_script(client: httpx.AsyncClient) -> None:
    """Rows, filters and the next page are plain links and a GET form."""
    first = (await client.get("/tasks/dashboard?limit=20&status=success")).text
    assert first.count("<tr data-id=") == 20
    assert '<option value="success" selected>' in first
    following = next(link for link in links(first) if "cursor=" in link)
    assert "status=success" in following
    second = (await client.get(following)).text
    assert "First page" in second
    ids = re.compile(r'data-id="([^"]+)"')
    assert not set(ids.findall(first)) & set(ids.findall(second))


async def test_empty_lists_say_why() -> None:
    """No task at all and no match are told apart."""
    async with client_of(fakes.build([])) as client:
        assert "No tasks yet." in (await client.get("/tasks/dashboard")).text
        assert "No task matches." in (await client.get("/tasks/dashboard?q=zzz")).text


async def test_wrong_filters_are_a_page_with_a_reason(client: httpx.AsyncClient) -> None:
    """A person sees an error page, a program JSON."""
    answer = await client.get("/tasks/dashboard?status=done", headers=HTML)
    assert answer.status_code == 422
    assert "status must be one of" in answer.text
    assert "limit" in (await client.get("/tasks/dashboard?limit=0", headers=HTML)).text


async def test_task_page_shows_everything(client: httpx.AsyncClient) -> None:
    """Error, stack, attempts, log, arguments, timeline and the trace id are there."""
    task = (await client.get("/tasks/?status=failed&func_name=call_webhook")).json()[0]
    text = (await client.get(f"/tasks/dashboard/{task['task_id']}")).text
    for piece in ("httpx.HTTPStatusError", "raise_for_status", "Attempt 2 failed", "connection reused", "SELECT orders",
                  samples.TRACE, "order:1042", "order-1042-webhook", "&#34;args&#34;", "/retry"):  # fmt: skip
        assert piece in text, piece
    assert "/cancel" not in text


async def test_a_running_task_shows_how_far_it_is(client: httpx.AsyncClient) -> None:
    """As a bar, a figure and a text, which is no HTML."""
    found = (await client.get("/tasks/?status=running")).json()
    (task,) = [each for each in found if each["progress"] is not None]
    text = (await client.get(f"/tasks/dashboard/{task['task_id']}")).text
    for piece in ('value="0.42"', "42", "&lt;b&gt;page 3"):
        assert piece in text, piece


async def test_log_level_filters_on_the_server(client: httpx.AsyncClient) -> None:
    """Only lines of that level and above are shown; an unknown level shows all."""
    task = (await client.get("/tasks/?status=failed&func_name=call_webhook")).json()[0]
    url = f"/tasks/dashboard/{task['task_id']}?level="
    assert "connection reused" not in (await client.get(url + "warning")).text
    assert "giving up" in (await client.get(url + "warning")).text
    assert "No line at level" in (await client.get(url + "critical")).text
    assert "connection reused" in (await client.get(url + "loud")).text


async def test_trace_link_is_made_from_the_template() -> None:
    """With trace_url the id leads to the backend, in a new window without a way back."""
    task = samples.failed_webhook()
    async with client_of(fakes.build([task], trace_url="http://jaeger:16686/trace/{trace_id}")) as client:
        text = (await client.get(f"/tasks/dashboard/{task.task_id}")).text
    assert f'href="http://jaeger:16686/trace/{samples.TRACE}" rel="noopener noreferrer"' in text


async def test_buttons_work_as_plain_forms(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """Cancel and retry lead back to a page that says what was done."""
    pending = next(task for task in shop.journal.records.values() if task.status is TaskStatus.PENDING)
    same = {**HTML, "origin": "http://shop.test"}
    done = await client.post(f"/tasks/{pending.task_id}/cancel", headers=same)
    assert done.status_code == 303
    assert "The task was cancelled." in (await client.get(done.headers["location"], headers=HTML)).text
    conflict = await client.post(f"/tasks/{pending.task_id}/cancel", headers=same)
    assert conflict.status_code == 409
    assert "cannot cancel" in conflict.text
    again = await client.post(f"/tasks/{pending.task_id}/retry", headers=same)
    assert "This is the new run." in (await client.get(again.headers["location"], headers=HTML)).text
    bulk = await client.post("/tasks/retry-failed?func_name=call_webhook&since=", headers=same)
    assert "started again: 1" in (await client.get(bulk.headers["location"], headers=HTML)).text


async def test_a_running_thread_is_asked_and_said_so(client: httpx.AsyncClient, shop: fakes.Fakes) -> None:
    """A sync task stays running, and the page does not claim otherwise."""
    running = next(
        task
        for task in shop.journal.records.values()
        if task.status is TaskStatus.RUNNING and task.executor == "thread"
    )
    done = await client.post(f"/tasks/{running.task_id}/cancel", headers=HTML)
    text = (await client.get(done.headers["location"], headers=HTML)).text
    assert "was asked to stop" in text
    assert 'data-status="running"' in text


async def test_a_link_cannot_put_words_on_the_page(client: httpx.AsyncClient) -> None:
    """Only known notices are shown."""
    assert "evil" not in (await client.get("/tasks/dashboard?notice=evil&n=5")).text


async def test_static_files_are_revalidated(client: httpx.AsyncClient) -> None:
    """Each file has a type and an ETag that gives 304; others are 404."""
    assert {"taskflow.css", "list.js", "task.js", "live.js", "format.js", "icon.svg"} <= set(assets())
    answer = await client.get("/tasks/dashboard/static/list.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    cached = await client.get("/tasks/dashboard/static/list.js", headers={"if-none-match": answer.headers["etag"]})
    assert (cached.status_code, cached.content) == (304, b"")
    for name in ("nope.js", "..%2froutes.py", "__init__.py"):
        assert (await client.get(f"/tasks/dashboard/static/{name}")).status_code == 404


def test_modules_stay_small() -> None:
    """No script grows beyond 300 lines."""
    assert all(asset.body.count(b"\n") < 300 for name, asset in assets().items() if name.endswith(".js"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "\u2013"), (0, "0 s"), (0.0004, "400 µs"), (0.0049, "4.9 ms"), (0.0123, "12 ms"), (0.9996, "1.00 s"),
     (9.996, "10.0 s"), (59.9, "59.9 s"), (60, "1 m 00 s"), (3599, "59 m 59 s"), (4320, "1 h 12 m"),
     (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations_read_well(seconds: float | None, text: str) -> None:
    """Each size has its unit."""
    assert duration(seconds) == text


def test_other_facts_read_well() -> None:
    """Shares, ages, times and long texts."""
    assert percent(1.0) == "100 %"
    assert percent(0.99999) == "99.9 %"
    assert percent(None) == "\u2013"
    assert stamp(0.0) == "1970-01-01 00:00:00.000"
    assert ago(None) == "\u2013"
    assert ago(4e9).startswith("in ")
    assert len(clip("x" * 100_000)) < 21_000
    assert clip("x" * 50, 10) == "x" * 9 + "…"
    cycle: list[object] = []
    cycle.append(cycle)
    assert pretty(cycle).startswith("[")
